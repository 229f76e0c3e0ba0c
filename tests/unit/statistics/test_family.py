"""Tests of a whole table at once: against a loop over all patterns of signs, and beside Holm."""

import itertools

import numpy as np
import pytest

from fedlit.statistics import family
from fedlit.statistics.family import step_down_p
from fedlit.statistics.paired import holm, sign_flip_p

GENERATOR = np.random.default_rng(5)
EFFECTS = np.array([0.0, 1.5, 0.0, -3.0, 0.7])
DIFFERENCES = GENERATOR.normal(size=(8, 5)) * [1, 2, 1, 3, 0.5] + EFFECTS


def by_a_loop(differences: np.ndarray) -> list[float]:
    """Return the p-values as the definition has them: one set of hypotheses after the other, all 2^n patterns."""
    sizes = [sum(value**2 for value in column) ** 0.5 for column in differences.T]
    seen = [abs(sum(column)) / size for column, size in zip(differences.T, sizes, strict=True)]
    left, found, highest = set(range(len(seen))), [0.0] * len(seen), 0.0
    while left:
        best = max(left, key=lambda j: seen[j])
        count = 0
        for signs in itertools.product((-1, 1), repeat=len(differences)):
            largest = max(abs(np.dot(signs, differences[:, j])) / sizes[j] for j in left)
            count += largest >= seen[best] - 1e-12
        highest = max(highest, count / 2 ** len(differences))
        found[best] = highest
        left.remove(best)
    return found


def test_the_definition() -> None:
    assert step_down_p(DIFFERENCES) == pytest.approx(by_a_loop(DIFFERENCES), abs=1e-15)


def test_one_comparison_is_the_sign_flip_test() -> None:
    assert step_down_p(DIFFERENCES[:, 1:2]) == [sign_flip_p(DIFFERENCES[:, 1])]


def test_no_order_and_no_sign_changes_it() -> None:
    expected = step_down_p(DIFFERENCES)
    assert step_down_p(DIFFERENCES[::-1, [4, 2, 0, 1, 3]] * [1, -1, 1, -1, 100]) == [
        expected[i] for i in (4, 2, 0, 1, 3)
    ]


def test_a_smaller_gap_has_no_smaller_p_value() -> None:
    column = np.array([2.0, 1.5, 1.0, 1.2, -0.3, 0.4, 0.9, -0.2])
    other = column[::-1].copy()
    other[-1] -= 1e-6
    both = step_down_p(np.stack([column, other], axis=1))
    assert both[1] == both[0] and (both[0] or 0) > sign_flip_p(column)


def test_it_speaks_where_holm_cannot() -> None:
    differences = GENERATOR.normal(size=(10, 105)) + 9.0
    raw = [float(sign_flip_p(column)) for column in differences.T]
    assert all(p is not None and p > 0.2 for p in holm(raw))
    assert step_down_p(differences) == [2 / 1024] * 105


def test_random_patterns_agree_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = np.array(step_down_p(DIFFERENCES), dtype=float)
    monkeypatch.setattr(family, "EXACT_FAMILY_PAIRS", 5)
    assert np.array(step_down_p(DIFFERENCES), dtype=float) == pytest.approx(exact, abs=0.02)


def test_methods_without_a_difference_and_too_few_pairs() -> None:
    assert step_down_p(np.zeros((6, 2))) == [1.0, 1.0]
    assert step_down_p(np.ones((5, 2))) == [None, None]
    assert step_down_p(np.ones((6, 0))) == []
    with pytest.raises(ValueError, match="finite"):
        step_down_p(np.full((6, 2), np.nan))
