"""The order of the examples changes no bit, what is undefined has a stated value, and mistakes are refused."""

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.metrics.classification import Classification, Regression

UNUSED = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
SCORES = ["accuracy", "f1_macro", "f1_weighted", "f1_micro", "mcc"]


def test_a_worked_example() -> None:
    """Three classes, four examples: of class 0 one right and one taken for 1, of class 1 one right, of 2 one for 1."""
    metric = Classification(3)
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 0]))
    metric.update(torch.tensor([1, 1]), torch.tensor([1, 2]))
    result = metric.compute()
    assert result["confusion_matrix"].tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert result["confusion_matrix"].dtype == torch.int64
    assert result["accuracy"].item() == result["f1_micro"].item() == 0.5
    assert result["f1_macro"].item() == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert result["f1_weighted"].item() == pytest.approx((2 * 2 / 3 + 1 / 2 + 0) / 4)
    # covariance 2 * 4 - (2 * 1 + 1 * 3 + 1 * 0) = 3; spreads 16 - 6 = 10 and 16 - 10 = 6
    assert result["mcc"].item() == pytest.approx(3 / math.sqrt(60))
    assert {value.dtype for name, value in result.items() if name in SCORES} == {torch.float64}


def test_an_absent_class_does_not_count() -> None:
    few, many = Classification(3), Classification(9)
    for metric in (few, many):
        metric.update(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 2, 2, 1]))
    assert [few.compute()[name].item() for name in SCORES] == [many.compute()[name].item() for name in SCORES]


@UNUSED
def test_f1_of_class_1_is_there_for_two_classes_alone() -> None:
    metric = Classification(2)
    metric.update(torch.tensor([1, 1, 0]), torch.tensor([1, 0, 1]))
    assert metric.compute()["f1"].item() == 0.5
    assert "f1" not in Classification(3).compute()


@UNUSED
def test_nothing_was_scored() -> None:
    """As the other metrics: nan, and an empty batch is nothing."""
    classes, numbers = Classification(2), Regression()
    for _ in range(2):
        result = classes.compute()
        assert result.pop("confusion_matrix").tolist() == [[0, 0], [0, 0]]
        assert set(result) == {*SCORES, "f1"}
        assert all(math.isnan(value.item()) for value in [*result.values(), *numbers.compute().values()])
        classes.update(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
        numbers.update(torch.zeros(0), torch.zeros(0))


@pytest.mark.parametrize("values", [[3.0], [0.1, 0.1, 0.1], [float(2**24), float(2**24 + 1)]])
def test_constant_numbers_have_no_correlation(values: list[float]) -> None:
    """Also of one pair alone; the third are equal in float32, the type of a model's output."""
    for swap in (False, True):
        pair = torch.tensor(values), torch.arange(len(values)).float()
        metric = Regression()
        metric.update(*(pair[::-1] if swap else pair))
        assert [value.item() for value in metric.compute().values()] == [0.0, 0.0]


def test_a_perfect_correlation_is_1_and_no_more() -> None:
    for sign in (1, -1):
        metric = Regression()
        values = torch.linspace(0.1, 0.7, 23, dtype=torch.float64)
        metric.update(sign * 3 * values + 0.3, values)
        for score in metric.compute().values():
            assert abs(score.item()) <= 1.0
            assert score.item() == pytest.approx(sign)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 60), max_size=4))
def test_no_order_and_no_cut_changes_a_bit(seed: int, cuts: list[int]) -> None:
    rng = random.Random(seed)
    numbers = [(rng.gauss(0, 3), rng.choice([rng.random(), 0.5])) for _ in range(60)]
    order = rng.sample(range(60), 60)
    bounds = [0, *sorted(cuts), 60]
    whole, parts = Regression(), Regression()
    whole.update(*torch.tensor(numbers).unbind(1))
    for start, stop in pairwise(bounds):
        parts.update(*torch.tensor([numbers[row] for row in order[start:stop]]).view(-1, 2).unbind(1))
    assert [value.item().hex() for value in whole.compute().values()] == [
        value.item().hex() for value in parts.compute().values()
    ]


def test_a_reset_metric_begins_again() -> None:
    numbers = Regression()
    for _ in range(2):
        numbers.update(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1, 3, 2]))
        assert numbers.compute()["spearman"].item() == pytest.approx(0.5)
        assert numbers.compute()["spearman"].item() == pytest.approx(0.5)
        numbers.reset()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Classification(1), "num_classes is 1"),
        (lambda: Classification(2).update(torch.tensor([0, 2]), torch.tensor([0, 1])), "class 2 is outside 0..1"),
        (lambda: Classification(2).update(torch.tensor([0]), torch.tensor([-1])), "class -1 is outside 0..1"),
        (lambda: Classification(9).update(torch.tensor([12]), torch.tensor([0])), "class 12 is outside 0..8"),
        (lambda: Classification(2).update(torch.tensor([0.5]), torch.tensor([0])), "predictions are torch.float32"),
        (lambda: Classification(2).update(torch.tensor([0]), torch.tensor([0.0])), "targets are torch.float32"),
        (lambda: Classification(2).update(torch.tensor([0]), torch.tensor([0, 1])), "1 predictions but 2 targets"),
        (lambda: Regression().update(torch.tensor([0.0]), torch.tensor([0, 1])), "1 predictions but 2 targets"),
        (lambda: Regression().update(torch.tensor([math.nan]), torch.tensor([0.0])), "value nan has no correlation"),
        (lambda: Regression().update(torch.tensor([1.0]), torch.tensor([math.inf])), "value inf has no correlation"),
    ],
)
def test_mistakes(act: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()
