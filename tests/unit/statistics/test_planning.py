"""Planning: known sample sizes, a flip by simulation of what it presumes, and the ends of the range."""

import math

import numpy as np
import pytest
from scipy import stats

from fedlit.statistics.paired import sign_flip_p
from fedlit.statistics.planning import (
    MAX_DRAWS,
    detectable_difference,
    draws_needed,
    flip_probability,
    power_of,
)


def with_effect(effect: float, n: int = 10) -> list[float]:
    """Return n differences of mean `effect` and standard deviation 1."""
    values = np.random.default_rng(n).normal(size=n)
    return ((values - values.mean()) / values.std(ddof=1) + effect).tolist()


@pytest.mark.parametrize(("effect", "known"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_small_medium_and_large_effects_need_what_tables_say(effect: float, known: int) -> None:
    """The paired t test's sample sizes at power 0.8 for Cohen's d_z, as in any table of them."""
    assert draws_needed(with_effect(effect)) == known
    assert draws_needed([-d for d in with_effect(effect)]) == known


def test_power_is_that_of_a_simulated_test() -> None:
    generator = np.random.default_rng(0)
    for effect, n, level in ((0.8, 7, 3 / 64), (0.5, 12, 102 / 2048), (-0.5, 12, 102 / 2048)):
        tables = generator.normal(size=(40_000, n)) + effect
        seen = np.mean(stats.ttest_1samp(tables, 0, axis=1).pvalue <= level)
        assert power_of(effect, n) == pytest.approx(seen, abs=0.01)
    tables = generator.normal(size=(40_000, 6)) + 1.2
    assert power_of(1.2, 6) == pytest.approx(np.mean(sign_flip_p(tables) <= 0.05), abs=0.01)


def test_power_grows_with_draws_and_is_a_probability() -> None:
    numbers = np.arange(1, 1001)
    for effect in (0.0, 0.05, 1.0, 40.0):
        powers = power_of(effect, numbers)
        assert np.all((powers >= 0) & (powers <= 1)) and np.all(np.diff(powers) > -1e-9)
        assert np.all(powers[:5] == 0), "five pairs never reach 0.05"
    assert power_of(0.0, 500) == pytest.approx(0.05, abs=1e-6)


def test_the_ends_of_what_is_needed() -> None:
    assert draws_needed([0.1, -0.1]) is None, "no gap"
    assert draws_needed([0.3]) is None and draws_needed([]) is None
    assert draws_needed([0.2, 0.2, 0.2]) == 6, "no test below"
    assert draws_needed([0.2, 0.2, 0.2], alpha=0.01) == 8
    assert draws_needed(with_effect(1e-6)) == MAX_DRAWS
    assert (draws_needed(with_effect(0.5), power=0.9) or 0) > 34


def test_what_can_be_detected_has_the_power() -> None:
    for n in (6, 10, 200):
        found = detectable_difference(2.5, n)
        assert power_of(found / 2.5, n) == pytest.approx(0.8, abs=1e-9)
    assert detectable_difference(1.0, 5) == math.inf
    assert detectable_difference(0.0, 10) == 0.0
    gap = detectable_difference(1.0, 34)
    assert draws_needed(with_effect(gap + 1e-6)) == 34


def test_a_flip_is_what_its_model_says() -> None:
    """Variance from its scaled inverse chi-squared, mean given it, new draws given both."""
    differences = with_effect(0.4, n=7)
    generator = np.random.default_rng(1)
    n, k, many = 7, 3, 400_000
    variance = (n - 1) / generator.chisquare(n - 1, size=many)
    center = 0.4 + np.sqrt(variance / n) * generator.normal(size=many)
    new = center + np.sqrt(variance / k) * generator.normal(size=many)
    assert flip_probability(differences, k) == pytest.approx(np.mean(new < 0), abs=0.004)
    assert flip_probability([-d for d in differences], k) == pytest.approx(flip_probability(differences, k), abs=1e-12)


def test_the_ends_of_a_flip() -> None:
    assert flip_probability([1.0], 3) is None
    assert flip_probability([1.0, -1.0], 3) == 0.5 == flip_probability([0.0, 0.0], 3)
    assert flip_probability([0.1, 0.1, 0.1], 3) == 0.0
    chances = [flip_probability(with_effect(0.5), k) or 0 for k in (1, 3, 10, 1000)]
    assert chances == sorted(chances, reverse=True) and chances[0] < 0.5


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="one draw"):
        flip_probability([1.0, 2.0], 0)
    with pytest.raises(ValueError, match="finite"):
        draws_needed([1.0, math.nan])
    for power, alpha in ((1.0, 0.05), (0.8, 0.0), (0.01, 0.05)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            draws_needed([1.0, 2.0], power=power, alpha=alpha)
