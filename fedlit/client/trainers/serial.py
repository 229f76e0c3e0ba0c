"""Clients one after the other on one process: each is put into its one model, trained, and taken out again."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.optim import Optimizer

from fedlit.algebra.tensors import TensorDict, distance, on_cpu
from fedlit.client.host import ModelHost
from fedlit.client.row_order import epoch_order, steps_of_epochs, training_order
from fedlit.client.steps import ClientModule, LocalSteps, StepRange
from fedlit.config import LocalConfig
from fedlit.errors import DivergenceError
from fedlit.round.jobs import ClientJob, ClientResult, ClientState, LocalPart, LocalRound, Trainer
from fedlit.round.payload import MODEL
from fedlit.seeding import torch_stream
from fedlit.tasks import Batch, Example
from fedlit.tasks.encoded import examples_of


@dataclass(kw_only=True)
class SerialTrainer(Trainer):
    """Trains clients one after the other.

    parts: what takes part in local training beside the optimizer. num_rounds: of the run, for a schedule over it.
    num_step_multiples: the pooled client takes as many steps as the clients it stands for.
    on_step: called after every step; it raises StopAsked to end the training.
    """

    host: ModelHost
    module: ClientModule
    steps: LocalSteps
    local: LocalConfig
    seed: int
    num_rounds: int
    parts: Sequence[LocalPart] = ()
    num_step_multiples: int = 1
    on_step: Callable[[], None] = lambda: None

    def num_steps(self, num_examples: int) -> int:
        """Return the optimizer steps of one client in one round."""
        if self.local.epochs is not None:
            return steps_of_epochs(num_examples, self._num_step_rows, self.local.epochs)
        assert self.local.steps is not None
        return self.local.steps * self.num_step_multiples

    @property
    def _num_step_rows(self) -> int:
        """Rows of one optimizer step, for a client that has as many."""
        return self.local.batch_size * self.local.accumulate

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        """Yield the result of each job, in their order; one whose loss is not finite is a failure."""
        for job in jobs:
            started_s = time.perf_counter()
            try:
                yield self._train(job, started_s)
            except DivergenceError as error:
                yield ClientResult(
                    client_id=job.client_id, payload=None, failure=error, seconds=time.perf_counter() - started_s
                )

    def _train(self, job: ClientJob, started_s: float) -> ClientResult:
        """Train one client; what it received and its own state stay unchanged."""
        client_id, round_idx = job.client_id, job.plan.round_idx
        self.host.load_client(job)
        optimizer = self._optimizer(job.state)
        num_steps = self.num_steps(len(job.rows))
        order, examples = self._encode(job, num_steps)
        works = [self._work(part, job, optimizer, num_steps) for part in self.parts]
        with torch_stream(self.seed, "dropout", round_idx=round_idx, client_id=client_id):
            begun = [part.begin(work) for part, work in zip(self.parts, works, strict=True)]
            corrections = [correction for correction in begun if correction is not None]
            schedule = self._schedule(round_idx, num_steps)
            try:
                losses = self.steps.run(optimizer, self._batches(order, examples), self.on_step, corrections, schedule)
            except DivergenceError as error:  # of an optimizer, which knows neither round nor client
                raise error.at(round_number=round_idx + 1, client_id=client_id) from error
        _require_finite(losses, client_id, round_idx)
        shared, private = self.host.take()
        sent: dict[str, TensorDict] = {MODEL: shared}
        kept: dict[str, TensorDict] = {}
        for part, work in zip(self.parts, works, strict=True):
            group, own = part.end(work, shared)
            sent |= {part.group: group} if part.group else {}
            kept |= {part.group: own} if own else {}
        return ClientResult(
            client_id=client_id,
            payload=sent,
            private=private,
            state=ClientState(
                private=on_cpu(private),
                parts=kept,
                optimizer=self._optimizer_after(optimizer),
            ),
            metrics={
                "train_loss": sum(losses) / len(losses),
                "num_steps": num_steps,
                "num_truncated": sum(example.truncated for example in examples.values()),
                "update_norm": distance(shared, job.start.groups[MODEL]),
                **_token_counts(order, examples),
            },
            seconds=time.perf_counter() - started_s,
        )

    def _work(self, part: LocalPart, job: ClientJob, optimizer: Optimizer, num_steps: int) -> LocalRound:
        return LocalRound(
            parameters=self.host.travelling(),
            optimizer=optimizer,
            start=job.start,
            kept=job.state.parts.get(part.group, {}),
            plan=job.plan,
            num_steps=num_steps,
            lr=self.local.lr,
        )

    def _optimizer(self, state: ClientState) -> Optimizer:
        """Return the client's optimizer: a new one, or one that goes on where its last round ended."""
        optimizer = self.module.configure_optimizers()
        if state.optimizer is not None:
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(copy.deepcopy(state.optimizer))  # it would step the given tensors themselves
            # A schedule has left its last rates in the kept groups.
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
                group.pop("initial_lr", None)
        return optimizer

    def _schedule(self, round_idx: int, num_steps: int) -> StepRange | None:
        """Return where a round's steps stand in the schedule; None for a constant learning rate."""
        if self.local.schedule == "constant" and self.local.warmup == 0:
            return None
        if self.local.schedule_over == "run":
            return StepRange(first=round_idx * num_steps, total=self.num_rounds * num_steps)
        return StepRange(first=0, total=num_steps)

    def _encode(self, job: ClientJob, num_steps: int) -> tuple[list[list[int]], dict[int, Example]]:
        """Return the row numbers of the round's steps and the examples of those rows.

        Of a large shard only the rows of this round become examples, all at once.
        """
        order = list(self._order(len(job.rows), job.client_id, job.plan.round_idx, num_steps))
        wanted = sorted({row for step in order for row in step})
        return order, dict(zip(wanted, examples_of(self.module.task, job.rows, wanted), strict=True))

    def _order(self, num_rows: int, client_id: int, round_idx: int, num_steps: int) -> Iterator[list[int]]:
        """Yield the row numbers of each optimizer step, of the one in which an epoch ends only those that are left."""
        size, seed, epochs = self._num_step_rows, self.seed, self.local.epochs
        if epochs is not None:
            return epoch_order(num_rows, size, seed, client_id, round_idx=round_idx, num_epochs=epochs)
        return training_order(num_rows, size, seed, client_id, skip=round_idx * num_steps, num_steps=num_steps)

    def _batches(self, order: Iterable[Sequence[int]], examples: Mapping[int, Example]) -> Iterator[list[Batch]]:
        """Yield the batches of every optimizer step."""
        collate, size = self.module.task.collate, self.local.batch_size
        for step in order:
            yield [
                collate([examples[row] for row in step[start : start + size]]) for start in range(0, len(step), size)
            ]

    def _optimizer_after(self, optimizer: Optimizer) -> dict[str, Any] | None:
        if self.local.optimizer_state != "keep":
            return None
        kept: dict[str, Any] = apply_to_collection(optimizer.state_dict(), Tensor, lambda tensor: tensor.cpu())
        return kept


def _require_finite(losses: Sequence[float], client_id: int, round_idx: int) -> None:
    for step, loss in enumerate(losses):
        if loss - loss != 0:  # NaN or infinite
            raise DivergenceError(
                what="the loss", value=loss, round_number=round_idx + 1, client_id=client_id, step=step + 1
            )


def _token_counts(order: Iterable[Sequence[int]], examples: Mapping[int, Example]) -> dict[str, int]:
    """Return `num_tokens`, of a round's rows each time they were trained on, without padding; nothing of images."""
    counts = [examples[row].num_tokens for step in order for row in step]
    known = [count for count in counts if count is not None]
    return {"num_tokens": sum(known)} if len(known) == len(counts) else {}
