"""The round loop, the only owner of time.

A cohort trains from the server's shared tensors, the rule maps (cohort, server) to the next server, which is
evaluated, recorded and checkpointed. The server is a value replicated on every process: nothing is broadcast, and a
checksum shows each round that the replicas agree. Rounds are counted from 0 in streams (`round_idx`); record r tells
of the model after r rounds.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedlit.algebra.tensors import checksum, copy_into, distance, snapshot
from fedlit.client.trainer import ClientState, LocalTrainer
from fedlit.config import RunConfig
from fedlit.data.prompts import Row
from fedlit.errors import DivergenceError, UserError
from fedlit.lab.callbacks import Callback
from fedlit.models import Backbone
from fedlit.process import communication
from fedlit.process.interrupt import OutOfMemory, StoppedBySignal, StopRequest, is_out_of_memory, out_of_memory
from fedlit.round.best_round import BestRound
from fedlit.round.cohort import sample_cohort
from fedlit.round.evaluation import ClientModels, Evaluator
from fedlit.round.exchange import Exchange, RoundCohort
from fedlit.run.checkpoint import Checkpoints
from fedlit.run.export import export_result
from fedlit.run.folder import Record, RunFolder
from fedlit.tasks import Sample


@dataclass(kw_only=True)
class _LocalWork:
    """What one process did in a round: small values, gathered from all."""

    reports: dict[int, dict[str, float]] = field(default_factory=dict)
    clients_s: float = 0.0
    problem: DivergenceError | OutOfMemory | None = None


class Federation:
    """One run: a population of clients, one server, and this process's share of the work.

    rows: the training rows of every client, by client id; a process looks up those it trains.
    initial_facts: what the first record holds of the adapter's initialisation.
    reload: loads the pretrained backbone anew, for the export of a result that changes it.

    A client with a state that outlives the round (private tensors, a kept optimizer) always trains on the same process.
    Clients without one are dealt evenly, cohort by cohort.
    """

    def __init__(
        self,
        *,
        config: RunConfig,
        exchange: Exchange,
        cohort_size: int,
        trainer: LocalTrainer,
        evaluator: Evaluator,
        rows: Sequence[Sequence[Row]],
        initial_facts: Mapping[str, float],
        reload: Callable[[], Backbone],
    ) -> None:
        self.config = config
        self.exchange = exchange
        self.method = method = exchange.method
        self.cohort_size = cohort_size
        self.trainer = trainer
        self.evaluator = evaluator
        self.rows = rows
        self.folder = RunFolder(config)
        self.callbacks: Sequence[Callback] = ()
        self.stop = StopRequest()
        self.checkpoints = Checkpoints(folder=self.folder.checkpoints, keep=config.run.keep_checkpoints)
        self.model = trainer.module.model
        self.initial_facts = initial_facts
        self.reload = reload
        control = trainer.initial_control()
        self.server = self.exchange.first_server(control)
        initial = ClientState(
            private=snapshot(method.private(self.model), device="cpu"), control=snapshot(control, device="cpu")
        )
        self.stateful = bool(initial.private or control) or config.local.optimizer_state == "keep"
        mine = communication.share(range(len(self.rows))) if self.stateful else ()
        self.clients = dict.fromkeys(mine, initial)
        self.best = BestRound.of(config)
        self._saved_round: int | None = None
        self._num_rounds_here = 0

    def resume(self) -> tuple[str, ...]:
        """Take up the newest intact checkpoint, if there is one; return what a person should know about it."""
        path, notices = self.checkpoints.newest()
        if communication.process_index() == 0:
            self.folder.restore_records(path / "metrics.jsonl" if path else None)
        communication.barrier()
        if path is None:
            return tuple(notices)
        self._load(path)
        records = self.folder.records() if communication.process_index() == 0 else []
        self.best.see(communication.gather_objects(records)[0])
        self._saved_round = self.server.round_idx
        return (*notices, f"resumed after round {self._saved_round} of {self.config.num_rounds}")

    def _load(self, checkpoint: Path) -> None:
        server, stored = self.checkpoints.load(checkpoint, self.trainer.fabric.device, set(self.clients))
        self.server = server.replace(layers=self.server.layers)
        self.clients.update(stored)
        self.exchange.load_server(self.server)

    def run(self) -> None:
        """Evaluate the untrained model, then train round after round, to the last or until patience is used up.

        Raises:
            StoppedBySignal: a signal asked for it, noticed between local steps and between batches of an evaluation.
            DivergenceError: a client's loss or update is not finite; the last checkpoint is intact.
            OutOfMemory: some client's training does not fit.
        """
        if self._saved_round is None:
            facts = {**self.initial_facts, "eval/num_truncated": self.evaluator.num_truncated}
            self._finish({"round": 0, **facts}, changed=set(), started_s=time.perf_counter())
        while self.server.round_idx < self.config.num_rounds and not self.best.stalled:
            self._stop_if_asked()
            started_s = time.perf_counter()
            cohort, record = self._train()
            trained_s = time.perf_counter()
            record |= self._aggregate(cohort)
            record["time/train_s"] = trained_s - started_s
            record["time/aggregate_s"] = time.perf_counter() - trained_s
            self._finish(record, changed=set(cohort.client_ids) & set(self.clients), started_s=started_s)

    def _train(self) -> tuple[RoundCohort, Record]:
        """Let every client of this round's cohort train from the server's state."""
        round_idx = self.server.round_idx
        ids = sample_cohort(len(self.rows), self.cohort_size, self.config.seed, round_idx)
        cohort = self.exchange.cohort(ids, self.server)
        mine = (
            [client_id for client_id in ids if client_id in self.clients] if self.stateful else communication.share(ids)
        )
        num_steps = sum(self.trainer.num_steps(len(self.rows[client_id])) for client_id in mine)
        self.tell(lambda callback: callback.on_round_start(round_idx + 1, num_steps))
        work, states = _LocalWork(), {}
        try:
            for client_id in mine:
                state = self.clients.get(client_id, ClientState())
                download = self.exchange.download(self.server, client_id)
                started_s = time.perf_counter()
                result = self.trainer.train(client_id, self.rows[client_id], download, state, round_idx, self._on_step)
                if result is None:
                    self.stop.has_skipped = True
                    break
                work.clients_s += time.perf_counter() - started_s
                update, states[client_id] = result
                cohort.add(update, download, state.private)
                work.reports[client_id] = update.metrics
        except DivergenceError as error:
            work.problem = error
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            work.problem = out_of_memory(error, f"round {round_idx + 1}, process {communication.process_index()}")
        everyone = self._agree(work)
        reports = {client_id: metrics for part in everyone for client_id, metrics in part.reports.items()}
        record: Record = {"round": round_idx + 1, "time/clients_s": sum(part.clients_s for part in everyone)}
        if all("num_tokens" in metrics for metrics in reports.values()):
            record["clients/num_tokens"] = sum(metrics["num_tokens"] for metrics in reports.values())
        if self.stateful:
            self.clients.update(states)
        for client_id in ids:
            record.update({f"client/{client_id}/{name}": value for name, value in reports[client_id].items()})
        return cohort, record

    def _agree(self, work: _LocalWork) -> list[_LocalWork]:
        """Return the work of all processes, or end the round on every one of them for the same reason."""
        everyone = communication.gather_objects(work)
        for problem in (part.problem for part in everyone):
            if problem is not None:
                raise type(problem)(f"{problem} (the checkpoint after round {self.server.round_idx} is intact)")
        self._stop_if_asked(only_if_skipped=True)
        return everyone

    def _stop_if_asked(self, *, only_if_skipped: bool = False) -> None:
        """Stop on every process if one was asked to or, with `only_if_skipped`, if one has left out work for it."""
        name = self.stop.signal_name if self.stop.has_skipped or not only_if_skipped else None
        for signal_name in communication.gather_objects(name):
            if signal_name is not None:
                saved, last = self._saved_round, self.config.num_rounds
                how_far = f"after round {saved} of {last}, which is saved" if saved else "before the first round's end"
                raise StoppedBySignal(f"{signal_name} {how_far}", signal_name, self._num_rounds_here)

    def _aggregate(self, cohort: RoundCohort) -> Record:
        """Take the server to its next state, and load it into the model."""
        before, self.server = self.server, cohort.aggregate()
        state = self.server
        digest = checksum(
            {
                f"{part}/{name}": tensor
                for part in ("shared", "frozen", "optimizer", "clients")
                for name, tensor in getattr(state, part).items()
            }
        )
        if len(set(communication.gather_objects(digest))) > 1:
            raise RuntimeError(
                f"round {state.round_idx}: the processes hold different server states; "
                "check that all nodes run the same hardware and library versions"
            )
        record: Record = {
            "aggregation/num_clients": len(cohort.client_ids),
            "aggregation/update_norm": distance(state.shared, before.shared),
            "aggregation/checksum": digest[:16],
            **self.exchange.traffic(cohort.client_ids, before),
            **cohort.deviation(state, compute=communication.process_index() == 0),
        }
        self.exchange.load_server(state)
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
        self.best.see([record])
        if communication.process_index() == 0:
            self.folder.append(record)
        kept = self.best.number if self.config.run.result == "best" else None
        self.checkpoints.save(self.server, self.clients, changed, self.folder.records_path, also_keep=kept)
        self._saved_round = self.server.round_idx
        self._num_rounds_here += self.server.round_idx > 0
        self.tell(lambda callback: callback.on_round_end(record, samples))

    def _evaluate(self) -> tuple[Record, list[Sample]]:
        """Score the global model or, where tensors are private, every client's own: on the global test set, on every
        client's test part, or on both.
        """
        round_number, last = self.server.round_idx, self.config.num_rounds
        if round_number % self.config.eval.every and round_number != last:
            return {}, []
        record: Record = {}
        if self.config.data.task == "causal_lm":
            record["eval/protocol"] = self.config.eval.protocol
        models = None
        if self.method.private(self.model):
            population = range(len(self.rows))
            # Before the first round all clients have one model.
            mine = self.clients.keys() if round_number else None
            models = ClientModels(population=population, mine=mine, load=self._load_client)
        own_batches = {client_id: self.stop.until(own) for client_id, own in self.evaluator.own_batches.items()}
        evaluator = replace(self.evaluator, batches=self.stop.until(self.evaluator.batches), own_batches=own_batches)
        scores, samples = evaluator.score(self.config.eval.on, models)
        self._stop_if_asked(only_if_skipped=True)
        return record | scores, samples

    def _load_client(self, client_id: int) -> None:
        copy_into(self.method.private(self.model), self.clients[client_id].private)

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
        if not self.method.private(self.model):
            if communication.process_index() == 0:
                self._export(self.folder.adapter)
        else:
            for client_id in self.clients:
                self._load_client(client_id)
                self._export(self.folder.adapter / f"client-{client_id:05d}")
        communication.barrier()

    def _export(self, folder: Path) -> None:
        export_result(
            adapter=self.method.adapter,
            model=self.model,
            server=self.server,
            folder=folder,
            form=self.config.run.export,
            reload=self.reload,
            head=self.method.head(self.model),
        )

    def _on_step(self) -> bool:
        self.tell(lambda callback: callback.on_step())
        return self.stop.signal_name is None

    def tell(self, event: Callable[[Callback], None]) -> None:
        """Let every callback hear of an event; only process 0 has callbacks."""
        for callback in self.callbacks:
            event(callback)
