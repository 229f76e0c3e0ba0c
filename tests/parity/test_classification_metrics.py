"""Scores of classes are scikit-learn's, correlations are scipy's, also where one class alone occurs and among ties."""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef

from fedlit.metrics.classification import Classification, Regression

Pairs = list[tuple[int, int]]


def classes_and_pairs() -> st.SearchStrategy[tuple[int, Pairs]]:
    def pairs(num_classes: int) -> st.SearchStrategy[tuple[int, Pairs]]:
        number = st.integers(0, num_classes - 1)
        return st.tuples(st.just(num_classes), st.lists(st.tuples(number, number), min_size=1, max_size=40))

    return st.integers(2, 6).flatmap(pairs)


def scored(num_classes: int, pairs: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
    metric = Classification(num_classes)
    for start in range(0, len(pairs), 7):
        predictions, targets = zip(*pairs[start : start + 7], strict=True)
        metric.update(torch.tensor(predictions), torch.tensor(targets))
    return metric.compute()


def by_sklearn(num_classes: int, pairs: Sequence[tuple[int, int]]) -> dict[str, float]:
    predictions, targets = zip(*pairs, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = {
            "accuracy": accuracy_score(targets, predictions),
            "mcc": matthews_corrcoef(targets, predictions),
            **{
                f"f1_{average}": f1_score(targets, predictions, average=average, zero_division=0)
                for average in ("macro", "weighted", "micro")
            },
        }
        if num_classes == 2:
            result["f1"] = f1_score(targets, predictions, pos_label=1, average="binary", zero_division=0)
    return result


@settings(deadline=None, max_examples=80)
@given(classes_and_pairs())
@example((2, [(0, 0)]))  # one example
@example((2, [(1, 1), (1, 1)]))  # one class, predicted and true: sklearn's MCC is 0
@example((2, [(0, 1), (0, 1)]))  # constant and all wrong
@example((2, [(1, 0), (1, 1), (1, 0)]))  # a single class predicted
@example((3, [(1, 0), (1, 1), (1, 2)]))
@example((2, [(0, 0), (0, 1)]))  # no prediction of class 1
@example((6, [(0, 0), (5, 4), (4, 5)]))  # absent classes
def test_classes(case: tuple[int, Pairs]) -> None:
    num_classes, pairs = case
    result = scored(num_classes, pairs)
    predictions, targets = zip(*pairs, strict=True)
    matrix = confusion_matrix(targets, predictions, labels=range(num_classes))
    assert result.pop("confusion_matrix").tolist() == matrix.tolist()
    expected = by_sklearn(num_classes, pairs)
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name].item() == pytest.approx(value, abs=1e-12), name


def correlations(predictions: Sequence[float], targets: Sequence[float]) -> dict[str, float]:
    metric = Regression()
    for start in range(0, len(predictions), 5):
        part = slice(start, start + 5)
        metric.update(*(torch.tensor(values[part], dtype=torch.float64) for values in (predictions, targets)))
    return {name: value.item() for name, value in metric.compute().items()}


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 5)), min_size=2, max_size=40))
@example([(1, 1), (2, 2)])
@example([(1, 5), (2, 0)])
@example([(0, 0), (0, 1), (0, 2)])
@example([(0, 3), (1, 3), (2, 3)])
def test_correlations_among_ties(pairs: Pairs) -> None:
    """Constant predictions or targets have none, nan in scipy: the score is then 0."""
    predictions, targets = zip(*pairs, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "pearson": stats.pearsonr(predictions, targets).statistic,
            "spearman": stats.spearmanr(predictions, targets).statistic,
        }
    result = correlations(predictions, targets)
    for name, value in expected.items():
        assert result[name] == pytest.approx(0.0 if math.isnan(value) else value, abs=1e-12), name


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e12])
def test_correlations_of_real_numbers(scale: float) -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=500)
    predictions = scale * (targets + rng.normal(size=500))
    result = correlations(predictions.tolist(), targets.tolist())
    assert result["pearson"] == pytest.approx(stats.pearsonr(predictions, targets).statistic, abs=1e-12)
    assert result["spearman"] == pytest.approx(stats.spearmanr(predictions, targets).statistic, abs=1e-12)
