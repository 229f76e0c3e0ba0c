"""The local steps of one client: batches, gradients, corrections, the optimizer and its learning rates."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fedlit.client.largest_gradient import LargestGradient
from fedlit.client.schedules import lr_factor
from fedlit.config import LocalConfig
from fedlit.method import Method
from fedlit.round.jobs import Correction
from fedlit.tasks import Batch, Task


class ClientModule(LightningModule):
    """A backbone with its adapter, the task it is trained on and the optimizer that steps it."""

    def __init__(
        self, model: nn.Module, task: Task[Any, Any], method: Method, trained: Mapping[str, nn.Parameter]
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.method = method
        self._trained = trained

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of one batch: its gradient is that of all passes, its value that of the last."""
        total: Tensor | None = None
        for entered in self.method.adapter.passes(self.model):
            with entered:
                loss = self.task.loss(self.model, batch)
            total = loss if total is None else loss + (total - total.detach())
        assert total is not None, "at least one pass"
        return total

    def configure_optimizers(self) -> Optimizer:
        """Return a new local optimizer over the trained parameters."""
        return self.method.optimizer.build(self._trained)


@dataclass(frozen=True, kw_only=True)
class StepRange:
    """Where a round's steps stand in a learning rate schedule: `first` of `total`, counted from 0."""

    first: int
    total: int


@dataclass(frozen=True, kw_only=True)
class StepTurns:
    """Which parameters of a round are stepped in which of its steps.

    The others have no gradient, and no optimizer touches them then: neither their moments nor their count of steps nor
    their weight decay move. turn: Adapter.turn_of_step. trained: the parameters that train in the round, by name.
    """

    turn: Callable[[frozenset[str], int], frozenset[str]]
    trained: Mapping[str, nn.Parameter]

    def begin(self, step: int) -> dict[str, nn.Parameter]:
        """Let the parameters of a step, counted from 0, alone have gradients, and return them."""
        names = self.turn(frozenset(self.trained), step)
        for name, parameter in self.trained.items():
            parameter.requires_grad_(name in names)
        return {name: parameter for name, parameter in self.trained.items() if name in names}


@dataclass(frozen=True, kw_only=True)
class LocalSteps:
    """Runs optimizer steps on one process. Nothing in it waits for the device."""

    fabric: Fabric
    module: ClientModule
    local: LocalConfig

    def run(
        self,
        optimizer: Optimizer,
        batches: Iterable[Sequence[Batch]],
        on_step: Callable[[], None],
        corrections: Sequence[Correction] = (),
        schedule: StepRange | None = None,
        turns: StepTurns | None = None,
        watch: LargestGradient | None = None,
    ) -> Tensor:
        """Take one optimizer step for each list of batches and return the losses (steps,), on the device.

        `schedule` is where the steps stand in a learning rate that changes; None for one that does not. `on_step` is
        called after every step; what it raises ends the steps. `turns` is for parameters that take turns. `watch` looks
        at the gradients of each step.
        """
        switch_to_training(self.module)
        optimizer.zero_grad(set_to_none=True)  # what a client left whose optimizer ended its training
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        scheduler = multiplied(optimizer, self.local, schedule)
        losses = []
        for step, parts in enumerate(batches):
            if turns is not None:
                turns.begin(step)
            loss = self._backward(parts)
            for correction in corrections:
                correction.apply()
            if watch is not None:
                watch.see(parameters)
            if self.local.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, self.local.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if scheduler is not None:
                scheduler.step()
            losses.append(loss)
            on_step()
        return torch.stack(losses)

    def _backward(self, parts: Sequence[Batch]) -> Tensor:
        """Add up the gradients of a step's batches, each weighted by its share of the targets, and return the loss.

        The mean over all targets of the step is that of one large batch.
        """
        num_targets = [part.num_targets for part in parts]
        total: Tensor | None = None
        for batch_idx, part in enumerate(parts):
            # The strategy leaves modules unwrapped, so Fabric's precision is entered here rather than in a wrapper.
            with self.fabric.autocast():
                loss = self.module.training_step(part.to(self.fabric.device), batch_idx)
            if len(parts) > 1:
                loss = loss * (num_targets[batch_idx] / sum(num_targets))
            self.fabric.backward(loss)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total


def multiplied(optimizer: Optimizer, local: LocalConfig, schedule: StepRange | None) -> LambdaLR | None:
    """Return what multiplies each group's own learning rate, step by step; None for rates that do not change."""
    if schedule is None:
        return None
    kind, warmup = local.schedule, local.warmup
    return LambdaLR(optimizer, lambda step: lr_factor(kind, warmup, schedule.first + step, schedule.total))


def switch_to_training(module: ClientModule) -> None:
    """Let dropout draw, if it does not: the switch walks through all modules."""
    if not (module.training and module.model.training):
        module.train()
