"""How many draws a claim needs, and what it is worth with those there are.

Differences of two methods are over draws of the partition, each the mean over its seeds, as in `paired`.
"""

import bisect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize, special

from fedlit.statistics.paired import ROUNDING, min_pairs

MAX_DRAWS = 1000
"""`draws_needed` looks no further: MAX_DRAWS as an answer reads "1000 or more"."""


def flip_probability(differences: Sequence[float], num_draws: int) -> float | None:
    """Return the probability that the mean over `num_draws` new draws has the other sign than that of `differences`.

    Student's predictive distribution: differences are normal, their mean and variance unknown and nothing presumed.
    With n differences of mean x and standard deviation s, the mean over k new draws lies around x with
    s sqrt(1/k + 1/n) times Student's t of n - 1 degrees of freedom, so that

        P = T_{n-1}(-|x| / (s sqrt(1/k + 1/n))).

    It is 0.5 where the mean is zero, 0 where all differences are equal and not zero, None below two differences. An
    observed gap is on average larger than the true one where that is small: with no gap at all the probability is a
    half, and this says less (experiments/statistics/README.md has by how much).
    """
    if num_draws < 1:
        raise ValueError(f"num_draws={num_draws}: a mean needs one draw or more")
    known = _mean_and_std(differences)
    if known is None:
        return None
    mean, std = known
    if mean == 0:
        return 0.5
    if std == 0:
        return 0.0
    n = len(differences)
    return float(special.stdtr(n - 1, -abs(mean) / (std * math.sqrt(1 / num_draws + 1 / n))))


def draws_needed(differences: Sequence[float], *, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return how many draws the two-sided paired test needs to find a gap as large as the observed one.

    The least n whose test at `alpha` finds a true gap of the mean of `differences`, with their standard deviation, with
    probability `power` (`power_of`). None where the gap is zero, and below two differences. At most MAX_DRAWS, which
    then means "or more". The gap is taken as it was observed: if it is larger than the true one by chance, more draws
    are needed than this says.
    """
    _check(power, alpha)
    known = _mean_and_std(differences)
    if known is None or known[0] == 0:
        return None
    mean, std = known
    fewest = min_pairs(alpha)
    if std == 0:
        return fewest
    candidates = range(fewest, MAX_DRAWS)  # power grows with the number of draws
    return fewest + bisect.bisect_left(
        candidates, power, key=lambda n: float(power_of(abs(mean) / std, n, alpha=alpha))
    )


def detectable_difference(
    std_of_differences: float, num_draws: int, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Return the smallest true gap that the test over `num_draws` draws finds with probability `power`.

    std_of_differences: of the difference of two methods between draws, in the unit of the score, as the result is.
    Infinite where no two-sided test can reach `alpha` with so few draws (below 6 at 0.05).
    """
    _check(power, alpha)
    if num_draws < min_pairs(alpha):
        return math.inf
    if std_of_differences == 0:
        return 0.0
    most = 1.0
    while power_of(most, num_draws, alpha=alpha) < power:
        most *= 2
    effect = optimize.brentq(lambda effect: float(power_of(effect, num_draws, alpha=alpha)) - power, 0.0, most)
    return std_of_differences * float(effect)


def power_of(effect: float, num_draws: Any, *, alpha: float = 0.05) -> Any:
    """Return the power of the two-sided paired test over `num_draws` draws (a number or an array of them).

    effect: the true mean difference over its standard deviation between draws; differences are normal. Student's test
    by the noncentral t, at the level that the sign-flip test has: with n pairs its p-values are multiples of 2 / 2^n,
    so that at 0.05 it has 0.031 with 6 pairs, 0.047 with 7. Where only equal signs of all pairs are rejected (6 at
    0.05), the power is the probability of these. 0 where it can never reject.
    """
    n = np.asarray(num_draws, dtype=np.float64)
    steps = 2.0 ** np.minimum(n - 1, 50)
    num_patterns = np.floor(alpha * steps * (1 + 1e-9))
    df = np.maximum(n - 1, 1)
    critical = special.stdtrit(df, 1 - np.where(num_patterns > 0, num_patterns / steps, alpha) / 2)
    center = effect * np.sqrt(n)
    # scipy gives nan where a probability is too small for it, below 1e-16.
    below, far_below = (np.nan_to_num(special.nctdtr(df, center, end)) for end in (critical, -critical))
    equal_signs = special.ndtr(effect) ** n + special.ndtr(-effect) ** n
    return np.where(num_patterns > 1, 1 - below + far_below, np.where(num_patterns == 1, equal_signs, 0.0))


def _check(power: float, alpha: float) -> None:
    if not (0 < alpha < 1 and alpha < power < 1):
        raise ValueError(f"alpha={alpha}, power={power}: between 0 and 1, the power above alpha")


def _mean_and_std(differences: Sequence[float]) -> tuple[float, float] | None:
    """Return mean and standard deviation, both 0 where they are rounding; None below two differences."""
    values = np.sort(np.asarray(differences, dtype=np.float64))
    if not np.isfinite(values).all():
        raise ValueError("a difference is not finite: leave its draw out")
    if len(values) < 2:
        return None
    rounding = ROUNDING * float(np.max(np.abs(values)))
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
    return (mean if abs(mean) > rounding else 0.0), (std if std > rounding else 0.0)
