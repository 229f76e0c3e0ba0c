"""Seconds of cells that have not run, from those that have: scaled by the work, with a range.

The time of a pass lies between two limits. Where arithmetic decides, it goes with the floating point operations; where
the model is so small that calling its operations decides, with their number. Both ratios make the range, their
geometric mean the estimate. What is neither training nor evaluation goes with the number of rounds, or stays.
"""

import heapq
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from fedlit.budget.measured import Times
from fedlit.budget.passes import Cost
from fedlit.budget.work import Work, share

ASSUMED_SPREAD = 1.3
"""How far a run may be from another one of its kind, as a factor, where no two of one kind were measured."""
LEAST_SPREAD = 1.05
FAR = 10.0
"""Work that is so many times another's is foretold from afar."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seconds:
    """An estimate and its range."""

    estimate: float
    low: float
    high: float

    def times(self, factor: float) -> "Seconds":
        """Return it a number of times."""
        return Seconds(estimate=factor * self.estimate, low=factor * self.low, high=factor * self.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A finished run: what it computed, how long it took. kind: place of its kind in the sweep; None of another run."""

    work: Work
    times: Times
    kind: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """How long a cell of one kind takes. own: runs of this kind that it is from; else it is `scaled` from others.

    far: its work is more than FAR times that of what it is scaled from, or less than the like part of it.
    """

    seconds: Seconds
    own: int
    scaled: int
    far: bool


def spread_of(measured: Sequence[Measured]) -> float | None:
    """Return how far a run is from the mean of its kind at the most, as a factor; None without two of one kind."""
    by_kind: dict[int, list[float]] = {}
    for each in measured:
        if each.kind is not None:
            by_kind.setdefault(each.kind, []).append(each.times.total_s)
    found = [
        max(max(totals) / statistics.fmean(totals), statistics.fmean(totals) / min(totals))
        for totals in by_kind.values()
        if len(totals) > 1 and min(totals) > 0
    ]
    return max([LEAST_SPREAD, *found]) if found else None


def forecast(
    kind: int, work: Work, measured: Sequence[Measured], *, num_processes: int, start_s: float | None
) -> Forecast:
    """Return how long a cell takes on so many processes, from the measured runs of its kind or, without one, from those
    whose work is nearest.
    """
    own = [each for each in measured if each.kind == kind]
    distances = [abs(math.log(max(work.flops, 1.0) / max(each.work.flops, 1.0))) for each in measured]
    nearest = [each for each, distance in zip(measured, distances, strict=True) if distance <= min(distances) + 1e-9]
    basis = own or nearest
    spread = spread_of(measured) or ASSUMED_SPREAD
    all_seconds = [_scaled(work, each, num_processes, start_s or 0.0) for each in basis]
    middle = statistics.fmean(each.estimate for each in all_seconds)
    return Forecast(
        seconds=Seconds(
            estimate=middle,
            low=statistics.fmean(each.low for each in all_seconds) / spread,
            high=statistics.fmean(each.high for each in all_seconds) * spread,
        ),
        own=len(own),
        scaled=0 if own else len(basis),
        far=not own and min(distances) > math.log(FAR),
    )


def makespan(seconds: Sequence[float], jobs: int) -> float:
    """Return when the last of some runs ends, so many at a time, each begun in its order as soon as there is room."""
    ends = [0.0] * max(min(jobs, len(seconds)), 1)
    for length in seconds:
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def _scaled(work: Work, measured: Measured, num_processes: int, start_s: float) -> Seconds:
    times, other = measured.times, measured.work
    train = _ratios(work.train, other.train)
    evaluate = _ratios(work.evaluate, other.evaluate)
    of_train = share(work.train_units, num_processes) / share(other.train_units, times.num_processes)
    of_evaluate = share(work.evaluate_units, num_processes) / share(other.evaluate_units, times.num_processes)
    rounds = work.num_rounds / max(times.num_rounds, 1)
    fixed = times.between_s * rounds + (times.outside_s or 0.0) + start_s

    def total(pick: int) -> float:
        return times.train_s * train[pick] * of_train + times.evaluate_s * evaluate[pick] * of_evaluate + fixed

    return Seconds(low=total(0), estimate=total(1), high=total(2))


def _ratios(work: Cost, other: Cost) -> tuple[float, float, float]:
    """Return the lower ratio, the geometric mean and the higher one of two amounts of work."""
    if not other.flops or not other.operations:
        return (1.0, 1.0, 1.0)
    flops, operations = work.flops / other.flops, work.operations / other.operations
    return min(flops, operations), math.sqrt(flops * operations), max(flops, operations)
