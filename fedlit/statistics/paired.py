"""The difference of two methods over the draws that both have: its interval, its test, and the correction for many tests.

A pair is one draw of the partition, on which both methods ran. The interval is the bias-corrected and accelerated
bootstrap (BCa) of B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987); beside it stands Student's, which
covers better where pairs are few. The test flips the signs of the differences (R. A. Fisher, "The Design of
Experiments", 1935): if neither method is better, either sign of a difference was as likely. S. Holm's step-down method
(Scandinavian Journal of Statistics 6, 1979) corrects for the number of tests. How well each keeps its word was measured:
experiments/statistics/README.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95
"""Of all intervals; a test speaks where it can reach 1 - LEVEL."""

EXACT_PAIRS = 20
"""Up to here all 2^n patterns of signs are counted."""

MIN_BOOTSTRAP_PAIRS = 5
"""Fewer pairs have too few different resamples for an interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The paired difference `first - second` over draws, in the unit of the scores.

    num_pairs: draws that both have. mean: of the differences; None without a pair. std: their standard deviation, n - 1
    in the denominator; None below two pairs. low, high: the BCa interval of the mean; None below MIN_BOOTSTRAP_PAIRS.
    t_low, t_high: Student's interval; None below two pairs. p: of the two-sided sign-flip test of the mean; None below
    the number of pairs at which it can reach 1 - level. is_exact: all patterns of signs were counted; false for a
    Monte Carlo p-value, and without one. reason: in words why something is None, or worth nothing; empty otherwise.
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


def min_pairs(alpha: float) -> int:
    """Return the fewest pairs with which a two-sided sign-flip test can reach `alpha`: the least n with 2 / 2^n <= alpha.

    Six at 0.05.
    """
    raise NotImplementedError


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, level: float = LEVEL, seed: int = 0
) -> Difference:
    """Return the paired difference of two methods over draws, `first[i]` and `second[i]` of the same draw.

    Each entry is the mean over the seeds that both methods have on this draw. The result depends on the set of pairs
    and not on their order, and exchanging the methods changes signs and nothing else. seed: of the bootstrap, and of
    the Monte Carlo test above EXACT_PAIRS.

    Raises:
        ValueError: the lengths differ, or a score is not finite.
    """
    raise NotImplementedError


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for being several, in the order given; None is no test and stays None."""
    raise NotImplementedError
