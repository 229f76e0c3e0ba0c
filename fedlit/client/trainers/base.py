"""What every way to train clients does for one of them: its rows, its batches, its optimizer and its result."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlit.algebra.pieces import largest
from fedlit.algebra.reads import Reads
from fedlit.algebra.tensors import TensorDict, on_cpu, squared_distance, standing_alone
from fedlit.client.host import ModelHost
from fedlit.client.row_order import epoch_order, steps_of_epochs, training_order
from fedlit.client.steps import ClientModule, LocalSteps, StepRange, StepTurns
from fedlit.config import LocalConfig
from fedlit.errors import DivergenceError
from fedlit.round.jobs import ClientJob, ClientResult, ClientState, Correction, LocalPart, LocalRound, Trainer
from fedlit.round.payload import MODEL, flat
from fedlit.tasks import Batch, Example
from fedlit.tasks.encoded import examples_of


@dataclass(kw_only=True)
class ClientRound:
    """One client's round: what is trained on, and what takes part.

    order: row numbers of each optimizer step. works: what each part of local training sees of it.
    """

    job: ClientJob
    order: list[list[int]]
    examples: Mapping[int, Example]
    works: list[LocalRound] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)

    @property
    def num_steps(self) -> int:
        """Optimizer steps."""
        return len(self.order)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a client's steps left on the device.

    losses: (steps,). trained: copies of the tensors that travel and of those that stay. optimizer: its state_dict, if
    it is kept.
    """

    mine: ClientRound
    losses: Tensor
    trained: tuple[TensorDict, TensorDict]
    optimizer: dict[str, Any] | None
    shares: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a client sends and keeps, and what will be read of it: losses, |update|^2, the largest magnitude sent,
    shares.
    """

    sent: dict[str, TensorDict]
    kept: dict[str, TensorDict]
    losses: Callable[[], list[float]]
    squared_update: Callable[[], list[float]]
    peak: Callable[[], list[float]] | None
    shares: Mapping[str, Callable[[], list[float]]]


@dataclass(kw_only=True)
class LocalTrainer(Trainer):
    """Trains clients on this process's model.

    parts: what takes part in local training beside the optimizer. num_rounds: of the run, for a schedule over it.
    num_step_multiples: the pooled client takes as many steps as the clients it stands for.
    on_step: called after every step of a client; it raises StopAsked to end the training.
    measures_gradients: each client's metrics have the largest gradient of its steps.
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
    measures_gradients: bool = False

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

    def prepared(self, job: ClientJob) -> ClientRound:
        """Return the rows of a client's round in their order, encoded.

        Of a large shard only the rows of this round become examples, all at once.
        """
        order = list(self.order(len(job.rows), job.client_id, job.plan.round_idx))
        wanted = sorted({row for step in order for row in step})
        examples = dict(zip(wanted, examples_of(self.module.task, job.rows, wanted), strict=True))
        return ClientRound(job=job, order=order, examples=examples)

    def begin(self, mine: ClientRound, trained: Mapping[str, nn.Parameter], optimizer: Optimizer) -> None:
        """Let the parts begin; `trained` are the live trained parameters. In the client's own stream."""
        travelling = {name: trained[name] for name in self.host.travelling()}
        mine.works = [
            LocalRound(
                parameters=travelling,
                trained=trained,
                optimizer=optimizer,
                start=mine.job.start,
                kept=mine.job.state.parts.get(part.group, {}),
                plan=mine.job.plan,
                num_steps=mine.num_steps,
                lr=self.local.lr,
            )
            for part in self.parts
        ]
        begun = [part.begin(work) for part, work in zip(self.parts, mine.works, strict=True)]
        mine.corrections = [correction for correction in begun if correction is not None]

    def batches(self, mine: ClientRound) -> Iterator[list[Batch]]:
        """Yield the batches of every optimizer step."""
        collate, size, examples = self.module.task.collate, self.local.batch_size, mine.examples
        for step in mine.order:
            yield [
                collate([examples[row] for row in step[start : start + size]]) for start in range(0, len(step), size)
            ]

    def turns(self, mine: ClientRound, parameters: Mapping[str, nn.Parameter]) -> StepTurns | None:
        """Return what lets the parameters of a round take turns by step, if they do; one client's, or stacked ones."""
        adapter = self.module.method.adapter
        if not adapter.takes_turns_by_step:
            return None
        trains = mine.job.plan.trains
        return StepTurns(
            turn=adapter.turn_of_step, trained={name: each for name, each in parameters.items() if name in trains}
        )

    def schedule(self, mine: ClientRound) -> StepRange | None:
        """Return where a round's steps stand in the schedule; None for a constant learning rate."""
        if self.local.schedule == "constant" and self.local.warmup == 0:
            return None
        num_steps = mine.num_steps
        if self.local.schedule_over == "run":
            return StepRange(first=mine.job.plan.round_idx * num_steps, total=self.num_rounds * num_steps)
        return StepRange(first=0, total=num_steps)

    def results(self, outcomes: Sequence[Outcome], seconds: Callable[[], float]) -> list[ClientResult]:
        """Return what came of clients' rounds, read from the device in one wait for all of them.

        `seconds` tells the time of each. A client whose loss is not finite is a failure.
        """
        reads = Reads()
        asked = [self._asked(outcome, reads) for outcome in outcomes]
        return [self._result(outcome, each, seconds) for outcome, each in zip(outcomes, asked, strict=True)]

    def _asked(self, outcome: Outcome, reads: Reads) -> Asked:
        """Ask for what has to be read of a client."""
        shared, private = outcome.trained
        mine, adapter = outcome.mine, self.module.method.adapter
        start: TensorDict = mine.job.start.groups[MODEL]
        sent: dict[str, TensorDict] = {MODEL: shared}
        if adapter.sends_own and shared:
            sent[MODEL] = adapter.sent(shared, private)
            start = adapter.sent(start, {name: mine.job.state.private[name].to(each) for name, each in private.items()})
        kept: dict[str, TensorDict] = {}
        for part, work in zip(self.parts, mine.works, strict=True):
            group, own = part.end(work, shared)
            sent |= {part.group: group} if part.group else {}
            kept |= {part.group: own} if own else {}
        peak = largest(flat(sent).values())
        return Asked(
            sent=sent,
            kept=kept,
            losses=reads.later(outcome.losses),
            squared_update=reads.later(squared_distance(sent[MODEL], start)) if shared else lambda: [0.0],
            peak=None if peak is None else reads.later(peak),
            shares={name: reads.later(value) for name, value in outcome.shares.items()},
        )

    def _result(self, outcome: Outcome, asked: Asked, seconds: Callable[[], float]) -> ClientResult:
        mine, losses = outcome.mine, asked.losses()
        failure = not_finite(losses, mine.job)
        if failure is not None:
            return ClientResult(client_id=mine.job.client_id, payload=None, failure=failure, seconds=seconds())
        _, private = outcome.trained
        return ClientResult(
            client_id=mine.job.client_id,
            payload=asked.sent,
            peak=None if asked.peak is None else asked.peak()[0],
            private=private,
            state=ClientState(
                private=on_cpu(private),
                parts=asked.kept,
                optimizer=outcome.optimizer and _all_on_cpu(outcome.optimizer),
            ),
            metrics={
                **_mean_loss(losses, mine),
                "num_steps": mine.num_steps,
                "num_truncated": sum(example.truncated for example in mine.examples.values()),
                "update_norm": asked.squared_update()[0] ** 0.5,
                **_token_counts(mine),
                **{name: read()[0] for name, read in asked.shares.items()},
            },
            seconds=seconds(),
        )

    def order(self, num_rows: int, client_id: int, round_idx: int) -> Iterator[list[int]]:
        """Yield the row numbers of each optimizer step, of the one in which an epoch ends only those that are left."""
        size, seed, epochs = self._num_step_rows, self.seed, self.local.epochs
        if epochs is not None:
            return epoch_order(num_rows, size, seed, client_id, round_idx=round_idx, num_epochs=epochs)
        num_steps = self.num_steps(num_rows)
        return training_order(num_rows, size, seed, client_id, skip=round_idx * num_steps, num_steps=num_steps)


def go_on(optimizer: Optimizer, state: Mapping[str, Any] | None) -> Optimizer:
    """Return a new optimizer that goes on where a client's last round ended, or begins if nothing was kept."""
    if state is None:
        return optimizer
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(copy.deepcopy(dict(state)))  # it would step the given tensors themselves
    # A schedule has left its last rates in the kept groups.
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        group.pop("initial_lr", None)
    return optimizer


def not_finite(losses: Sequence[float], job: ClientJob) -> DivergenceError | None:
    """Return what is wrong with the losses of a client's round, if anything is."""
    for step, loss in enumerate(losses):
        if loss - loss != 0:  # NaN or infinite
            return DivergenceError(
                what="the loss",
                value=loss,
                round_number=job.plan.round_idx + 1,
                client_id=job.client_id,
                step=step + 1,
            )
    return None


def _all_on_cpu(state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state_dict with all its tensors on the CPU, in one transfer for each type. They lie as a
    file gives them back: one with gaps keeps them, one without begins an allocation.
    """
    found: TensorDict = {}

    def note(tensor: Tensor) -> Tensor:
        found[str(len(found))] = tensor
        return tensor

    apply_to_collection(state, Tensor, note)
    copies = iter([standing_alone(copy) if copy.is_contiguous() else copy for copy in on_cpu(found).values()])
    moved: dict[str, Any] = apply_to_collection(state, Tensor, lambda _tensor: next(copies))
    return moved


def _mean_loss(losses: Sequence[float], mine: ClientRound) -> dict[str, float]:
    """Return `train_loss`, the mean over the steps that have rows; nothing where none has."""
    known = [loss for loss, rows in zip(losses, mine.order, strict=True) if rows]
    return {"train_loss": sum(known) / len(known)} if known else {}


def _token_counts(mine: ClientRound) -> dict[str, int]:
    """Return `num_tokens`, of a round's rows each time they were trained on, without padding; nothing of images."""
    counts = [mine.examples[row].num_tokens for step in mine.order for row in step]
    known = [count for count in counts if count is not None]
    return {"num_tokens": sum(known)} if len(known) == len(counts) else {}
