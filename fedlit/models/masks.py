"""Attention masks that transformers need not look at: what it would read from the device is known on the CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import masking_utils

_SKIPS = ("_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa")


@contextmanager
def masks_as_given() -> Iterator[None]:
    """Keep transformers (5.0 to 5.23) from reading from the device in a forward pass. No text is packed with another in
    one row, which it looks for where there is no mask, and a mask that is given has padding in it: whether it could be
    left out, as one of ones can, is not looked for.
    """
    before = {name: getattr(masking_utils, name) for name in _SKIPS if hasattr(masking_utils, name)}
    instead: dict[str, Callable[..., Any]] = {name: _where_no_mask(look) for name, look in before.items()}
    if hasattr(masking_utils, "find_packed_sequence_indices"):
        before["find_packed_sequence_indices"] = masking_utils.find_packed_sequence_indices
        instead["find_packed_sequence_indices"] = lambda _position_ids: None
    try:
        for name, look in instead.items():
            setattr(masking_utils, name, look)
        yield
    finally:
        for name, look in before.items():
            setattr(masking_utils, name, look)


def _where_no_mask(look: Callable[..., bool]) -> Callable[..., bool]:
    def without_look(padding_mask: Tensor | None = None, *others: Any, **named: Any) -> bool:
        return padding_mask is None and look(padding_mask, *others, **named)

    return without_look
