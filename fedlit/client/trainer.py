"""One client's local training: its state is swapped into the process's one model, trained, and swapped out again."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.pytorch import LightningModule
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlit.adapters import trainable
from fedlit.algebra.tensors import TensorDict, copy_into, distance, snapshot
from fedlit.client.corrections import ControlVariate, Correction, Proximal, initial_control, next_control
from fedlit.client.schedules import lr_factor
from fedlit.config import LocalConfig
from fedlit.data.collation import steps_of_epochs, training_order
from fedlit.data.prompts import Row
from fedlit.errors import DivergenceError
from fedlit.methods import Method
from fedlit.round.cohort import ClientUpdate
from fedlit.round.server import Download
from fedlit.seeding import torch_stream
from fedlit.tasks import Batch, Example, Task


class ClientModule(LightningModule):
    """A backbone with its adapter, the task it is trained on and the optimizer that steps it."""

    def __init__(self, model: nn.Module, task: Task[Any, Any], method: Method) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.method = method
        # Of all rounds: an adapter may train some of them in one round and others in the next.
        self.trained = trainable(model)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of one batch."""
        return self.task.loss(self.model, batch)

    def configure_optimizers(self) -> Optimizer:
        """Return a new local optimizer over the trainable parameters."""
        return self.method.optimizer.build(list(self.trained.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientState:
    """What stays with a client between its rounds, on the CPU: private tensors, its control variate (SCAFFOLD) and, if
    kept, its optimizer's state_dict.
    """

    private: TensorDict = field(default_factory=dict)
    control: TensorDict = field(default_factory=dict)
    optimizer: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class LocalTrainer:
    """Trains clients one after the other on one process."""

    fabric: Fabric
    module: ClientModule
    method: Method
    local: LocalConfig
    seed: int
    num_step_multiples: int = 1
    """Steps are multiplied by this: the pooled client takes as many steps as the clients it stands for."""

    def num_steps(self, num_examples: int) -> int:
        """Return the optimizer steps of one client in one round."""
        if self.local.epochs is not None:
            return steps_of_epochs(num_examples, self.num_step_rows, self.local.epochs)
        assert self.local.steps is not None
        return self.local.steps * self.num_step_multiples

    @property
    def num_step_rows(self) -> int:
        """Rows of one optimizer step, for a client that has as many."""
        return self.local.batch_size * self.local.accumulate

    def train(
        self,
        client_id: int,
        rows: Sequence[Row],
        download: Download,
        state: ClientState,
        round_idx: int,
        on_step: Callable[[], bool],
    ) -> tuple[ClientUpdate, ClientState] | None:
        """Train one client on its `rows` from what it received and its own `state`; both stay unchanged.

        `on_step` is called after every step; when it returns False the client is abandoned and None is returned.

        Raises:
            DivergenceError: a loss is not finite.
        """
        model = self.module.model
        copy_into(self.method.shared(model), download.shared)
        copy_into(self.method.private(model), state.private)
        self.method.adapter.enter(model, client_id=client_id, round_idx=round_idx)
        optimizer = self.module.configure_optimizers()
        if state.optimizer is not None:
            optimizer.load_state_dict(copy.deepcopy(state.optimizer))  # it would step the given tensors themselves
        num_steps = self.num_steps(len(rows))
        order, examples = self._encode(client_id, rows, round_idx, num_steps)
        with torch_stream(self.seed, "dropout", round_idx=round_idx, client_id=client_id):
            try:
                batches, corrections = self._batches(order, examples), self._corrections(download, state)
                losses = self.steps(optimizer, batches, on_step, corrections, num_steps if self._scheduled else None)
            except DivergenceError as error:  # of an optimizer, which knows neither round nor client
                raise DivergenceError(f"round {round_idx + 1}, client {client_id}: {error}") from error
        if losses is None:
            return None
        self._require_finite(losses, client_id, round_idx)
        trained = snapshot(self.method.shared(model))
        control = self._control_after(download, trained, state, num_steps)
        private = snapshot(self.method.private(model))
        update = ClientUpdate(
            client_id=client_id,
            num_examples=len(rows),
            shared=trained,
            private=private,
            control={name: value - state.control[name] for name, value in control.items()},
            metrics={
                "train_loss": sum(losses) / len(losses),
                "num_steps": num_steps,
                "num_truncated": sum(example.truncated for example in examples.values()),
                "update_norm": distance(trained, download.shared),
                **_token_counts(order, examples),
            },
        )
        after = ClientState(
            private={name: tensor.cpu() for name, tensor in private.items()},
            control=control,
            optimizer=self._optimizer_after(optimizer),
        )
        return update, after

    def _encode(
        self, client_id: int, rows: Sequence[Row], round_idx: int, num_steps: int
    ) -> tuple[list[list[int]], dict[int, Example]]:
        """Return the row numbers of the round's steps and the examples of those rows.

        Of a large shard only the rows of this round become examples, all at once.
        """
        skip = round_idx * num_steps
        steps = training_order(len(rows), self.num_step_rows, self.seed, client_id, skip=skip, num_steps=num_steps)
        order = list(steps)
        wanted = sorted({row for step in order for row in step})
        return order, dict(zip(wanted, self.module.task.encode([rows[row] for row in wanted]), strict=True))

    def _batches(self, order: Iterable[Sequence[int]], examples: Mapping[int, Example]) -> Iterator[list[Batch]]:
        """Yield the batches of every optimizer step."""
        collate, size = self.module.task.collate, self.local.batch_size
        for step in order:
            yield [
                collate([examples[row] for row in step[start : start + size]]) for start in range(0, len(step), size)
            ]

    def steps(
        self,
        optimizer: Optimizer,
        batches: Iterable[Sequence[Batch]],
        on_step: Callable[[], bool],
        corrections: Sequence[Correction] = (),
        num_steps: int | None = None,
    ) -> list[float] | None:
        """Run the training loop, one optimizer step for each list of batches, and return its losses; None if `on_step`
        stopped it. Nothing in it waits for the device. num_steps: of a learning rate that changes; None for none.
        """
        self.module.train()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        losses = []
        for step, parts in enumerate(batches):
            if num_steps is not None:
                self._set_lr(optimizer, step, num_steps)
            loss = self._backward(parts)
            for correction in corrections:
                correction.apply()
            if self.local.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, self.local.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss)
            if not on_step():
                return None
        return torch.stack(losses).double().tolist()

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

    @property
    def _scheduled(self) -> bool:
        return self.local.schedule != "constant" or self.local.warmup > 0

    def _set_lr(self, optimizer: Optimizer, step: int, num_steps: int) -> None:
        factor = lr_factor(self.local.schedule, self.local.warmup, step, num_steps)
        for group in optimizer.param_groups:
            group["lr"] = self.local.lr * factor

    def _corrections(self, download: Download, state: ClientState) -> list[Correction]:
        """Return what is added to the gradients of the trained tensors that travel."""
        parameters = {name: self.module.trained[name] for name in download.shared if name in self.module.trained}
        corrections: list[Correction] = []
        if self.local.prox_mu:
            corrections.append(Proximal(parameters, self.local.prox_mu))
        if self.local.scaffold:
            corrections.append(ControlVariate(parameters, download.control, state.control))
        return corrections

    def initial_control(self) -> TensorDict:
        """Return the control variates before the first round; none without SCAFFOLD."""
        if not self.local.scaffold:
            return {}
        shared = self.method.shared(self.module.model)
        return initial_control({name: tensor for name, tensor in shared.items() if name in self.module.trained})

    def _control_after(
        self, download: Download, trained: Mapping[str, Tensor], state: ClientState, num_steps: int
    ) -> TensorDict:
        """Return the client's next control variate on the CPU: of the tensors that this round trained, a new one."""
        if not self.local.scaffold:
            return {}
        turn = trainable(self.module.model)
        start = {name: tensor for name, tensor in download.shared.items() if name in turn}
        changed = next_control(state.control, download.control, start, trained, num_steps, self.local.lr)
        return {**state.control, **changed}

    def _optimizer_after(self, optimizer: Optimizer) -> dict[str, Any] | None:
        if self.local.optimizer_state != "keep":
            return None
        kept: dict[str, Any] = apply_to_collection(optimizer.state_dict(), Tensor, lambda tensor: tensor.cpu())
        return kept

    @staticmethod
    def _require_finite(losses: Sequence[float], client_id: int, round_idx: int) -> None:
        for step, loss in enumerate(losses):
            if loss - loss != 0:  # NaN or infinite
                raise DivergenceError(
                    f"round {round_idx + 1}, client {client_id}: the loss is {loss} at local step {step + 1}; "
                    "lower local.lr or set local.max_grad_norm"
                )


def _token_counts(order: Iterable[Sequence[int]], examples: Mapping[int, Example]) -> dict[str, int]:
    """Return `num_tokens`, of a round's rows each time they were trained on, without padding; nothing of images."""
    counts = [examples[row].num_tokens for step in order for row in step]
    known = [count for count in counts if count is not None]
    return {"num_tokens": sum(known)} if len(known) == len(counts) else {}
