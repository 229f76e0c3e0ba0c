"""What a model is trained to do: rows to examples, a batch to a loss, a batch to scored predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from fedlit.data.collation import Batch, Example


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One evaluated example as a person reads it."""

    prompt: str
    reference: str
    prediction: str


class Task(Protocol):
    """The interface between the federation, which knows clients and rounds, and a task's text, images or labels."""

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return the rows as examples."""
        ...

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Return the training batch of `examples`, on the CPU."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss of a batch on the model's device, a scalar."""
        ...

    def evaluation_batches(self, examples: Sequence[Example], batch_size: int) -> list[list[Example]]:
        """Return all examples in batches: composed once for the whole set, since padding changes the last bits."""
        ...

    def metrics(self) -> dict[str, Metric]:
        """Return fresh metrics by the names they have in the record."""
        ...

    def evaluate(
        self, model: nn.Module, examples: Sequence[Example], metrics: Mapping[str, Metric], device: torch.device
    ) -> list[Sample]:
        """Evaluate one batch into `metrics` and return it as samples."""
        ...
