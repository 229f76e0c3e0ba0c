"""What a model is trained to do: rows to examples, a batch to a loss, a batch to scored predictions.

Torch is imported for the type checker alone: the specs of the tasks lie below, and rows are checked before torch is
imported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torchmetrics import Metric

    from fedlit.config import RunConfig
    from fedlit.models import Backbone
    from fedlit.tasks.spec import TaskSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One evaluated example as a person reads it.

    other_references: further right answers. group: the value of `data.score_by`. probability: of the predicted class.
    """

    prompt: str
    reference: str
    prediction: str
    other_references: tuple[str, ...] = ()
    group: str | None = None
    probability: float | None = None


class Example(Protocol):
    """A row as a task keeps it; every task has a type of its own."""

    @property
    def truncated(self) -> bool:
        """Whether a part of the row was cut off."""
        ...

    @property
    def num_tokens(self) -> int | None:
        """Tokens of the row, all that the model reads of it; None of an image."""
        ...


class Packed(Protocol):
    """An example whose part that training reads can be written as bytes."""

    def packed(self) -> bytes:
        """Return what training reads of it."""
        ...

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """Return the example of such bytes, without the texts that training does not read."""
        ...


class Batch(Protocol):
    """Examples as tensors; every task has a type of its own."""

    @property
    def num_targets(self) -> int:
        """Labelled tokens or examples, over which the loss is a mean; known on the CPU."""
        ...

    def to(self, device: torch.device) -> Self:
        """Return the batch on `device`, without waiting for it."""
        ...


ExampleT = TypeVar("ExampleT", bound=Example)
BatchT = TypeVar("BatchT", bound=Batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined(Generic[BatchT]):
    """The batches of several clients as one, in the clients' order.

    rows, targets: each client's. widths: tokens that its rows have without the others; none of images. labels: its
    positions that reach the output projection, where not all do.
    """

    batch: BatchT
    rows: tuple[int, ...]
    targets: tuple[int, ...]
    widths: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()

    def to(self, device: torch.device) -> Joined[BatchT]:
        """Return the batch on `device`, without waiting for it."""
        return replace(self, batch=self.batch.to(device))


class Task(ABC, Generic[ExampleT, BatchT]):
    """The interface between the federation, which knows clients and rounds, and a task's text, images or labels.

    What is asked before torch is imported, of rows and configurations, is in the task's `TaskSpec`.

    packed_examples: the class of its training examples, if they can be kept as bytes (`Packed`): a
    row is then encoded once in a run, by itself, and what `collate`, `truncated` and `num_tokens` read of it is kept.
    None: rows are encoded each time that a client trains on them.
    """

    packed_examples: ClassVar[type[Packed] | None] = None

    @classmethod
    @abstractmethod
    def build(cls, config: RunConfig, backbone: Backbone) -> Self:
        """Return the task of a configuration."""

    @abstractmethod
    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[ExampleT]:
        """Return training rows as examples, one for each."""

    @abstractmethod
    def evaluation_examples(self, rows: Sequence[Mapping[str, Any]]) -> list[ExampleT]:
        """Return test rows as examples, in their order; rows with one input may become one example."""

    def identity(self, example: ExampleT) -> str | None:
        """Return what makes a test example the same in every run, its input and what is right about it; None goes by
        its place in the set.
        """
        return None

    def check_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Refuse rows of which no example can be made, as far as their own check could not know it.

        Raises:
            UserError: the row and what is wrong with it.
        """

    @abstractmethod
    def collate(self, examples: Sequence[ExampleT]) -> BatchT:
        """Return the training batch of `examples`, on the CPU."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: BatchT) -> Tensor:
        """Return the mean loss of a batch on the model's device, a scalar."""

    def join(self, batches: Sequence[BatchT]) -> Joined[BatchT]:
        """Return the batches of several clients as one, on the CPU, for one forward pass through weights of each.

        A task that has it also evaluates several clients' models at once: `evaluate` is then given a batch's examples
        once for each client, and updates metrics with a value for each example.

        Raises:
            NotImplementedError: the task trains clients one after the other, as by default.
        """
        raise NotImplementedError

    def losses(self, model: nn.Module, joined: Joined[BatchT]) -> Tensor:
        """Return the mean loss of each of k clients (k,), whose batches were joined and moved to the model's device.

        Raises:
            NotImplementedError: as `join`.
        """
        raise NotImplementedError

    @abstractmethod
    def evaluation_batches(self, examples: Sequence[ExampleT], batch_size: int) -> list[list[ExampleT]]:
        """Return all examples in batches: composed once for the whole set, since padding changes the last bits."""

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """Return fresh metrics by name.

        `compute` returns a scalar, recorded under that name, or a mapping of several results, recorded under their own
        names: scalars, vectors or matrices.
        """

    def notes(self) -> Mapping[str, str]:
        """Return what the first record says of how the scores are made, by key; nothing unless there is a choice."""
        return {}

    def protocol_parts(self) -> Mapping[str, Any]:
        """Return what decides the meaning of the scores as plain values by name, none of what the model is trained by;
        of a score alone under `metrics/<score>`. Runs that differ in a part are not compared in the scores that it
        matters for (`fedlit.lab.analysis.versions`).
        """
        return {}

    @abstractmethod
    def evaluate(
        self, model: nn.Module, examples: Sequence[ExampleT], metrics: Mapping[str, Metric], device: torch.device
    ) -> list[Sample]:
        """Evaluate one batch into `metrics` and return it as samples, one for each example in their order.

        A metric is updated once, with a value for each example in their order: by that its scores of single examples
        are known (`fedlit.metrics.noting`).
        """


def task_class(spec: TaskSpec) -> type[Task[Any, Any]]:
    """Import the class that trains a task, and torch with it."""
    module, _, name = spec.task_class.partition(":")
    found: type[Task[Any, Any]] = getattr(import_module(module), name)
    return found
