"""A sum that no order can change: encode to 64-bit integers, add, one all-reduce, decode.

A value is written in units of 2**-44. Integer addition is associative, so neither the number of processes nor the order
in which clients finish changes a bit. Each value is rounded once, so the error of a sum of n is at most n * 2**-45
(float64's own rounding is larger above about 2**8). Integers are also what masks are added to (modulo 2**64), and
discrete noise.

Shapes: P scalars in all tensors together, in one flat buffer of P integers, in the order of the server's tensors. All
passes go piece by piece, so that what one operation wrote is still in the cache when the next one reads it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from fedlit.algebra.pieces import in_double, joined, num_scalars, pieces, write
from fedlit.algebra.tensors import TensorDict
from fedlit.process import communication

FRACTION_BITS = 44
LARGEST = 2.0 ** (61 - FRACTION_BITS)
"""A value must stay below this (131,072), so that no weighted sum of differences leaves the 64 bits."""

Encoded = Iterable[Tensor]
"""The P integers, flat, in consecutive pieces: nobody has to hold all of a model's integers twice."""


def encode(values: Mapping[str, Tensor], reference: Mapping[str, Tensor], weight: float | Tensor) -> Iterator[Tensor]:
    """Yield weight * (value - reference) of all tensors as flat int64 pieces, in the reference's order; computed in
    float64, rounded once. The weight may be a float64 scalar where the tensors are.

    A value that equals its reference gives zeros: a tensor that nobody changed stays what it is to the last bit.
    """
    assert values.keys() == reference.keys(), f"names differ: {sorted(values.keys() ^ reference.keys())[:3]}"
    # A power of two moves no bit: one pass instead of two.
    unit = weight * 2.0**FRACTION_BITS
    for ends, starts in pieces((values[name] for name in reference), reference.values()):
        yield in_double(ends).sub_(joined(starts)).mul_(unit).round_().long()


class FixedPointSum:
    """The running sum of encoded clients, in one flat buffer.

    Args:
        like: sizes and device of what is added.
        num_beside: integers that stand after them.

    Attributes:
        num: integers in the sum.
    """

    def __init__(self, like: Mapping[str, Tensor], num_beside: int = 0) -> None:
        device = next(iter(like.values())).device if like else None
        num = sum(tensor.numel() for tensor in like.values()) + num_beside
        self._buffer = torch.zeros(num, dtype=torch.int64, device=device)
        self.num = num
        self._reduced = False

    def add(self, encoded: Encoded) -> None:
        """Add one client's integers, all of them."""
        assert not self._reduced, "the sum is closed"
        start = 0
        for integers in encoded:
            self._buffer[start : start + len(integers)] += integers
            start += len(integers)
        assert start == len(self._buffer), f"{start} integers for {len(self._buffer)}"

    def reduce(self, before: Callable[[Tensor], None] | None = None) -> Tensor:
        """Return the sum over all processes, flat; one collective, made once.

        `before` adds to this process's part in place: noise, or what takes masks off.
        """
        if not self._reduced:
            if before is not None:
                before(self._buffer)
            communication.sum_in_place(self._buffer)
            self._reduced = True
        return self._buffer


def decode(total: Tensor, reference: Mapping[str, Tensor], share: float = 1.0) -> TensorDict:
    """Return the reference moved by a sum of weighted changes, in its tensors' shapes and types.

    `share` is the sum of the weights, if it is not 1: of clients that were lost.
    """
    moved = {
        name: torch.empty_like(tensor, memory_format=torch.contiguous_format, requires_grad=False)
        for name, tensor in reference.items()
    }
    start = 0
    for starts, ends in pieces(reference.values(), moved.values()):
        num = num_scalars(starts)
        change = total[start : start + num].double().mul_(2.0**-FRACTION_BITS)
        if share != 1.0:
            change.div_(share)
        write(change.add_(joined(starts)), ends)
        start += num
    return moved
