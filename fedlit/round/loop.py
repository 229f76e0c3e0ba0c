"""The round loop, the only owner of time.

A round is a pipeline of values. Its plan is made from names alone; jobs go to the trainer, results come back in any
order, pass the transforms and are summed as integers; the rule maps the mean, or the stack, and the server to the next
server; observers look on. The server is a value replicated on every process: nothing is broadcast, and a checksum shows
each round that the replicas agree. Rounds are counted from 0 in streams (`round_idx`); record r tells of the model
after r rounds.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from fedlit.algebra.tensors import checksum, first_not_finite
from fedlit.client.host import ModelHost
from fedlit.config import RunConfig
from fedlit.data.prompts import Row
from fedlit.errors import BROKEN_BACKBONE, SMALLER_STEPS, DivergenceError, OutOfMemory, UserError
from fedlit.process import communication
from fedlit.process.interrupt import StopAsked, StoppedBySignal, StopReason, StopRequest
from fedlit.round.best_round import BestRound
from fedlit.round.callback import Callback, Stop
from fedlit.round.client_models import ClientModels
from fedlit.round.cohort import Cohort
from fedlit.round.due_scores import DueScores
from fedlit.round.evaluation import Evaluator
from fedlit.round.examples import hides_rows
from fedlit.round.jobs import ClientJob, ClientState, Trainer
from fedlit.round.observers import Observer, RoundView
from fedlit.round.payload import MODEL, flat
from fedlit.round.plan import RoundPlan, Schedule
from fedlit.round.private_rounds import PrivateRounds
from fedlit.round.server import ServerState
from fedlit.round.step import ServerStep
from fedlit.round.taking_part import record_of_step, record_of_work, reports_of
from fedlit.round.work import LocalWork, RoundWork, clients_here
from fedlit.store.checkpoint import Checkpoints
from fedlit.store.clients import split_clients
from fedlit.store.export import Exporter
from fedlit.store.folder import RunFolder
from fedlit.store.records import Record, count_records
from fedlit.tasks import Sample


@dataclass(kw_only=True)
class Federation:
    """One run: a population of clients, one server, and this process's share of the work.

    rows: the training rows of every client, by client id; a process looks up those it trains.
    server: its state before the first round.
    clients: those with a state that outlives the round (private tensors, a kept optimizer), which live on this process
    and always train here; None where clients keep nothing and are dealt evenly, cohort by cohort.
    evaluator, validator: score the model on the test set and, where there is one, on the set that rounds are chosen on.
    initial_facts: what the first record holds of the adapter's initialisation and of how the scores are made.
    """

    config: RunConfig
    schedule: Schedule
    host: ModelHost
    trainer: Trainer
    step: ServerStep
    observers: Sequence[Observer]
    evaluator: Evaluator
    exporter: Exporter
    rows: Sequence[Sequence[Row]]
    server: ServerState
    clients: dict[int, ClientState] | None
    initial_facts: Mapping[str, float | str]
    folder: RunFolder
    checkpoints: Checkpoints
    best: BestRound
    privacy: PrivateRounds
    validator: Evaluator | None = None
    callbacks: Sequence[Callback] = ()
    stop: StopRequest = field(default_factory=StopRequest)
    _num_rounds_here: int = 0

    def resume(self) -> tuple[str, ...]:
        """Take up the newest intact checkpoint, if there is one; return what a person should know about it."""
        path, notices = self.checkpoints.newest()
        if communication.process_index() == 0:
            if path is None and (done := count_records(self.folder.path) - 1) > 0:
                rounds = "1 finished round" if done == 1 else f"{done} finished rounds"
                notices = [*notices, f"no checkpoint is left of {rounds}: the run begins anew"]
            self.folder.restore_records(self.checkpoints.records(path) if path else None)
        communication.barrier()
        if path is None:
            return tuple(notices)
        self._load(path)
        records = self.folder.records() if communication.process_index() == 0 else []
        self.best.see(communication.gather_objects(records)[0])
        self.checkpoints.saved_round = self.server.round_idx
        return (*notices, f"resumed after round {self.server.round_idx} of {self.config.num_rounds}")

    def _load(self, checkpoint: Path) -> None:
        mine = self.clients or {}
        server, stored = self.checkpoints.load(checkpoint, self.evaluator.fabric.device, set(mine))
        if any(layer.weight in server.frozen for layer in self.server.layers):
            raise UserError(
                f"{checkpoint}: an older version of fedlit folded its rounds into the weights, which this one keeps "
                "beside them; finish the run with that version, or start it anew in another run.dir"
            )
        self.server = replace(server, layers=self.server.layers)
        mine.update(stored)
        self.host.load_server(self.server)

    def run(self) -> None:
        """Evaluate the untrained model, then train round after round, to the last or until patience is used up.

        Raises:
            StoppedBySignal: a signal asked for it, noticed between local steps and between batches of an evaluation.
            DivergenceError: a loss, an update or the server is not finite; the last checkpoint is intact.
            OutOfMemory: some client's training does not fit.
        """
        with self.checkpoints.awaited():
            if self.checkpoints.saved_round is None:
                facts = {**self.initial_facts, "eval/num_truncated": self.evaluator.num_truncated}
                self._finish({"round": 0, **facts}, changed=set(), started_s=time.perf_counter())
            while not (self.best.stalled or self._is_last):
                self._stop_if_asked()
                started_s = time.perf_counter()
                plan = self.schedule.plan(self.server.round_idx)
                cohort, everyone, record = self._train(plan)
                trained_s = time.perf_counter()
                record |= self._aggregate(plan, cohort, everyone)
                record["time/train_s"] = trained_s - started_s
                record["time/aggregate_s"] = time.perf_counter() - trained_s
                changed = {*cohort.client_ids, *plan.late} & set(self.clients or {})
                self._finish(record, changed=changed, started_s=started_s)

    @property
    def _is_last(self) -> bool:
        """Whether no round follows: all are run, or the next would spend more than the privacy budget."""
        done = self.server.round_idx >= self.config.num_rounds
        return done or not self.privacy.allows(self.server, self.schedule)

    def _train(self, plan: RoundPlan) -> tuple[Cohort, list[LocalWork], Record]:
        """Let every client of the plan train from the server's state."""
        method, server = self.host.method, self.server
        cohort = Cohort(
            plan,
            {MODEL: server.shared, **{name: server.group(name) for name in method.groups}},
            keeps=method.rule.stacks or method.rule.asks_again,
            on_server=partial(method.transforms.on_server, server=server, plan=plan),
            release=self.privacy.release(plan, server),
            channel=self.privacy.channel(plan),
            num_sums=method.rule.num_sums(server),
        )
        clients = self.clients
        mine = clients_here(plan, self.trainer, clients)
        num_steps = sum(self.trainer.num_steps(len(self.rows[client_id])) for client_id in mine)
        self.tell(lambda callback: callback.on_round_start(plan.round_idx + 1, num_steps))
        round_work = RoundWork(
            trainer=self.trainer,
            transforms=method.transforms,
            observers=self.observers,
            drops_failures=self.config.cohort.failures == "drop",
        )
        jobs = (self._job(client, plan) for client in mine)
        everyone = self._agree(round_work.run(plan, server, cohort, jobs, clients))
        if clients is not None:
            clients.update(round_work.states)
        reports = reports_of(everyone)
        cohort.close(tuple(reports), {client: int(each.get("num_steps", 0)) for client, each in reports.items()})
        return cohort, everyone, record_of_work(plan, everyone)

    def _job(self, client_id: int, plan: RoundPlan) -> ClientJob:
        method, server = self.host.method, self.server
        start = method.rule.start(server, client_id)
        groups = {**start.groups, **{name: server.group(name) for name in method.groups}}
        return ClientJob(
            client_id=client_id,
            rows=self.rows[client_id],
            start=method.transforms.start(replace(start, groups=groups), server, client_id),
            state=ClientState() if self.clients is None else self.clients[client_id],
            plan=plan,
        )

    def _agree(self, work: LocalWork) -> list[LocalWork]:
        """Return the work of all processes, or end the round on every one of them for the same reason."""
        everyone = communication.gather_objects(work)
        problems = [part.problem for part in everyone if part.problem is not None]
        for problem in problems:
            if isinstance(problem, DivergenceError):
                raise self._told(problem)
            if isinstance(problem, OutOfMemory):
                raise problem.at(checkpoint_round=self.checkpoints.intact_round())
        for problem in problems:
            if isinstance(problem, StopAsked):
                raise self._stopped(problem.reason)
        return everyone

    def _told(self, error: DivergenceError) -> DivergenceError:
        """Return the error with the remedy for this run and the checkpoint that is left."""
        remedy = SMALLER_STEPS if self.config.server.optimizer != "none" else None
        remedy = remedy if error.round_number else BROKEN_BACKBONE
        return error.at(checkpoint_round=self.checkpoints.intact_round(), remedy=remedy)

    def _stop_if_asked(self) -> None:
        """Stop on every process if one was asked to."""
        for reason in communication.gather_objects(self.stop.reason):
            if reason is not None:
                raise self._stopped(reason)

    def _stopped(self, reason: StopReason) -> StoppedBySignal:
        """Return how the run ends. In a folder that another run has taken over nothing is written any more."""
        lost = reason is StopReason.FOLDER_LOST
        return StoppedBySignal(
            reason=reason,
            saved_round=self.checkpoints.close(leave=True) if lost else self.checkpoints.settle(),
            num_rounds=self.config.num_rounds,
            num_rounds_here=self._num_rounds_here,
        )

    def _aggregate(self, plan: RoundPlan, cohort: Cohort, everyone: Sequence[LocalWork]) -> Record:
        """Take the server to its next state, load it into the model, and let the observers tell of it."""
        before = self.server
        self.server = after = self.privacy.booked(cohort, before, self.step(cohort, before, plan))
        digest = checksum(flat(after.parts()))
        if len(set(communication.gather_objects(digest))) > 1:
            raise RuntimeError(
                f"round {after.round_idx}: the processes hold different server states; "
                "check that all nodes run the same hardware and library versions"
            )
        if (name := first_not_finite(after.shared)) is not None:
            raise self._told(DivergenceError(what=f"the server's {name}", round_number=after.round_idx))
        record: Record = record_of_step(before, after, len(cohort.client_ids), digest)
        for index, observer in enumerate(self.observers):
            notes = {client: noted[index] for part in everyone for client, noted in part.notes.items()}
            record |= observer.record(RoundView(plan=plan, before=before, after=after, cohort=cohort, notes=notes))
        self.host.load_server(after)
        return record

    def _finish(self, record: Record, changed: set[int], started_s: float) -> None:
        """Evaluate, record and checkpoint the model after a round (or before the first) that began at `started_s`."""
        evaluating_s = time.perf_counter()
        scores, samples = self._evaluate()
        record |= scores
        now_s = time.perf_counter()
        record["time/evaluate_s"] = now_s - evaluating_s
        record["time/round_s"] = now_s - started_s
        record["time/devices_s"] = (now_s - started_s) * communication.num_processes()
        record, clients = split_clients(record, len(self.rows))
        self.best.see([record])
        examples = self.evaluator.kept.gathered() if scores and self.evaluator.kept is not None else None
        if communication.process_index() == 0:
            if examples is not None:
                self.folder.keep_examples(self.server.round_idx, examples.samples, examples.scores)
            self.folder.append(record, clients)
        kept = self.best.number if self.config.run.result == "best" else None
        self.checkpoints.save(self.server, self.clients or {}, changed, self.folder.records_path, also_keep=kept)
        self._num_rounds_here += self.server.round_idx > 0
        shown = [] if hides_rows(self.config) else samples
        self.tell(lambda callback: callback.on_round_end(record, shown))

    def _evaluate(self) -> tuple[Record, list[Sample]]:
        """Score the global model or, where tensors are private, every client's own: on the validation set, if there
        is one, then on the global test set, on every client's test part, or on both, if these are due.
        """
        round_number = self.server.round_idx
        models: ClientModels | None = None
        if self.host.has_private:
            assert self.clients is not None
            models = ClientModels(
                population=range(len(self.rows)),
                # Before the first round all clients have one model.
                mine=self.clients.keys() if round_number else None,
                load=self.load_client,
                groups=self.trainer.together,
                load_together=self._loaded_together,
            )
        due = DueScores(config=self.config, evaluator=self.evaluator, validator=self.validator, best=self.best)
        try:
            return due.of(round_number, models, self.stop.watch, is_last=self._is_last)
        except StopAsked as asked:  # on every process
            raise self._stopped(asked.reason) from None
        except DivergenceError as error:  # on every process
            raise self._told(error.at(round_number=round_number)) from error

    def load_client(self, client_id: int) -> None:
        """Put a client's private tensors into the model."""
        self.host.load_model_of(self.server, client_id, (self.clients or {})[client_id].private)

    def _loaded_together(self, client_ids: Sequence[int]) -> AbstractContextManager[None]:
        return self.host.models_of(self.server, {each: (self.clients or {})[each].private for each in client_ids})

    def export(self) -> None:
        """Write the result; one a client, in folders of their own, where tensors are private.

        Raises:
            UserError: it is to be the best round's, whose checkpoint is gone.
        """
        if self.config.run.result == "best" and self.best.number not in (None, self.server.round_idx):
            path = self.checkpoints.of_round(self.best.number)
            if path is None:
                raise UserError(
                    f"run.result=best: the checkpoint of round {self.best.number} is gone; give run.result=last"
                )
            self._load(path)
        records = communication.gather_objects(self.folder.records() if communication.process_index() == 0 else [])[0]
        if not self.host.has_private:
            if communication.process_index() == 0:
                self.exporter.write(self.server, self.folder.adapter, records)
        else:
            for client_id in self.clients or {}:
                self.load_client(client_id)
                folder = self.folder.adapter / f"client-{client_id:05d}"
                self.exporter.write(self.server, folder, records, client_id)
        communication.barrier()

    def export_newest(self, folder: Path, client_id: int | None = None) -> int | None:
        """Write the result as of the newest checkpoint into a folder beside the run, in one process that does not
        train; the run's own folder stays as it is. `client_id` names a client of this run with private tensors.

        Returns:
            The checkpoint's round; None if there is no checkpoint.
        """
        path, _ = self.checkpoints.newest()
        if path is None:
            return None
        self._load(path)
        if client_id is not None:
            self.load_client(client_id)
        self.exporter.write(self.server, folder, self.folder.records(), client_id)
        return self.server.round_idx

    def on_step(self) -> None:
        """A local step is done: tell of it, and end the training if the run is to stop."""
        self.tell(lambda callback: callback.on_step())
        self.stop.check()

    def tell(self, event: Callable[[Callback], None]) -> None:
        """Let every callback hear of an event; only process 0 has callbacks. One that raises Stop ends the run as a
        signal would: all processes are told at the next safe point.
        """
        for callback in self.callbacks:
            try:
                event(callback)
            except Stop:
                self.stop.ask(StopReason.CALLBACK)
