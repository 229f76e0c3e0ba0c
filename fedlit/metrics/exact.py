"""Means with an integer state, because a sum of floats depends on how the examples were dealt to the processes.

Each value is rounded once to fixed point with 32 fraction bits, an error of at most 2**-33 (1.2e-10) per value; all
that follows is integer arithmetic, hence associative. The sum is kept as two words of 32 bits, each in an int64 of its
own, so it cannot overflow before 2**31 values, on however many processes.
"""

import math

import torch
from torch import Tensor
from torchmetrics import Metric

from fedlit.errors import DivergenceError
from fedlit.metrics.noting import Notes

FRACTION_BITS = 32
VALUE_LIMIT = 2**31
_WORD_BITS = 32


def to_fixed_point(values: Tensor) -> Tensor:
    """Return round(values * 2**32), ties to even, as int64 (n,) on the CPU; `values` has any shape with n elements.

    Raises DivergenceError for the first value that is not finite or not below 2**31 in magnitude.
    """
    scaled = values.detach().reshape(-1).cpu().double() * 2.0**FRACTION_BITS
    fits = scaled.abs() < float(VALUE_LIMIT << FRACTION_BITS)  # false for nan too
    if not bool(fits.all()):
        position = int((~fits).nonzero()[0])
        value = float(values.detach().reshape(-1)[position])
        what = f"the value at position {position}"
        if not math.isfinite(value):
            raise DivergenceError(what=what, value=value)
        raise DivergenceError(what=what, value=abs(value), limit=float(VALUE_LIMIT))
    return scaled.round().to(torch.int64)


class ExactMean(Metric):
    """sum of values / sum of counts; the base of every mean in this package.

    The state is one int64 tensor (3,): the upper words of the sum, its lower words, the sum of the counts. torchmetrics
    gathers it at `compute()`; a process may have had any number of values, also none.

    notes: takes the values, rounded, and where they are `weighted` the counts, if each is of one example.
    """

    state: Tensor
    notes: Notes | None = None
    weighted = False
    full_state_update = False
    is_differentiable = False

    def __init__(self) -> None:
        # A cached result would keep a process without new values out of the collective that the others wait in.
        super().__init__(compute_with_cache=False)
        self.add_state("state", default=torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")

    def _accumulate(self, values: Tensor, counts: Tensor) -> None:
        """Add n values of the numerator and n integer counts of the denominator, both on any device."""
        fixed = to_fixed_point(values)
        if counts.is_floating_point() or counts.is_complex():
            raise ValueError(f"counts are {counts.dtype}: give integers")
        counts = counts.detach().reshape(-1).cpu().long()
        if fixed.shape != counts.shape:
            raise ValueError(f"{len(fixed)} values but {len(counts)} counts: give one count for each value")
        outside = (counts < 0) | (counts >= VALUE_LIMIT)
        if bool(outside.any()):
            raise ValueError(f"count {int(counts[outside][0])} is outside 0..{VALUE_LIMIT - 1}")
        upper = fixed >> _WORD_BITS  # rounds down, also for negative values, so the lower word is never negative
        lower = fixed & ((1 << _WORD_BITS) - 1)
        added = torch.stack([upper.sum(), lower.sum(), counts.sum()])
        self.state = self.state + added.to(self.state.device)
        if self.notes is not None:
            # As they were added, so that their sum is the state's: a double holds what a double was rounded to.
            self.notes.add("_sum" if self.weighted else "", (fixed.double() / 2.0**FRACTION_BITS).tolist())
            if self.weighted:
                self.notes.add("_count", counts.tolist())

    def compute(self) -> Tensor:
        """Return the mean over all processes, a float64 scalar rounded once from the integers; nan without counts."""
        upper, lower, count = self.state.tolist()
        mean = ((upper << _WORD_BITS) + lower) / (count << FRACTION_BITS) if count else float("nan")
        return torch.tensor(mean, dtype=torch.float64, device=self.state.device)


class FixedPointMean(ExactMean):
    """Weighted mean of quantities known as sums, such as the loss per token from the summed losses of examples."""

    weighted = True

    def update(self, sums: Tensor, counts: Tensor) -> None:
        """Add examples: `sums` (n,) of any float type (nats, say), `counts` (n,) of an integer type (tokens, say).

        Raises DivergenceError for a sum that is not finite or not below 2**31 in magnitude, ValueError for a negative
        or non-integer count and for sizes that differ.
        """
        self._accumulate(sums, counts)
