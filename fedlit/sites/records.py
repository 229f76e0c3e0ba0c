"""The centre's run folder: scores, records, checkpoints and the final adapter, as `fedlit run` would leave them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedlit.assembly import evaluated_clients
from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.inputs import Inputs
from fedlit.partition.shards import partition_record
from fedlit.planning import Plan
from fedlit.process.storage import remove_leftovers, write_atomically
from fedlit.round.best_round import BestRound
from fedlit.round.client_models import ClientModels
from fedlit.round.due_scores import DueScores
from fedlit.round.evaluation import OWN_VALIDATION, VALIDATION, Batches, Evaluator
from fedlit.round.over_clients import Scores
from fedlit.round.server import ServerState
from fedlit.scores import chosen_on
from fedlit.sites.workplace import Workplace
from fedlit.store.checkpoint import Checkpoints
from fedlit.store.clients import split_clients
from fedlit.store.export import Exporter
from fedlit.store.folder import RunFolder
from fedlit.store.layout import make_folder, require_layout
from fedlit.store.lock import RunLock, take_lock
from fedlit.store.records import Record
from fedlit.store.status import PATH as STATUS_PATH
from fedlit.store.status import ended, first_status, to_json
from fedlit.tasks import Sample
from fedlit.versioning import task_version


@dataclass(frozen=True, kw_only=True)
class AtSites(Evaluator):
    """An evaluator whose scores sites have computed, where the rows or the tensors are theirs alone.

    answers: by client id and set, as they came. whole_set, own_set: names of its sets.
    """

    answers: Mapping[int, Mapping[str, Scores]]
    whole_set: str = "global"
    own_set: str = "own"

    def together_on_own(self) -> tuple[dict[int, Scores], list[Sample]]:
        """Return every answer of a client on its own part."""
        return self._found(self.own_batches.keys(), self.own_set), []

    def of_each_client(self, clients: Collection[int], models: ClientModels, *, own: bool = False) -> dict[int, Scores]:
        """Return every answer of a client's own model."""
        return self._found(clients, self.own_set if own else self.whole_set)

    def _found(self, clients: Collection[int], name: str) -> dict[int, Scores]:
        return {
            client: self.answers[client][name] for client in sorted(clients) if name in self.answers.get(client, {})
        }


@dataclass(kw_only=True)
class CenterRecords:
    """What a centre scores and writes.

    evaluator, validator: as those of a run; the parts that sites compute come from `answers`, by client id and set.
    recorded_round: of the last record, None before the first. best: the best round so far.
    """

    workplace: Workplace
    folder: RunFolder
    checkpoints: Checkpoints
    exporter: Exporter
    evaluator: AtSites
    validator: AtSites | None
    best: BestRound
    answers: dict[int, dict[str, Scores]] = field(default_factory=dict)
    recorded_round: int | None = None
    _record: Record = field(default_factory=dict)
    _lock: RunLock | None = None

    @classmethod
    def of(cls, place: Workplace, plan: Plan, simulated: bool) -> "CenterRecords":
        """Return those of a federation whose sites have all joined, with its folder made.

        Raises:
            UserError: nobody has the test set that is asked for, or the folder is another run's.
        """
        config, inputs = place.config, plan.inputs
        _require_sets(config, inputs, simulated=simulated)
        folder = RunFolder(config)
        folder.require_same_run()
        make_folder(folder.path)
        require_layout(folder.path)
        lock = take_lock(folder.path)
        remove_leftovers(folder.path)
        # Of rows that sites alone have, nobody can tell the version.
        version = task_version(inputs, place.task) if simulated or config.eval.on == "global" else None
        folder.prepare(inputs.partition_record() if simulated else _declared(inputs), str(place.device), version)
        answers: dict[int, dict[str, Scores]] = {}
        return cls(
            workplace=place,
            folder=folder,
            checkpoints=Checkpoints(folder=folder.checkpoints, keep=config.run.keep_checkpoints),
            exporter=place.exporter(folder),
            evaluator=_tester(place, plan, answers),
            validator=_validator(place, plan, answers),
            best=BestRound.of(config),
            answers=answers,
            _lock=lock,
        )

    def resumed(self, first: ServerState) -> ServerState | None:
        """Return the server of the newest intact checkpoint, whose records the folder then has; None without any."""
        path, _ = self.checkpoints.newest()
        self.folder.restore_records(self.checkpoints.records(path) if path else None)
        if path is None:
            return None
        server, _ = self.checkpoints.load(path, self.workplace.device, set())
        self.best.see(self.folder.records())
        self.checkpoints.saved_round = self.recorded_round = server.round_idx
        return replace(server, layers=first.layers)

    def begin(self, record: Record) -> None:
        """Begin the record of a round with what its aggregation says."""
        self._record = dict(record)

    def wanted(self, server: ServerState, *, is_last: bool) -> dict[int, list[str]]:
        """Return the sets on which each client is to score, by client id; of nobody where nothing is due."""
        self.answers.clear()
        config, number = self.workplace.config, server.round_idx
        if number % config.eval.every and not is_last:
            return {}
        private = self.workplace.host.has_private
        wanted: dict[int, list[str]] = {}
        for evaluator, on in self._scored():
            if on != "clients" and private and number:
                for client in self._evaluated(evaluator):
                    wanted.setdefault(client, []).append(evaluator.whole_set)
            if on != "global":
                for client in evaluator.own_batches:
                    wanted.setdefault(client, []).append(evaluator.own_set)
        return dict(sorted(wanted.items()))

    def finish(self, server: ServerState, *, is_last: bool) -> Record:
        """Score and write the record of the server's state, and begin its checkpoint."""
        config, number = self.workplace.config, server.round_idx
        models = None
        if self.workplace.host.has_private:
            mine = range(config.num_clients) if number else None
            models = ClientModels(population=range(config.num_clients), mine=mine, load=_no_model)
        due = DueScores(config=config, evaluator=self.evaluator, validator=self.validator, best=self.best)
        record: Record = {"round": number, **(self._record if number else self._facts())}
        record |= due.of(number, models, iter, is_last=is_last)[0]
        record, clients = split_clients(record, config.num_clients)
        self.best.see([record])
        self.folder.append(record, clients)
        kept = self.best.number if config.run.result == "best" else None
        self.checkpoints.save(server, {}, set(), self.folder.records_path, also_keep=kept)
        self.recorded_round, self._record = number, {}
        return record

    def _facts(self) -> Record:
        """Return what the first record holds of how the scores are made."""
        return {**self.workplace.task.notes(), "eval/num_truncated": self.evaluator.num_truncated}

    def export(self, server: ServerState) -> None:
        """Write the result, and let the folder go."""
        self.checkpoints.settle()
        place = self.workplace
        if place.config.run.result == "best" and self.best.number not in (None, server.round_idx):
            path = self.checkpoints.of_round(self.best.number)
            if path is not None:
                server = replace(self.checkpoints.load(path, place.device, set())[0], layers=server.layers)
        if not place.host.has_private:
            place.host.load_server(server)
            self.exporter.write(server, self.folder.adapter, self.folder.records())
        best = self.best
        on = None if best.key is None else chosen_on(best.key)
        status = replace(
            first_status(place.config.num_rounds), chosen_round=best.number, chosen_by=best.key, chosen_on=on
        )
        write_atomically(self.folder.path / STATUS_PATH, to_json(ended(status, "done")))
        self.close()

    def close(self) -> None:
        """Wait for what is being written, and let the folder go."""
        self.checkpoints.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _scored(self) -> list[tuple[AtSites, str]]:
        """Return the evaluators, each with what it is asked for, as `DueScores` asks."""
        found = [(self.evaluator, self.workplace.config.eval.on)]
        if self.validator is not None:
            found.append((self.validator, "clients" if self.validator.own_batches else "global"))
        return found

    def _evaluated(self, evaluator: Evaluator) -> list[int]:
        clients = range(self.workplace.config.num_clients)
        return [client for client in clients if evaluator.evaluated is None or client in evaluator.evaluated] or [
            *clients
        ]


def _no_model(_client_id: int) -> None:
    raise AssertionError("a site alone has its model")


def _tester(place: Workplace, plan: Plan, answers: Mapping[int, Mapping[str, Scores]]) -> AtSites:
    """Return what tests: the centre's model on the whole set here, the rest at the sites."""
    inputs, on = plan.inputs, place.config.eval.on
    evaluated = evaluated_clients(inputs)
    tested = [shard.client_id for shard in inputs.shards if shard.test and shard.client_id in evaluated]
    return AtSites(
        fabric=place.fabric,
        model=place.host.model,
        task=place.task,
        batches=_batches(place.evaluators_of(inputs, on="global")["global"]) if on != "clients" else [],
        own_batches={client: [] for client in tested} if on != "global" else {},
        evaluated=None if place.config.eval.max_clients is None else evaluated,
        answers=answers,
    )


def _validator(place: Workplace, plan: Plan, answers: Mapping[int, Mapping[str, Scores]]) -> AtSites | None:
    """Return the like of `_tester` for the set that rounds are chosen on; None without one."""
    inputs, config = plan.inputs, place.config
    evaluated = evaluated_clients(inputs)
    own = [shard.client_id for shard in inputs.shards if shard.validation and shard.client_id in evaluated]
    at_sites = config.eval.on == "clients" and not inputs.own_validation_rows
    if not (own if at_sites else inputs.validation_rows):
        return None
    return AtSites(
        fabric=place.fabric,
        model=place.host.model,
        task=place.task,
        batches=[] if at_sites else _batches(place.evaluators_of(inputs, on="global")["validation"]),
        own_batches={client: [] for client in own} if at_sites else {},
        whole=VALIDATION,
        part=OWN_VALIDATION,
        evaluated=None if config.eval.max_clients is None else evaluated,
        answers=answers,
        whole_set="validation",
        own_set="own_validation",
    )


def _batches(evaluator: Evaluator | None) -> Batches:
    return [] if evaluator is None else evaluator.batches


def _declared(inputs: Inputs) -> dict[str, Any]:
    """Return what partition.json holds of sites whose rows nobody sees here: their numbers, each site's from 0."""
    data = replace(inputs.config.data, label=None)
    record = partition_record(
        [], inputs.shards, data, own_test_rows=inputs.own_test_rows, own_validation_rows=inputs.own_validation_rows
    )
    num_rows = sum(len(shard.train + shard.test + shard.validation) for shard in inputs.shards)
    return {**record, "num_rows": num_rows, "rows_sha256": None, "num_rows_left_over": 0}


def _require_sets(config: RunConfig, inputs: Inputs, *, simulated: bool) -> None:
    """Raise a UserError where nobody has the rows that are to be scored."""
    if simulated:
        return
    if config.eval.on != "clients" and not inputs.own_test_rows:
        raise UserError(
            f"eval.on={config.eval.on} needs a test set at the centre, which has none of the sites' rows; name it with "
            "data.test_path=<file>, or let each site score its own part with eval.on=clients"
        )
    if config.eval.on != "clients" and config.partition.validation_fraction and not inputs.own_validation_rows:
        raise UserError(
            f"eval.on={config.eval.on} needs a validation set at the centre, which has none of the sites' rows; name "
            "it with data.validation_path=<file>, or give partition.validation_fraction=0"
        )
