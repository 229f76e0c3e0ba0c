"""How many draws a claim needs, and what it is worth with those there are."""

from collections.abc import Sequence

MAX_DRAWS = 1000
"""`draws_needed` looks no further: MAX_DRAWS as an answer reads "1000 or more"."""


def flip_probability(differences: Sequence[float], num_draws: int) -> float | None:
    """Return the probability that the mean over `num_draws` new draws has the other sign than the mean of `differences`.

    Student's predictive distribution: differences are normal, and nothing is known of their mean m and variance beforehand.
    With n differences of mean x and standard deviation s, the mean over k new draws lies around x with
    s sqrt(1/k + 1/n) times Student's t of n - 1 degrees of freedom, so that

        P = T_{n-1}(-|x| / (s sqrt(1/k + 1/n))).

    It is 0.5 where the mean is zero, 0 where all differences are equal and not zero, None below two differences. An
    observed gap is on average larger than the true one where that is small: with no gap at all the probability is a
    half, and this says less (experiments/statistics/README.md has by how much).
    """
    raise NotImplementedError


def draws_needed(differences: Sequence[float], *, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return how many draws the two-sided paired test needs to find a gap as large as the observed one.

    The least n whose test at `alpha` finds a true gap of the mean of `differences`, with their standard deviation, with
    probability `power` (`test_power`). None where the gap is zero, and below two differences. At most MAX_DRAWS, which
    then means "or more". The gap is taken as it was observed: if it is larger than the true one by chance, more draws
    are needed than this says.
    """
    raise NotImplementedError


def detectable_difference(
    std_of_differences: float, num_draws: int, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Return the smallest true gap that the test over `num_draws` draws finds with probability `power`.

    std_of_differences: of the difference of two methods between draws, in the unit of the score, as the result is.
    Infinite where no two-sided test can reach `alpha` with so few draws (below 6 at 0.05).
    """
    raise NotImplementedError
