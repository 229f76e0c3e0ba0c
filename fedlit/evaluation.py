"""Evaluation of the global model, or of every client's own, shared by all processes with the same numbers for any
number of them.

Batches are composed once for the whole set and dealt to the processes whole; the metrics' states are integers.
"""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import nn
from torchmetrics import Metric

from fedlit import communication
from fedlit.data.collation import Example
from fedlit.seeding import numpy_generator
from fedlit.tasks import Sample, Task


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Scores the model as it stands on a fixed set of examples."""

    fabric: Fabric
    model: nn.Module
    task: Task
    batches: Sequence[Sequence[Example]]

    def together(self) -> tuple[dict[str, float], list[Sample]]:
        """Return the scores of a model that is the same on all processes, each taking its share of the batches.

        The samples are this process's own.
        """
        step = communication.num_processes()
        mine = self.batches[communication.process_index() :: step]
        metrics, samples = self._run(mine)
        return self._compute(metrics), samples

    def of_each_client(
        self, num_clients: int, mine: Collection[int], load: Callable[[int], None]
    ) -> list[dict[str, float]]:
        """Return the scores of every client's own model, each computed by the process that holds the client.

        `load` puts a client's private tensors into the model. All own clients run before the first metric is
        synchronised, so that no process waits for another's client.
        """
        metrics = {}
        for client_id in sorted(mine):
            load(client_id)
            metrics[client_id], _ = self._run(self.batches)
        return [self._compute(metrics.get(client_id) or self._fresh_metrics()) for client_id in range(num_clients)]

    def _fresh_metrics(self) -> dict[str, Metric]:
        return {name: metric.to(self.fabric.device) for name, metric in self.task.metrics().items()}

    def _run(self, batches: Sequence[Sequence[Example]]) -> tuple[dict[str, Metric], list[Sample]]:
        metrics = self._fresh_metrics()
        samples: list[Sample] = []
        self.model.eval()
        with torch.no_grad(), self.fabric.autocast():
            for batch in batches:
                samples.extend(self.task.evaluate(self.model, batch, metrics, self.fabric.device))
        self.model.train()
        return metrics, samples

    @staticmethod
    def _compute(metrics: Mapping[str, Metric]) -> dict[str, float]:
        with warnings.catch_warnings():
            # A process without a batch has nothing to update; its share of the sum is zero.
            warnings.filterwarnings("ignore", message=r".*compute.. method of metric .* was called before the .*update")
            return {name: float(metric.compute()) for name, metric in metrics.items()}


def fixed_subset(examples: Sequence[Example], max_examples: int | None, seed: int) -> list[Example]:
    """Return a random subset of at most `max_examples`, the same in every round and in every process, in the given
    order.
    """
    if max_examples is None or max_examples >= len(examples):
        return list(examples)
    chosen = numpy_generator(seed, "evaluation").choice(len(examples), size=max_examples, replace=False)
    return [examples[row] for row in sorted(chosen)]


def mean_and_spread(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over clients of every score, and its standard deviation under `<name>_std`."""
    result: dict[str, float] = {}
    for name in scores[0]:
        values = [score[name] for score in scores]
        mean = sum(values) / len(values)
        result[name] = mean
        result[f"{name}_std"] = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    return result
