"""The difference of two methods over the draws that both have: interval, test, and the correction for many tests.

A pair is one draw of the partition, on which both methods ran. The interval is the bias-corrected and accelerated
bootstrap (BCa) of B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987); beside it stands Student's, which
covers better where pairs are few. The test flips the signs of the differences (R. A. Fisher, "The Design of
Experiments", 1935): if neither method is better, either sign of each difference was as likely. S. Holm's step-down
method (Scandinavian Journal of Statistics 6, 1979) corrects for the number of tests. How well each keeps its word was
measured: experiments/statistics/README.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from fedlit.seeding import numpy_generator

Array = npt.NDArray[np.float64]

LEVEL = 0.95
"""Of all intervals; a test speaks where it can reach 1 - LEVEL."""

EXACT_PAIRS = 20
"""Up to here all 2^n patterns of signs are counted."""

MIN_BOOTSTRAP_PAIRS = 5
"""Fewer pairs have too few different resamples for an interval."""

NUM_RESAMPLES = 9_999
"""Of the bootstrap."""

NUM_FLIPS = 99_999
"""Patterns of signs that are drawn where not all are counted."""

ROUNDING = 1e-12
"""Differences below this part of the scores are rounding: 0.3 - 0.2 is not 0.1 in binary."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The paired difference `first - second` over draws, in the unit of the scores.

    num_pairs: draws that both have. mean: of the differences; None without a pair. std: their standard deviation, n - 1
    in the denominator; None below two pairs. low, high: the BCa interval of the mean; None below MIN_BOOTSTRAP_PAIRS.
    t_low, t_high: Student's interval; None below two pairs. p: of the two-sided sign-flip test of the mean; None below
    the number of pairs at which it can reach 1 - level. Where all differences are equal there is no interval. is_exact:
    all patterns of signs were counted; false for a Monte Carlo p-value, and without one. reason: in words why an
    interval or p is None; empty otherwise.
    """

    num_pairs: int
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    is_exact: bool
    reason: str
    std: float | None = None
    t_low: float | None = None
    t_high: float | None = None


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, level: float = LEVEL, seed: int = 0
) -> Difference:
    """Return the paired difference of two methods over draws, `first[i]` and `second[i]` of the same draw.

    Each entry is the mean over the seeds that both methods have on this draw. The result depends on the set of pairs
    and not on their order, and exchanging the methods changes signs and nothing else. seed: of the bootstrap, and of
    the Monte Carlo test above EXACT_PAIRS.

    Raises:
        ValueError: the lengths differ, a score is not finite, or the level is not between 0 and 1.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    _check(one, other, level)
    rounding = ROUNDING * float(np.max(np.abs([one, other]), initial=0.0))
    differences = np.sort(one - other)
    # The order of a sum changes its last bits, so everything is computed on one of the two mirror images.
    is_mirrored = tuple(-differences[::-1]) > tuple(differences)
    found = _difference(-differences[::-1] if is_mirrored else differences, rounding, level, seed)
    return _mirrored(found) if is_mirrored else found


def _check(one: Array, other: Array, level: float) -> None:
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"scores of the same draws have one length, not shapes {one.shape} and {other.shape}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("a score is not finite: leave its draw out on both sides")
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not between 0 and 1")


def _difference(differences: Array, rounding: float, level: float, seed: int) -> Difference:
    n = len(differences)
    varies = n > 1 and float(np.ptp(differences)) > rounding
    needed = min_pairs(1 - level)
    t = t_interval(differences, level=level) if varies else (None, None)
    bca = bca_interval(differences, level=level, seed=seed) if varies and n >= MIN_BOOTSTRAP_PAIRS else (None, None)
    return Difference(
        num_pairs=n,
        mean=float(np.mean(differences)) if n else None,
        low=None if bca[0] is None else float(bca[0]),
        high=None if bca[1] is None else float(bca[1]),
        p=float(sign_flip_p(differences, rounding=rounding, seed=seed)) if n >= needed else None,
        is_exact=needed <= n <= EXACT_PAIRS,
        reason=_reason(n, needed, varies=varies, alpha=1 - level),
        std=float(np.std(differences, ddof=1)) if n > 1 else None,
        t_low=None if t[0] is None else float(t[0]),
        t_high=None if t[1] is None else float(t[1]),
    )


def _reason(n: int, needed: int, *, varies: bool, alpha: float) -> str:
    """Return why an interval or the p-value is missing."""
    if n == 0:
        return "no pairs"
    count = f"{n} pair{'s' if n > 1 else ''}"
    missing = []
    if n > 1 and not varies:
        missing.append("all differences are equal, so there is no interval")
    elif n < MIN_BOOTSTRAP_PAIRS:
        missing.append(f"no bootstrap interval below {MIN_BOOTSTRAP_PAIRS}")
    if n < needed:
        missing.append(f"no two-sided test can reach {alpha:.3g} below {needed}")
    return f"{count}; {', '.join(missing)}" if missing else ""


def _mirrored(found: Difference) -> Difference:
    """Return the difference of the methods exchanged."""

    def minus(value: float | None) -> float | None:
        return None if value is None else 0.0 - value  # never -0.0

    return Difference(
        num_pairs=found.num_pairs,
        mean=minus(found.mean),
        low=minus(found.high),
        high=minus(found.low),
        p=found.p,
        is_exact=found.is_exact,
        reason=found.reason,
        std=found.std,
        t_low=minus(found.t_high),
        t_high=minus(found.t_low),
    )


def bca_interval(differences: Array, *, level: float = LEVEL, seed: int = 0) -> tuple[Any, Any]:
    """Return the ends of the BCa intervals of the means, for differences (..., pairs) that are not all equal."""
    found = stats.bootstrap(
        (differences,),
        np.mean,
        axis=-1,
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        batch=max(1, 10_000_000 // differences.size),  # of memory; the numbers are the same
        confidence_level=level,
        method="BCa",
        rng=numpy_generator(seed, "statistics/bootstrap"),
    ).confidence_interval
    return found.low, found.high


def t_interval(differences: Array, *, level: float = LEVEL) -> tuple[Any, Any]:
    """Return the ends of Student's intervals of the means, for differences (..., pairs)."""
    n = differences.shape[-1]
    half = special.stdtrit(n - 1, (1 + level) / 2) * np.std(differences, axis=-1, ddof=1) / np.sqrt(n)
    mean = np.mean(differences, axis=-1)
    return mean - half, mean + half


def min_pairs(alpha: float) -> int:
    """Return the fewest pairs with which a two-sided sign-flip test can reach `alpha`: 2 / 2^n <= alpha, 6 at 0.05."""
    n = 1
    while 2.0 ** (1 - n) > alpha * (1 + 1e-9):  # 1 - 0.95 is not 0.05 in binary
        n += 1
    return n


def sign_flip_p(differences: Array, *, rounding: float = 0.0, seed: int = 0) -> Any:
    """Return the two-sided p-values of the sign-flip test of the mean, for differences (..., pairs).

    The part of the patterns of signs whose mean is at least as far from zero as the one that was seen: of all patterns
    up to EXACT_PAIRS, else of NUM_FLIPS random ones and the one that was seen (B. Phipson and G. Smyth, "Permutation
    p-values should never be zero", 2010, arXiv 1603.05766). rounding: how far a difference may be off, so that
    equal means are equal.
    """
    n = differences.shape[-1]
    least = np.abs(differences.sum(axis=-1)) - n * rounding - 1e-14 * np.abs(differences).sum(axis=-1)
    if n <= EXACT_PAIRS:
        # A pattern and its opposite are equally far from zero: the first sign stays.
        sums = differences[..., :1]
        for i in range(1, n):
            step = differences[..., i, None]
            sums = np.concatenate([sums + step, sums - step], axis=-1)
        return np.mean(np.abs(sums) >= least[..., None], axis=-1)
    generator = numpy_generator(seed, "statistics/signs")
    count = np.ones(differences.shape[:-1])
    for size in [10_000] * (NUM_FLIPS // 10_000) + [NUM_FLIPS % 10_000]:
        signs = 2.0 * generator.integers(0, 2, size=(size, n)) - 1
        count += np.sum(np.abs(differences @ signs.T) >= least[..., None], axis=-1)
    return count / (NUM_FLIPS + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for being several, in the order given; None is no test and stays None."""
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        corrected[i] = highest
    return corrected
