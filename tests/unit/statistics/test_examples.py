"""Errors over examples: by hand, and by row id."""

import math

import pytest

from fedlit.statistics.examples import ExampleError, over_examples, paired_over_examples


def test_by_hand() -> None:
    """Deviations -2, 0, 2: variance 4, of the mean 4 / 3."""
    found = over_examples([1.0, 3.0, 5.0])
    assert found == ExampleError(mean=3.0, std_error=pytest.approx(math.sqrt(4 / 3)), num_examples=3)
    assert over_examples([0.5]) == ExampleError(mean=0.5, std_error=None, num_examples=1)


def test_pairs_are_rows_that_both_have() -> None:
    first = {"a": 1.0, "b": 2.0, "c": 9.0, "only": 100.0}
    second = {"c": 7.0, "b": 1.5, "a": 0.5, "other": -100.0}
    found = paired_over_examples(first, second)
    assert found == over_examples([0.5, 0.5, 2.0])
    assert paired_over_examples(first, {"other": 1.0}) is None


def test_a_hard_row_for_both_adds_nothing_to_the_paired_error() -> None:
    first = {str(i): float(i) for i in range(50)}
    found = paired_over_examples(first, {key: value + 1 for key, value in first.items()})
    assert found == ExampleError(mean=-1.0, std_error=0.0, num_examples=50)


def test_mistakes_are_told() -> None:
    for scores in ([], [math.nan], [1.0, math.inf]):
        with pytest.raises(ValueError, match="finite"):
            over_examples(scores)
