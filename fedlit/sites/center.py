"""The centre: the server of a real federation, which plans rounds, sums what comes and keeps the run's folder.

    join*   (ask, score*, finish)   [invite, take* | lose*, aggregate, (ask, score*, finish)]*   export, conclude

What comes may come in any order: contributions are rounded to integers when they come in, from the tensors that the
centre received, and integers are added (`fedlit.round.fixed_point`). So the aggregate is that of `fedlit run` for the
same clients, to the last bit.

The folder is a run folder: `fedlit report`, `page`, `merge`, `chat` and `push` take it.
"""

from dataclasses import dataclass, field, replace
from functools import partial

from fedlit.algebra.tensors import checksum, first_not_finite
from fedlit.config import RunConfig
from fedlit.errors import DivergenceError, UserError
from fedlit.planning import make_traffic
from fedlit.round.cohort import Cohort
from fedlit.round.jobs import Start
from fedlit.round.observers import RoundView
from fedlit.round.observers.folded_ranks import FoldedRankObserver
from fedlit.round.payload import MODEL, Payload, flat
from fedlit.round.plan import RoundPlan, Schedule
from fedlit.round.server import ServerState
from fedlit.round.step import ServerStep
from fedlit.round.taking_part import record_of_clients, record_of_step
from fedlit.scheduling import make_schedule
from fedlit.sites.folds import FoldLog, NotingServer
from fedlit.sites.joining import Joined, require_same
from fedlit.sites.kept import NOTHING_YET
from fedlit.sites.messages import Message, matrices_to_tensors, prefixed
from fedlit.sites.received import payload_of
from fedlit.sites.records import CenterRecords
from fedlit.sites.workplace import Workplace, inputs_without_rows, simulated_inputs
from fedlit.store.records import Record


def open_center(config: RunConfig, *, simulated: bool = False) -> "Center":
    """Return the centre of a configuration, which loads the backbone, and goes on where its run folder stands.

    simulated: the sites' rows are those that `fedlit run` would deal; this process reads them too, for a test set that
    is made of all clients'. Else the centre's own rows are data.test_path and data.validation_path alone.

    Raises:
        UserError: what real sites cannot have, or a mistake in rows, model, method or the run folder.
    """
    inputs = simulated_inputs(config) if simulated else inputs_without_rows(config)
    workplace = Workplace.of(inputs)
    return Center(workplace=workplace, simulated=simulated, server=workplace.server)


@dataclass(kw_only=True)
class Center:
    """The server's half of a federation.

    workplace: the model and the method. simulated: see `open_center`. server: its state.
    """

    workplace: Workplace
    simulated: bool
    server: ServerState
    _joined: dict[int, Joined] = field(default_factory=dict)
    _held: dict[int, int] = field(default_factory=dict)
    _folds: FoldLog = field(default_factory=FoldLog)
    _round: "_Round | None" = None
    _schedule: Schedule | None = None
    _records: CenterRecords | None = None

    @property
    def config(self) -> RunConfig:
        """The configuration."""
        return self.workplace.config

    @property
    def round_idx(self) -> int:
        """Rounds aggregated so far."""
        return self.server.round_idx

    @property
    def waits_for(self) -> int:
        """Sites that have not joined yet: all clients of the configuration must."""
        return self.config.num_clients - len(self._joined)

    @property
    def done(self) -> bool:
        """Whether no round follows: all are run and recorded, or patience is used up."""
        return not self.unscored and self._last

    @property
    def unscored(self) -> bool:
        """Whether the server's state is still to be scored and recorded: `ask`, `score`, `finish`."""
        return self._books.recorded_round != self.server.round_idx

    @property
    def _last(self) -> bool:
        return self.server.round_idx >= self.config.num_rounds or self._books.best.stalled

    def join(self, message: Message) -> int:
        """Take in a site, which may come again later, having lost its state; return its client id.

        Raises:
            UserError: another configuration or another model than the centre's, or a client that is there already
                with other rows.
        """
        self.workplace.settle()
        joined = Joined.of(message)
        require_same(joined, self.workplace, self._joined.get(joined.client_id))
        self._joined[joined.client_id] = joined
        self._held[joined.client_id] = joined.held
        if not self.waits_for and self._schedule is None:
            self._open()
        return joined.client_id

    def notices(self) -> list[str]:
        """Return lines about the sites that a person should read: other versions than the centre's."""
        return [line for _, each in sorted(self._joined.items()) for line in each.notices()]

    def invite(self) -> dict[int, Message]:
        """Begin the next round: return what to send to each invited client, by client id."""
        assert not self.unscored, "finish the round before"
        self.workplace.settle()
        assert self._schedule is not None
        plan, method, server = self._schedule.plan(self.server.round_idx), self.workplace.method, self.server
        cohort = Cohort(
            plan,
            {MODEL: server.shared, **{name: server.group(name) for name in method.groups}},
            keeps=method.rule.stacks or method.rule.asks_again,
            on_server=partial(method.transforms.on_server, server=server, plan=plan),
            num_sums=method.rule.num_sums(server),
        )
        self._round = _Round(plan=plan, cohort=cohort)
        return {client_id: self._message("train", client_id) for client_id in plan.arriving}

    def take(self, client_id: int, message: Message) -> bool:
        """Take in a client's answer of this round; return whether it counts.

        It does not where the site says that it could not train, and of another round than this.

        Raises:
            UserError: tensors that are not those of the model, a client that was not invited or has answered, or a
                loss or an update that is not finite under cohort.failures=stop.
        """
        self.workplace.settle()
        assert self._round is not None, "invite() comes before"
        current = self._round
        if client_id not in current.plan.arriving or message.facts.get("client_id") != client_id:
            raise UserError(
                f"client {client_id} answers and was not asked in this round; check who runs as which client"
            )
        if message.facts.get("round_idx") != current.plan.round_idx:
            return False  # of a round that went on without it
        if client_id in current.reports:
            raise UserError(f"client {client_id} answers twice in one round; let one site alone run as this client")
        self._held[client_id] = int(message.facts["held"])
        if (failure := message.facts.get("failure")) is not None:
            return self._lost(client_id, f"client {client_id}: {failure}", stale=self._held[client_id] == NOTHING_YET)
        try:
            current.cohort.add(client_id, payload_of(message, self._groups(), self.workplace))
        except DivergenceError as error:
            return self._lost(client_id, str(error))
        current.reports[client_id] = dict(message.facts["metrics"])
        return True

    def lose(self, client_id: int) -> None:
        """Say that no answer will come of a client in this round. One that is neither taken nor lost counts as lost."""
        self._held[client_id] = NOTHING_YET  # nobody knows

    def aggregate(self) -> dict[str, float | str]:
        """End the round: the server's next state from what has come; return what the record says of it."""
        self.workplace.settle()
        assert self._round is not None, "invite() comes before"
        current, before, method = self._round, self.server, self.workplace.method
        plan, cohort, reports = current.plan, current.cohort, current.reports
        cohort.close(tuple(reports), {client: int(each.get("num_steps", 0)) for client, each in reports.items()})
        assert self._schedule is not None
        step = ServerStep(
            rule=method.rule,
            options=self.config.server,
            parts=method.parts,
            population_share=self._schedule.population_share,
        )
        noting = NotingServer.of(before)
        after = step(cohort, noting, plan)
        self._folds.note(before, after, noting.noted)
        if (name := first_not_finite(after.shared)) is not None:
            raise DivergenceError(what=f"the server's {name}", round_number=after.round_idx)
        self.server = after
        digest = checksum(flat(after.parts()))
        record = record_of_clients(plan, reports) | record_of_step(before, after, len(reports), digest)
        for observer in (make_traffic(method), FoldedRankObserver()):
            record |= observer.record(RoundView(plan=plan, before=before, after=after, cohort=cohort, notes={}))
        self.workplace.host.load_server(after)
        self._books.begin(record)
        self._round = None
        return {key: value for key, value in record.items() if key.startswith("aggregation/")}

    def ask(self) -> dict[int, Message]:
        """Return what to send to each client whose scores the record needs: none where the centre scores alone."""
        self.workplace.settle()
        return {
            client_id: replace(message, facts={**message.facts, "sets": sets})
            for client_id, sets in self._books.wanted(self.server, is_last=self._last).items()
            for message in [self._message("evaluate", client_id)]
        }

    def score(self, client_id: int, message: Message) -> None:
        """Take in a client's scores. One that sends none is left out of this record."""
        if message.facts.get("round_idx") == self.server.round_idx:
            self._held[client_id] = int(message.facts["held"])
            if "scores" in message.facts:
                self._books.answers[client_id] = dict(message.facts["scores"])

    def finish(self) -> Record:
        """Score what the centre scores, write the record and a checkpoint, and return the record."""
        self.workplace.settle()
        return self._books.finish(self.server, is_last=self._last)

    def export(self) -> None:
        """Write the final adapter into the run folder; nothing where tensors are private: see `conclude`."""
        self.workplace.settle()
        self._books.export(self.server)

    def conclude(self) -> dict[int, Message]:
        """Return what to send to each site for it to write its own model: none where the model is everybody's."""
        self.workplace.settle()
        if not self.workplace.host.has_private:
            return {}
        return {client_id: self._message("export", client_id) for client_id in sorted(self._joined)}

    def close(self) -> None:
        """Leave the run folder to another centre, which goes on there."""
        if self._records is not None:
            self._records.close()

    @property
    def _books(self) -> CenterRecords:
        if self._records is None:
            raise UserError(f"{self.waits_for} sites have not joined; all num_clients={self.config.num_clients} must")
        return self._records

    def _open(self) -> None:
        """All have joined: what is planned by their rows can be."""
        counts = [self._joined[client_id].num_rows for client_id in range(self.config.num_clients)]
        inputs = self.workplace.plan.inputs
        if not self.simulated:
            inputs = replace(inputs, shards=inputs_without_rows(self.config, counts).shards)
        plan = replace(self.workplace.plan, inputs=inputs)
        self._schedule = make_schedule(plan, self.workplace.host.trains)
        self._records = CenterRecords.of(self.workplace, plan, self.simulated)
        if (resumed := self._records.resumed(self.workplace.server)) is not None:
            self.server = resumed
            self._folds.restart(resumed.round_idx)
            self.workplace.host.load_server(resumed)

    def _groups(self) -> Payload:
        return {MODEL: self.server.shared, **{name: self.server.group(name) for name in self.workplace.method.groups}}

    def _message(self, kind: str, client_id: int) -> Message:
        """Return what a client needs to stand where the server has it."""
        method, server = self.workplace.method, self.server
        start: Start = method.rule.start(server, client_id)
        facts, folds = self._folds.parcel_for(self._held[client_id], server)
        silent = method.transforms.unsent(server)
        own = {name: each for name, each in start.groups[MODEL].items() if each is not server.shared[name]}
        # A transform at the site looks at the server's tensors, those of a client beside them.
        hidden = set(silent) if method.transforms.parts else own.keys() | silent
        groups = {f"{MODEL}/{name}": each for name, each in server.shared.items() if name not in hidden}
        groups |= flat({name: server.group(name) for name in method.groups})
        share = {} if start.own_share is None else {"own_share": start.own_share}
        return Message(
            kind=kind,
            facts={"client_id": client_id, "round_idx": server.round_idx, **facts},
            tensors={
                **prefixed("group", groups),
                **prefixed("own", own),
                **prefixed("offset", matrices_to_tensors(start.offsets)),
                **folds,
                **share,
            },
        )

    def _lost(self, client_id: int, reason: str, *, stale: bool = False) -> bool:
        if self.config.cohort.failures == "stop" and not stale:
            raise UserError(f"{reason}; cohort.failures=drop goes on without it")
        return False


@dataclass(kw_only=True)
class _Round:
    """A round under way. reports: numbers of every client that has answered."""

    plan: RoundPlan
    cohort: Cohort
    reports: dict[int, dict[str, float]] = field(default_factory=dict)
