"""Attention masks that transformers need not look at: what it would read from the device is known on the CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import masking_utils

from fedlit.models.packing import nothing_packed

_LOOKS = ("_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa")


@contextmanager
def masks_as_given() -> Iterator[None]:
    """Keep transformers (5.0 to 5.23) from reading from the device, in every forward pass with a mask, whether the mask
    could be left out, as one of ones can; the caller leaves out such. Without a mask it does not look either.
    """
    before = {name: getattr(masking_utils, name) for name in _LOOKS if hasattr(masking_utils, name)}
    try:
        for name, look in before.items():
            setattr(masking_utils, name, _where_no_mask(look))
        with nothing_packed():
            yield
    finally:
        for name, look in before.items():
            setattr(masking_utils, name, look)


def _where_no_mask(look: Callable[..., bool]) -> Callable[..., bool]:
    def without_look(padding_mask: Tensor | None = None, *others: Any, **named: Any) -> bool:
        return padding_mask is None and look(padding_mask, *others, **named)

    return without_look
