"""The audit from one run: the p-value by hand, bounds that hold as often as they claim to, and faults that it finds."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from fedlit.errors import UserError
from fedlit.privacy.audit import SHARES, Bound, best_bound, count_correct, lower_bound, p_value


def gaussian_epsilon(noise: float, delta: float) -> float:
    """Return the exact epsilon of one Gaussian release of sensitivity 1 (Balle and Wang 2018, arXiv 1805.06530)."""

    def excess(epsilon: float) -> float:
        first = stats.norm.cdf(0.5 / noise - epsilon * noise)
        return float(first - math.exp(epsilon) * stats.norm.cdf(-0.5 / noise - epsilon * noise) - delta)

    return float(optimize.brentq(excess, 0, 200))


def gaussian_canaries(num: int, noise: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores and coins of canaries of norm 1, each in a direction of its own, under a sum with this noise."""
    draw = np.random.default_rng(seed)
    coins = draw.random(num) < 0.5
    return coins + noise * draw.normal(size=num), coins


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("guesses", [1, 5, 40])
def test_all_right_is_a_power_of_the_accuracy(epsilon: float, guesses: int) -> None:
    accuracy = math.exp(epsilon) / (1 + math.exp(epsilon))
    assert p_value(50, guesses, guesses, epsilon=epsilon, delta=0) == pytest.approx(accuracy**guesses, rel=1e-12)


def test_three_of_four_right_by_hand() -> None:
    # epsilon = log 3: each guess is right with probability 3/4, and f = 256, 255, 243, 189, 81 of 256 for v = 0 .. 4.
    assert p_value(4, 4, 3, epsilon=math.log(3), delta=0) == pytest.approx(189 / 256)
    # i = 1: 243 - 189 = 54; i = 2: (255 - 189) / 2 = 33; i = 3: (256 - 189) / 3 = 22.3.
    assert p_value(10, 4, 3, epsilon=math.log(3), delta=0.01) == pytest.approx(189 / 256 + 2 * 10 * 0.01 * 54 / 256)
    assert p_value(10, 4, 0, epsilon=1, delta=0.01) == 1


@pytest.mark.parametrize("correct", [1, 10, 19, 30])
def test_the_term_of_delta_is_the_paper_s_maximum(correct: int) -> None:
    canaries, guesses, epsilon, delta = 60, 30, 0.4, 1e-4
    accuracy = math.exp(epsilon) / (1 + math.exp(epsilon))
    chances = [math.comb(guesses, k) * accuracy**k * (1 - accuracy) ** (guesses - k) for k in range(guesses + 1)]

    def at_least(v: int) -> float:
        return sum(chances[max(0, v) :])

    term = max((at_least(correct - i) - at_least(correct)) / i for i in range(1, canaries + 1))
    expected = min(1.0, at_least(correct) + 2 * canaries * delta * term)
    assert p_value(canaries, guesses, correct, epsilon=epsilon, delta=delta) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("delta", [1e-3, 0.05])
def test_no_private_mechanism_is_right_more_often(delta: float) -> None:
    """Two that are (epsilon, delta)-private: each canary is told with probability delta, or all are told at once."""
    num, epsilon = 20, 0.7
    accuracy = 1 / (1 + math.exp(-epsilon))
    for correct in range(num + 1):
        bound = p_value(num, num, correct, epsilon=epsilon, delta=delta)
        assert stats.binom.sf(correct - 1, num, delta + (1 - delta) * accuracy) <= bound
        assert delta + (1 - delta) * stats.binom.sf(correct - 1, num, accuracy) <= bound


def test_the_bound_is_where_the_p_value_crosses() -> None:
    bound = lower_bound(500, 100, 90, 1e-5, 0.9)
    assert 1 < bound < math.log(9)
    assert p_value(500, 100, 90, epsilon=bound, delta=1e-5) <= 0.1
    assert p_value(500, 100, 90, epsilon=bound + 2e-6, delta=1e-5) > 0.1
    # All of r right: accuracy^r = 0.05, from which epsilon = log(a / (1 - a)).
    accuracy = 0.05 ** (1 / 100)
    assert lower_bound(100, 100, 100, 0) == pytest.approx(math.log(accuracy / (1 - accuracy)), abs=2e-6)


@pytest.mark.parametrize(("guesses", "correct", "delta"), [(0, 0, 0.0), (100, 50, 0.0), (100, 10, 0.0), (9, 9, 0.5)])
def test_nothing_shown_is_zero(guesses: int, correct: int, delta: float) -> None:
    assert lower_bound(100, guesses, correct, delta) == 0


def test_the_bound_holds_as_often_as_it_says_where_it_is_tight() -> None:
    """Randomised response attains the theorem's bound for delta = 0, so more than a few failures more, or many less,
    would be a wrong confidence.
    """
    draw, epsilon, num, turns = np.random.default_rng(0), 1.0, 1000, 2000
    rights = draw.binomial(num, 1 / (1 + math.exp(-epsilon)), size=turns)
    bounds = {right: lower_bound(num, num, int(right), 0) for right in set(rights.tolist())}
    wrong = np.mean([bounds[right] > epsilon for right in rights.tolist()])
    assert 0.03 < wrong < 0.05 + 2 * math.sqrt(0.05 * 0.95 / turns)


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0])
def test_a_true_claim_survives(noise: float) -> None:
    claimed = gaussian_epsilon(noise, 1e-5)
    bounds = [best_bound(*gaussian_canaries(300, noise, seed), 1e-5).epsilon for seed in range(300)]
    assert np.mean(np.array(bounds) <= claimed) >= 0.95


def test_without_noise_the_bound_is_far_above_zero() -> None:
    bound = best_bound(*gaussian_canaries(1000, 0.0, 0), 1e-5)
    assert bound.epsilon > 4
    # Coins fall unevenly, so not all of 1,000 guesses can be right.
    assert (bound.num_guesses, bound.num_correct, bound.num_canaries) == (500, 500, 1000)
    # It grows with the number of canaries, as nothing else limits it.
    assert best_bound(*gaussian_canaries(100, 0.0, 0), 1e-5).epsilon < bound.epsilon - 1.5


@pytest.mark.parametrize("noise", [0.5, 0.0])
def test_less_noise_than_claimed_is_found(noise: float) -> None:
    """Claimed for noise 4: an eighth of it, and none."""
    claimed = gaussian_epsilon(4.0, 1e-6)
    assert all(best_bound(*gaussian_canaries(1000, noise, seed), 1e-6).epsilon > claimed for seed in range(20))


def test_half_the_noise_needs_many_canaries_to_be_found() -> None:
    claimed = gaussian_epsilon(4.0, 1e-6)
    many = [best_bound(*gaussian_canaries(100_000, 2.0, seed), 1e-6, shares=(0.05, 0.02)).epsilon for seed in range(5)]
    few = [best_bound(*gaussian_canaries(1000, 2.0, seed), 1e-6).epsilon for seed in range(5)]
    assert min(many) > claimed > max(few)


@pytest.mark.parametrize("num", [100, 2000])
def test_scores_that_know_nothing_show_nothing(num: int) -> None:
    """In 95 of 100 audits at least, though the best of seven numbers of guesses is taken each time."""
    draw = np.random.default_rng(1)
    found = [best_bound(draw.normal(size=num), draw.random(num) < 0.5, 1e-5).epsilon for _ in range(400)]
    assert np.mean(np.array(found) > 0) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_the_best_of_several_pays_for_them() -> None:
    coins = np.arange(1000) % 2 == 0
    scores = coins.astype(np.float64)
    once = best_bound(scores, coins, 0, shares=(1.0,))
    assert once.epsilon == lower_bound(1000, 1000, 1000, 0)
    assert best_bound(scores, coins, 0).epsilon == lower_bound(1000, 1000, 1000, 0, 1 - 0.05 / len(SHARES))
    # Ten canaries know five numbers of pairs at most: 5, 2 and 1 of these shares.
    tried_thrice = best_bound(scores[:10], coins[:10], 0)
    assert tried_thrice == Bound(
        epsilon=lower_bound(10, 10, 10, 0, 1 - 0.05 / 3),
        delta=0,
        confidence=0.95,
        num_canaries=10,
        num_guesses=10,
        num_correct=10,
    )


def test_guesses_are_the_ends_of_the_ranking() -> None:
    scores, coins = [5.0, -1.0, 3.0, 0.0, 9.0], [True, True, False, False, False]
    assert count_correct(scores, coins, num_in=1, num_out=0) == 0
    assert count_correct(scores, coins, num_in=2, num_out=0) == 1
    assert count_correct(scores, coins, num_in=2, num_out=2) == 2
    assert count_correct([-math.inf, math.inf], [False, True], num_in=1, num_out=1) == 2


def test_equal_scores_are_ranked_by_place() -> None:
    coins = [True, False, True, True]
    assert count_correct([0.0] * 4, coins, num_in=2, num_out=2) == 3
    assert count_correct([0.0] * 4, coins[::-1], num_in=2, num_out=2) == 1


def test_what_cannot_be_audited_is_refused() -> None:
    with pytest.raises(UserError, match="score of canary 1 is NaN"):
        best_bound([0.0, math.nan, 1.0], [True, False, True], 1e-5)
    with pytest.raises(UserError, match="1 canaries shows nothing"):
        best_bound([0.0], [True], 1e-5)
    with pytest.raises(ValueError, match="shape"):
        best_bound([0.0, 1.0], [True], 1e-5)
    with pytest.raises(ValueError, match="shares"):
        best_bound([0.0, 1.0], [True, False], 1e-5, shares=(0.0,))
    with pytest.raises(ValueError, match="guesses about 2"):
        count_correct([0.0, 1.0], [True, False], num_in=2, num_out=1)
    with pytest.raises(ValueError, match="4 of 3 guesses"):
        p_value(5, 3, 4, epsilon=1, delta=0)
    with pytest.raises(ValueError, match="epsilon is -1"):
        p_value(5, 3, 2, epsilon=-1, delta=0)
    with pytest.raises(ValueError, match="confidence is 1"):
        lower_bound(5, 3, 2, 0, 1.0)
