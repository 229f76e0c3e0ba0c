"""Paired timing: variants of one piece of work, interleaved in random order.

On a shared machine two timings taken minutes apart differ by more than the effect looked for. Here every pair is taken
side by side and the median of the pairs' ratios is reported, next to a null control: one variant against itself.
"""

import math
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

NULL_TOLERANCE = 0.01

PINNED = {
    # By default glibc gives large temporaries back to the kernel: a step then takes thousands of page faults, in a
    # number that differs between two copies of the same model, and the effect is larger than the one looked for.
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
    # CPU time counts what a second thread spends waiting for the first.
    "OMP_NUM_THREADS": "1",
}


def pin() -> None:
    """Start this command anew with PINNED in its environment, which libraries read at their start, unless it is."""
    if any(os.environ.get(name) != value for name, value in PINNED.items()):
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **PINNED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Elapsed:
    """Time of one block: of the process on the CPU, which other processes hardly change, and on the clock."""

    cpu_s: float
    wall_s: float


class Stopwatch:
    """Measures from its making to `elapsed`."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def elapsed(self) -> Elapsed:
        """Return the time since the stopwatch was made."""
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        return Elapsed(cpu_s=cpu_s - self._cpu_s, wall_s=wall_s - self._wall_s)


def interleave(variants: Mapping[str, Callable[[], Elapsed]], num_pairs: int, seed: int) -> dict[str, list[Elapsed]]:
    """Return `num_pairs` timings of every variant; each turn takes all of them once, in random order."""
    order = random.Random(seed)
    names = list(variants)
    timings: dict[str, list[Elapsed]] = {name: [] for name in names}
    for _ in range(num_pairs):
        for name in order.sample(names, len(names)):
            timings[name].append(variants[name]())
    return timings


def median(values: Sequence[float]) -> float:
    """Return the median."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def median_interval(values: Sequence[float], coverage: float = 0.95) -> tuple[float, float] | None:
    """Return the narrowest symmetric order-statistics interval that covers the median with at least `coverage`.

    It supposes independent values and nothing of their distribution: as many of n values lie below the median as n
    coins show heads. None where even the whole range covers too little (fewer than 6 values for 0.95).
    """
    num = len(values)
    outside, narrowest = 0.0, None
    for rank in range(num // 2):
        outside += 2 * math.comb(num, rank) / 2**num  # integers: 0.5**num underflows beyond a thousand values
        if outside > 1 - coverage:
            break
        narrowest = rank
    if narrowest is None:
        return None
    ordered = sorted(values)
    return ordered[narrowest], ordered[num - 1 - narrowest]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """Median over the pairs of baseline time / variant time: the variant's throughput over the baseline's."""

    median: float
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, baseline_s: Sequence[float], variant_s: Sequence[float]) -> "Ratio":
        """Return the ratio of paired times."""
        ratios = [mine / other for mine, other in zip(baseline_s, variant_s, strict=True)]
        return cls(median=median(ratios), interval=median_interval(ratios))

    def __str__(self) -> str:
        bounds = "too few pairs" if self.interval is None else "{:.3f}-{:.3f}".format(*self.interval)
        return f"{self.median:.3f} ({bounds})"


def verdict(null: Ratio, ratio: Ratio, target: float) -> str:
    """Return what the ratio says about `target`; a null control that is off makes the measurement worthless."""
    if abs(null.median - 1) > NULL_TOLERANCE:
        return f"invalid: null control off by more than {NULL_TOLERANCE}"
    return f"{'met' if ratio.median >= target else 'not met'}: >= {target} of the bare loop"
