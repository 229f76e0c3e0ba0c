"""transformers looks for texts that are packed in one row, by reading from the device; ours are not."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import masking_utils


@contextmanager
def nothing_packed() -> Iterator[None]:
    """Keep transformers (5.0 to 5.23) from reading from the device, in every forward pass without a mask, whether
    several texts are packed in one row: none of ours are.
    """
    look = getattr(masking_utils, "find_packed_sequence_indices", None)
    if look is None:
        yield
        return
    masking_utils.find_packed_sequence_indices = lambda _position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = look
