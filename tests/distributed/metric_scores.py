"""What each family of metrics computes over a range of made-up rows, as names and bits."""

import random
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torchmetrics import Metric

from fedlit.metrics.answers import Accuracy, ExactMatch
from fedlit.metrics.classification import Classification, Regression
from fedlit.metrics.data_to_text import Bleu, Cider, Meteor, Nist
from fedlit.metrics.exact import FixedPointMean
from fedlit.metrics.text import Bleu4, RougeL

NUM_ROWS = 120
TEXT = "The Eagle is a family-friendly pub near Burger King , isn't cheap ( £20-25 ) and serves food by the riverside ."


class Scorer:
    """Metrics and the rows they are shown."""

    def __init__(self) -> None:
        rng = random.Random(0)
        self.references = [
            [" ".join(rng.choices(TEXT.split(), k=rng.randrange(6, 25))) for _ in range(rng.randrange(1, 5))]
            for _ in range(NUM_ROWS)
        ]
        self.predictions = [
            " ".join(word for word in rng.choice(texts).split() if rng.random() < 0.9) for texts in self.references
        ]
        self.groups = [f"group {row // 9}" for row in range(NUM_ROWS)]  # no process has all of them
        generator = torch.Generator().manual_seed(0)
        self.losses = torch.rand(NUM_ROWS, generator=generator) * 90
        mixed = torch.randn(NUM_ROWS, 2, generator=generator)
        self.numbers = mixed @ torch.tensor([[1.0, 0.7], [0.0, 0.7]])

        self.texts = [RougeL(), Bleu4(), Bleu(), Nist(), Meteor(), Cider()]
        self.mean, self.exact, self.accuracy = FixedPointMean(), ExactMatch("number"), Accuracy()
        self.classes, self.regression = Classification(4), Regression()

    def update(self, rows: range) -> None:
        """Show some rows to all metrics."""
        part = slice(rows.start, rows.stop)
        for metric in self.texts:
            metric.update(self.predictions[part], self.references[part])
        self.exact.update([f"#### {row % 7}" for row in rows], [f"#### {row % 5}" for row in rows], self.groups[part])
        self.accuracy.update([row % 3 == 0 for row in rows], self.groups[part])
        self.mean.update(self.losses[part], torch.arange(rows.start, rows.stop) % 31)
        self.regression.update(*self.numbers[part].unbind(1))
        self.classes.update(*self.numbers[part].abs().clamp(max=3).long().unbind(1))

    def computed(self) -> dict[str, str]:
        """Return every score by name, its bits as text."""
        metrics: Iterable[Metric] = (*self.texts, self.mean, self.exact, self.accuracy, self.classes, self.regression)
        scores: dict[str, Tensor] = {}
        for metric in metrics:
            result = metric.compute()
            family = type(metric).__name__
            parts = result if isinstance(result, Mapping) else {"": result}
            scores |= {f"{family} {name}": value for name, value in parts.items()}
        return {
            name: str([value.hex() for value in tensor.double().reshape(-1).tolist()])
            for name, tensor in scores.items()
        }


def scores(start: int, stop: int, *, more: bool) -> list[dict[str, str]]:
    """Return the bits of every score over rows start..stop, then again, after one more row if `more`."""
    scorer = Scorer()
    for row in range(start, stop, 16):
        scorer.update(range(row, min(row + 16, stop)))
    first = scorer.computed()
    if more:
        scorer.update(range(7, 8))
    return [first, scorer.computed()]
