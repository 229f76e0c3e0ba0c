"""Paired differences: against scipy, by hand, and what no order of draws and no exchange of methods may change."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedlit.statistics import paired
from fedlit.statistics.paired import Difference, holm, min_pairs, paired_difference, sign_flip_p

GENERATOR = np.random.default_rng(3)
FIRST = GENERATOR.normal(2.0, 0.3, size=10)
SECOND = FIRST + GENERATOR.normal(0.1, 0.2, size=10)


def test_intervals_and_p_are_those_of_scipy() -> None:
    found = paired_difference(FIRST.tolist(), SECOND.tolist())
    differences = FIRST - SECOND
    student = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    bca = stats.bootstrap((differences,), np.mean, n_resamples=99_999, method="BCa", rng=7).confidence_interval
    p = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert (found.num_pairs, found.is_exact, found.reason) == (10, True, "")
    assert found.mean == pytest.approx(differences.mean(), abs=1e-15)
    assert found.std == pytest.approx(differences.std(ddof=1), abs=1e-15)
    assert (found.t_low, found.t_high) == pytest.approx((student.low, student.high), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((bca.low, bca.high), abs=0.01 * (bca.high - bca.low))
    assert found.p == pytest.approx(p, abs=1e-12)


def test_signs_are_counted_by_hand() -> None:
    """Sums of 1, 2, 3, 4 with signs: 10 once, 8 once (and their opposites); of 16 patterns 4 are 8 or farther."""
    assert sign_flip_p(np.array([-1.0, 2, 3, 4])) == 4 / 16
    assert sign_flip_p(np.array([1.0, 2, 3, 4])) == 2 / 16
    assert sign_flip_p(np.zeros(6)) == 1.0


def test_no_order_of_draws_changes_a_bit() -> None:
    order = GENERATOR.permutation(10)
    assert paired_difference(FIRST.tolist(), SECOND.tolist()) == paired_difference(FIRST[order], SECOND[order])


def test_exchanged_methods_change_the_signs_and_nothing_else() -> None:
    for n in (1, 2, 5, 10):
        one, other = paired_difference(FIRST[:n], SECOND[:n]), paired_difference(SECOND[:n], FIRST[:n])

        def minus(value: float | None) -> float | None:
            return None if value is None else -value

        assert one == replace(
            other,
            mean=minus(other.mean),
            low=minus(other.high),
            high=minus(other.low),
            t_low=minus(other.t_high),
            t_high=minus(other.t_low),
        )


def test_a_unit_changes_nothing_but_the_unit() -> None:
    one, other = paired_difference(FIRST, SECOND), paired_difference(100 * FIRST, 100 * SECOND)
    assert other.p == one.p
    assert one.low is not None and other.low == pytest.approx(100 * one.low, rel=1e-9)


@pytest.mark.parametrize(
    ("n", "reason"),
    [
        (0, "no pairs"),
        (1, "1 pair; no bootstrap interval below 5, no two-sided test can reach 0.05 below 6"),
        (4, "4 pairs; no bootstrap interval below 5, no two-sided test can reach 0.05 below 6"),
        (5, "5 pairs; no two-sided test can reach 0.05 below 6"),
        (6, ""),
    ],
)
def test_too_few_pairs_are_told(n: int, reason: str) -> None:
    found = paired_difference(FIRST[:n], SECOND[:n])
    assert found.reason == reason
    missing = [found.mean is None, found.t_low is None, found.low is None, found.p is None]
    assert missing == [n < 1, n < 2, n < 5, n < 6]


def test_equal_differences_have_a_p_value_and_no_interval() -> None:
    found = paired_difference([0.3, 0.5, 0.7, 0.9, 1.1, 1.3], [0.2, 0.4, 0.6, 0.8, 1.0, 1.2])  # equal but for rounding
    assert (found.low, found.t_low, found.p) == (None, None, 2 / 64)
    assert found.reason == "6 pairs; all differences are equal, so there is no interval"
    same = paired_difference(FIRST, FIRST)
    assert (same.mean, same.p, same.low) == (0.0, 1.0, None)


def test_rounding_breaks_no_tie() -> None:
    """Differences of tenths in binary have the p-value of the same ones in whole numbers."""
    whole = np.array([1, 1, -1, 2, 3, -2, 1, 1])
    base = 10_000 + np.array([17, 3, 21, 9, 14, 8, 5, 11])
    assert paired_difference((base + whole) / 10, base / 10).p == sign_flip_p(whole.astype(float))


def test_random_signs_agree_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = FIRST - SECOND
    exact = sign_flip_p(differences)
    monkeypatch.setattr(paired, "EXACT_PAIRS", 8)
    random = sign_flip_p(differences)
    assert random != exact and random == pytest.approx(exact, abs=4 * np.sqrt(exact / paired.NUM_FLIPS))
    assert not paired_difference(FIRST, SECOND).is_exact
    assert sign_flip_p(np.ones(40)) == 1 / (paired.NUM_FLIPS + 1), "never 0"


def test_many_tables_are_computed_as_one_is() -> None:
    tables = GENERATOR.normal(size=(3, 9))
    assert sign_flip_p(tables).tolist() == [sign_flip_p(row) for row in tables]


def test_the_fewest_pairs() -> None:
    assert [min_pairs(alpha) for alpha in (0.5, 0.05, 1 - 0.95, 0.01, 0.05 / 105)] == [2, 6, 6, 8, 13]


def test_holm_by_hand() -> None:
    """0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1 is not below the one before."""
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == [pytest.approx(0.03), None, 0.06, 0.06, 0.02]
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == [] and holm([None]) == [None]


@pytest.mark.parametrize(
    ("first", "second", "level"),
    [([1.0], [1.0, 2.0], 0.95), ([1.0, np.nan], [1.0, 2.0], 0.95), ([1.0], [2.0], 1.0)],
)
def test_mistakes_are_told(first: list[float], second: list[float], level: float) -> None:
    with pytest.raises(ValueError, match=r"length|finite|level"):
        paired_difference(first, second, level=level)


def test_a_level_of_its_own() -> None:
    found: Difference = paired_difference(FIRST[:7], SECOND[:7], level=0.99)
    assert found.p is None and found.reason == "7 pairs; no two-sided test can reach 0.01 below 8"
    wide, usual = found, paired_difference(FIRST[:7], SECOND[:7])
    assert wide.t_low is not None and usual.t_low is not None and wide.t_low < usual.t_low
