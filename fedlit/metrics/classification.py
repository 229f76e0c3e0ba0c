"""Scores of predicted classes and of predicted numbers, equal in every bit for any split of the examples.

Classes are scored from one integer confusion matrix, by the definitions of scikit-learn: macro and weighted F1 are
means over the classes that occur among predictions or targets, as in `sklearn.metrics.f1_score` without `labels=`. The
correlations of numbers need every pair at once; their sums are rounded once (math.fsum), so that the order in which
processes hand in the pairs does not matter.
"""

import math

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix
from torchmetrics.utilities.data import dim_zero_cat

from fedlit.metrics.noting import Notes


class Classification(Metric):
    """Accuracy, F1 in its averages, Matthews correlation coefficient (MCC) and confusion matrix of C classes.

    The state is the confusion matrix, int64 (C, C), rows true classes and columns predicted ones.
    """

    matrix: Tensor
    notes: Notes | None = None
    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    def __init__(self, num_classes: int) -> None:
        # A cached result would keep a process without new examples out of the collective that the others wait in.
        super().__init__(compute_with_cache=False)
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}: give at least 2")
        self.num_classes = num_classes
        empty = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("matrix", default=empty, dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add n examples: the numbers of the predicted and of the true classes, both (n,) integers on any device.

        Raises ValueError for sizes that differ and for a number that is no class.
        """
        columns = [_flat_integers(predictions, "predictions"), _flat_integers(targets, "targets")]
        _require_equal_sizes(*columns)
        numbers = torch.stack(columns)
        outside = (numbers < 0) | (numbers >= self.num_classes)
        if bool(outside.any()):
            raise ValueError(f"class {int(numbers[outside][0])} is outside 0..{self.num_classes - 1}")
        if numbers.numel():
            added = multiclass_confusion_matrix(numbers[0], numbers[1], self.num_classes, validate_args=False)
            self.matrix = self.matrix + added.to(self.matrix.device)
        if self.notes is not None:
            self.notes.add_to("accuracy", (columns[0] == columns[1]).long().tolist())
            self.notes.add_to("predicted", columns[0].tolist())
            self.notes.add_to("target", columns[1].tolist())

    def compute(self) -> dict[str, Tensor]:
        """Return the results over all processes.

        accuracy, f1_macro, f1_weighted, f1_micro (with one class an example the same as accuracy), mcc, and with two
        classes f1, that of class 1: float64 scalars, nan without any example; an F1 without a true positive is 0, and
        mcc is 0 where it is undefined, that is where one class alone is predicted or true. confusion_matrix: int64
        (C, C).
        """
        rows: list[list[int]] = self.matrix.tolist()
        num_true = [sum(row) for row in rows]
        num_predicted = [sum(column) for column in zip(*rows, strict=True)]
        hits = [row[number] for number, row in enumerate(rows)]
        scores = _scores(hits, num_true, num_predicted)
        device = self.matrix.device
        results = {name: torch.tensor(score, dtype=torch.float64, device=device) for name, score in scores.items()}
        return {**results, "confusion_matrix": self.matrix.clone()}


class Regression(Metric):
    """Pearson's and Spearman's correlation of predicted and true numbers, in [-1, 1].

    The state are the pairs themselves, float64, one after the other in one dimension: torchmetrics gathers states of
    one dimension from processes with any number of pairs, also none.
    """

    pairs: Tensor | list[Tensor]
    notes: Notes | None = None
    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    def __init__(self) -> None:
        super().__init__(compute_with_cache=False)  # see Classification
        self.add_state("pairs", default=[], dist_reduce_fx="cat")
        self.set_dtype(torch.float64)  # of what a process without pairs hands in: of another size it would be garbage

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add n pairs: predicted and true numbers, both (n,) of any type and on any device.

        Raises ValueError for sizes that differ and for a number that is not finite.
        """
        _require_equal_sizes(predictions, targets)
        columns = [values.detach().reshape(-1).cpu().double() for values in (predictions, targets)]
        pairs = torch.stack(columns, dim=1).reshape(-1)
        if not bool(pairs.isfinite().all()):
            raise ValueError(f"value {float(pairs[~pairs.isfinite()][0])} has no correlation: it must be finite")
        assert isinstance(self.pairs, list)
        self.pairs.append(pairs.to(self.device))
        if self.notes is not None:
            self.notes.add_to("predicted", columns[0].tolist())
            self.notes.add_to("target", columns[1].tolist())

    def compute(self) -> dict[str, Tensor]:
        """Return pearson and spearman over all processes as float64 scalars.

        Equal values share their mean rank, as in scipy. Both are nan without any pair, and 0 where they are undefined
        (scipy: nan), that is where all predictions or all targets are equal: a model that answers the same to
        everything is scored.
        """
        states = [self.pairs] if isinstance(self.pairs, Tensor) else self.pairs
        pairs = dim_zero_cat(states).cpu().view(-1, 2) if states else torch.zeros(0, 2, dtype=torch.float64)
        predictions, targets = pairs.t().contiguous()
        scores = {
            "pearson": _correlation(predictions, targets),
            "spearman": _correlation(_ranks(predictions), _ranks(targets)),
        }
        return {name: torch.tensor(score, dtype=torch.float64, device=self.device) for name, score in scores.items()}


def _flat_integers(numbers: Tensor, what: str) -> Tensor:
    if numbers.is_floating_point() or numbers.is_complex():
        raise ValueError(f"{what} are {numbers.dtype}: give the integer numbers of classes")
    return numbers.detach().reshape(-1).cpu().long()


def _require_equal_sizes(predictions: Tensor, targets: Tensor) -> None:
    if predictions.numel() != targets.numel():
        raise ValueError(f"{predictions.numel()} predictions but {targets.numel()} targets: give one for each")


def _scores(hits: list[int], num_true: list[int], num_predicted: list[int]) -> dict[str, float]:
    """Return the scores of C classes from three counts of each: rightly predicted, true, predicted."""
    total, num_right = sum(num_true), sum(hits)
    names = ["accuracy", "f1_macro", "f1_weighted", "f1_micro", "mcc", *(["f1"] if len(hits) == 2 else [])]
    if not total:
        return dict.fromkeys(names, math.nan)
    support = [true + predicted for true, predicted in zip(num_true, num_predicted, strict=True)]
    # An absent class counts nowhere: it is left out of the macro mean, and its weight is 0.
    f1 = [2 * hit / both if both else 0.0 for hit, both in zip(hits, support, strict=True)]
    num_present = sum(both > 0 for both in support)
    values = {
        "accuracy": num_right / total,
        "f1_macro": math.fsum(f1) / num_present,
        "f1_weighted": math.fsum(score * true for score, true in zip(f1, num_true, strict=True)) / total,
        "f1_micro": num_right / total,
        "mcc": _mcc(num_right, num_true, num_predicted),
        "f1": f1[1],
    }
    return {name: values[name] for name in names}


def _mcc(num_right: int, num_true: list[int], num_predicted: list[int]) -> float:
    """Return the Matthews correlation coefficient of several classes (Gorodkin, Comput. Biol. Chem. 28, 2004)."""
    total = sum(num_true)
    covariance = num_right * total - sum(
        true * predicted for true, predicted in zip(num_true, num_predicted, strict=True)
    )
    spread = (total**2 - sum(true**2 for true in num_true)) * (total**2 - sum(count**2 for count in num_predicted))
    return covariance / math.sqrt(spread) if spread else 0.0


def _correlation(first: Tensor, second: Tensor) -> float:
    """Return Pearson's correlation of two float64 (n,) on the CPU, the same for every order of the n pairs."""
    if not len(first):
        return math.nan
    if bool((first == first[0]).all()) or bool((second == second[0]).all()):
        return 0.0
    x, y = _centred(first), _centred(second)
    covariance = math.fsum((x * y).tolist())
    spread = math.sqrt(math.fsum((x * x).tolist())) * math.sqrt(math.fsum((y * y).tolist()))
    return max(-1.0, min(1.0, covariance / spread))


def _centred(values: Tensor) -> Tensor:
    """Return what is left of values that are not all equal without their mean, the largest of magnitude 1."""
    rest = values - math.fsum(values.tolist()) / len(values)
    return rest / rest.abs().max()


def _ranks(values: Tensor) -> Tensor:
    """Return the ranks from 1 of (n,) values, equal ones with the mean of their ranks, as float64."""
    ordered = values.sort().values
    num_below, num_up_to = torch.searchsorted(ordered, values), torch.searchsorted(ordered, values, right=True)
    return (num_below + num_up_to + 1).double() / 2
