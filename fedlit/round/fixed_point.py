"""A sum that no order can change: encode to 64-bit integers, add, one all-reduce, decode.

A value is written in units of 2**-44. Integer addition is associative, so neither the number of processes nor the order
in which clients finish changes a bit. Each value is rounded once, so the error of a sum of n is at most n * 2**-45
(float64's own rounding is larger above about 2**8). Integers are also what masks are added to (modulo 2**64), and
discrete noise.

Shapes: P scalars in all tensors together, in one flat buffer of P integers.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from fedlit.process import communication

FRACTION_BITS = 44
LARGEST = 2.0 ** (61 - FRACTION_BITS)
"""A value must stay below this (131,072), so that no weighted sum of differences leaves the 64 bits."""

Encoded = Iterable[tuple[str, Tensor]]
"""Names and flat int64 tensors, one after the other: nobody has to hold all of a model's integers twice."""


def encode(
    values: Mapping[str, Tensor], reference: Mapping[str, Tensor], weight: float
) -> Iterator[tuple[str, Tensor]]:
    """Yield weight * (value - reference) of every tensor as flat integers; computed in float64, rounded once.

    A value that equals its reference gives zeros: a tensor that nobody changed stays what it is to the last bit.
    """
    assert values.keys() == reference.keys(), f"names differ: {sorted(values.keys() ^ reference.keys())[:3]}"
    for name, start in reference.items():
        yield name, _in_units(values[name], start, weight)


@torch.no_grad()
def _in_units(value: Tensor, start: Tensor, weight: float) -> Tensor:
    # A copy also of a float64 tensor, which the in-place product would otherwise change under its client.
    change = value.reshape(-1).to(torch.float64, copy=True)
    # A power of two moves no bit: one pass over the tensor instead of two.
    return change.sub_(start.reshape(-1)).mul_(weight * 2.0**FRACTION_BITS).round_().long()


class FixedPointSum:
    """The running sum of encoded tensors, in one flat buffer.

    Args:
        like: names, shapes and device of what is added.
    """

    def __init__(self, like: Mapping[str, Tensor]) -> None:
        sizes = [tensor.numel() for tensor in like.values()]
        device = next(iter(like.values())).device if like else None
        self._buffer = torch.zeros(sum(sizes), dtype=torch.int64, device=device)
        self._parts = dict(zip(like, torch.split(self._buffer, sizes), strict=True)) if like else {}
        self._reduced = False

    def add(self, encoded: Encoded) -> None:
        """Add one client's integers."""
        assert not self._reduced, "the sum is closed"
        for name, integers in encoded:
            self._parts[name].add_(integers)
            del integers  # before the next is made, which then takes its memory

    def reduce(self) -> Mapping[str, Tensor]:
        """Return the sum over all processes by name, flat; one collective, made once."""
        if not self._reduced:
            communication.sum_in_place(self._buffer)
            self._reduced = True
        return self._parts


def decode(total: Tensor, reference: Tensor, share: float = 1.0) -> Tensor:
    """Return the reference moved by a sum of weighted changes, in the reference's shape and type.

    `share` is the sum of the weights, if it is not 1: of clients that were lost.
    """
    change = (total.double() * 2.0**-FRACTION_BITS).view(reference.shape)
    if share != 1.0:
        change = change / share
    return (reference.double() + change).to(reference.dtype)
