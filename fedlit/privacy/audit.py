"""A lower bound on epsilon from one run with canaries (Steinke, Nasr, Jagielski 2023, "Privacy Auditing with One (1)
Training Run", arXiv 2305.08846).

Each of m canaries takes part by the toss of a fair coin of its own. After the run every canary has a score, larger
where it seems to have taken part. The auditor guesses "in" for the highest ones and "out" for the lowest, and abstains
from the others. A mechanism that is (epsilon, delta)-private when one canary is added or removed lets it be right only
so often.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fedlit.errors import UserError

SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Numbers of guesses that `best_bound` tries, as shares of the canaries: fixed before any score is seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """What an audit found.

    epsilon: the lower bound; 0 where nothing is shown. num_canaries, num_guesses, num_correct: those of the best
    number of guesses. delta, confidence: what the bound belongs to; the confidence holds for all tries together.
    """

    epsilon: float
    delta: float
    confidence: float
    num_canaries: int
    num_guesses: int
    num_correct: int


def p_value(num_canaries: int, num_guesses: int, num_correct: int, *, epsilon: float, delta: float) -> float:
    """Return the largest probability, over all (epsilon, delta)-private mechanisms, of so many correct guesses or more.

    Theorem 5.2: with f(v) = P[Binomial(num_guesses, e^epsilon / (1 + e^epsilon)) >= v] it is at most
    f(v) + 2 m delta * max over i = 1 .. v of (f(v - i) - f(v)) / i. Larger i add no more to the difference.

    Args:
        num_canaries: m, all that had a coin.
        num_guesses: how many of them were guessed, a number that was fixed before the scores were seen.
        num_correct: v, how many guesses were right.
        epsilon, delta: the claim.

    Raises:
        ValueError: the numbers are not 0 <= num_correct <= num_guesses <= num_canaries, or the claim is none.
    """
    from scipy import special  # noqa: PLC0415  only for an audit

    if not 0 <= num_correct <= num_guesses <= num_canaries:
        raise ValueError(f"{num_correct} of {num_guesses} guesses about {num_canaries} canaries")
    if not (epsilon >= 0 and 0 <= delta <= 1):
        raise ValueError(f"epsilon is {epsilon} and delta {delta}")
    accuracy = 1 / (1 + math.exp(-epsilon))
    if num_correct == 0:
        return 1.0
    probability = float(special.bdtrc(num_correct - 1, num_guesses, accuracy))
    if delta > 0:
        fewer = np.arange(num_correct - 1, -1, -1)
        # The binomial probabilities; accuracy / (1 - accuracy) is e^epsilon.
        logs = special.gammaln(num_guesses + 1) - special.gammaln(fewer + 1) - special.gammaln(num_guesses - fewer + 1)
        chances = np.exp(logs + fewer * epsilon + num_guesses * special.log_expit(-epsilon))
        probability += 2 * num_canaries * delta * float((np.cumsum(chances) / np.arange(1, num_correct + 1)).max())
    return min(1.0, probability)


def lower_bound(num_canaries: int, num_guesses: int, num_correct: int, delta: float, confidence: float = 0.95) -> float:
    """Return an epsilon that is too small for the mechanism, with this confidence; 0 where none is.

    By bisection to 1e-6. It need not suppose that the p-value grows with epsilon: what is not (epsilon, delta)-private
    is not so for any smaller epsilon either, so every epsilon with a small p-value is a lower bound.

    Args:
        num_canaries, num_guesses, num_correct: see `p_value`.
        delta: of the claim.
        confidence: the bound is wrong with probability 1 - confidence at most, over coins and noise.

    Raises:
        ValueError: see `p_value`; or the confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, which is not between 0 and 1")

    def is_refuted(epsilon: float) -> bool:
        found = p_value(num_canaries, num_guesses, num_correct, epsilon=epsilon, delta=delta)
        return found <= 1 - confidence

    if not is_refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while is_refuted(high):  # ends: accuracy rounds to 1 at 37, and then all guesses are right with probability 1
        low, high = high, 2 * high
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if is_refuted(middle) else (low, middle)
    return low


def count_correct(scores: ArrayLike, is_in: ArrayLike, *, num_in: int, num_out: int) -> int:
    """Return how many guesses are right: "in" for the `num_in` highest scores, "out" for the `num_out` lowest.

    Canaries with one score are ranked by their place, which knows nothing of their coins.

    Raises:
        ValueError: scores and coins are not one for one, or there are more guesses than canaries.
        UserError: a score is no number.
    """
    numbers, coins = np.asarray(scores, dtype=np.float64), np.asarray(is_in, dtype=np.bool_)
    if numbers.ndim != 1 or numbers.shape != coins.shape:
        raise ValueError(f"scores of shape {numbers.shape} and coins of shape {coins.shape}")
    if min(num_in, num_out) < 0 or num_in + num_out > numbers.size:
        raise ValueError(f"{num_in} + {num_out} guesses about {numbers.size} canaries")
    if np.isnan(numbers).any():
        raise UserError(
            f"the score of canary {int(np.isnan(numbers).argmax())} is NaN, so it cannot be ranked: audit a run whose "
            "losses are finite"
        )
    order = np.argsort(numbers, kind="stable")
    return int(coins[order[numbers.size - num_in :]].sum()) + int((~coins[order[:num_out]]).sum())


def best_bound(
    scores: ArrayLike,
    is_in: ArrayLike,
    delta: float,
    confidence: float = 0.95,
    shares: Sequence[float] = SHARES,
) -> Bound:
    """Return the largest lower bound over several numbers of guesses, half of them "in" and half "out".

    The best of k tries is right with the given confidence since each of them has confidence 1 - (1 - confidence) / k
    (Bonferroni). `shares` must be chosen before the scores are seen; those that give one number of guesses are one try.

    Args:
        scores: (m,) of the canaries; higher means more likely in.
        is_in: (m,) boolean, the coins.
        delta: of the claim.
        confidence: of the result.
        shares: of the canaries that are guessed, each above 0 and at most 1.

    Raises:
        ValueError, UserError: see `count_correct` and `lower_bound`.
    """
    num_canaries = np.asarray(scores).size
    if not all(0 < share <= 1 for share in shares) or not shares:
        raise ValueError(f"shares are {tuple(shares)}; each is above 0 and at most 1")
    if num_canaries < 2:
        raise UserError(f"an audit with {num_canaries} canaries shows nothing: give 2 or more")
    # Pairs: as many are guessed "in" as "out".
    pairs = sorted({max(1, int(share * num_canaries) // 2) for share in shares}, reverse=True)
    each = 1 - (1 - confidence) / len(pairs)
    found = []
    for num in pairs:
        num_correct = count_correct(scores, is_in, num_in=num, num_out=num)
        epsilon = lower_bound(num_canaries, 2 * num, num_correct, delta, each)
        found.append(
            Bound(
                epsilon=epsilon,
                delta=delta,
                confidence=confidence,
                num_canaries=num_canaries,
                num_guesses=2 * num,
                num_correct=num_correct,
            )
        )
    return max(found, key=lambda bound: bound.epsilon)
