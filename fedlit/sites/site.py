"""A site: one client of a real federation, with its own rows, the local trainer, and a state that stays with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fedlit.client.steps import LocalSteps
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.config import RunConfig, fingerprint
from fedlit.data.prompts import Row
from fedlit.errors import UserError
from fedlit.inputs import Inputs
from fedlit.round.evaluation import Evaluator
from fedlit.round.jobs import ClientJob, ClientResult, Start
from fedlit.round.over_clients import Scores
from fedlit.round.payload import MODEL, flat, grouped
from fedlit.round.plan import RoundPlan
from fedlit.round.server import ServerState
from fedlit.sites.folds import StaleSite, folded_only, unfolded
from fedlit.sites.joining import versions
from fedlit.sites.kept import NOTHING_YET, Kept
from fedlit.sites.messages import Message, matrices_of, prefixed, same_bits, to_device
from fedlit.sites.workplace import OWN_SETS, Workplace, inputs_of_site, nowhere, simulated_inputs
from fedlit.store.folder import RunFolder
from fedlit.tasks.encoded import ClientRows


def open_site(config: RunConfig, client_id: int, *, own: Mapping[str, Any] | None = None) -> "Site":
    """Return a site of a configuration, which loads the backbone.

    Args:
        config: the federation's; the same at the centre and at all sites.
        client_id: whose site this is, from 0 to num_clients - 1.
        own: what differs here, by dotted key: `data.path` (this site's own rows, all of them), `data.test_path`,
            `model.path`, `compute.accelerator`. None for a simulation, in which the site's rows are the shard that
            `fedlit run` would deal to the client.

    Raises:
        UserError: no such client, a key that may not differ, or a mistake in rows, model or method.
    """
    if not 0 <= client_id < config.num_clients:
        raise UserError(f"client {client_id} is none of num_clients={config.num_clients}; give 0 to num_clients - 1")
    inputs = simulated_inputs(config) if own is None else inputs_of_site(config, client_id, own)
    return Site(workplace=Workplace.of(inputs), client_id=client_id, told=fingerprint(config))


@dataclass(frozen=True, kw_only=True)
class Site:
    """A client with its rows.

    workplace: the model and the method, which several sites of one process share, one after the other.
    client_id: its number in the federation. told: the fingerprint of the federation's configuration.
    """

    workplace: Workplace
    client_id: int
    told: Mapping[str, Any]

    def of_client(self, client_id: int) -> "Site":
        """Return the site of another client in the same process, of a simulation."""
        return replace(self, client_id=client_id)

    def join(self, state: bytes | None = None) -> Message:
        """Return what the centre must know of this site: who it is, how many rows it has, and of which model."""
        self.workplace.settle()
        shard = self._inputs.shards[0]
        return Message(
            kind="join",
            facts={
                "client_id": self.client_id,
                "num_rows": [len(shard.train), len(shard.test), len(shard.validation)],
                "config": dict(self.told),
                "versions": versions(),
                "held": self._kept(state).round_idx,
            },
            tensors={"sample": self.workplace.sample},
        )

    def train(self, message: Message, state: bytes | None = None) -> tuple[Message, bytes]:
        """Train one round from what the centre sent; return what it gets and what this site keeps.

        A loss that is not finite, or a state that has been lost, is an answer without tensors: the centre counts the
        site as lost in this round.

        Args:
            message: of `Center.invite`.
            state: what this site kept of its last round; None before its first.
        """
        self.workplace.settle()
        kept = self._kept(state)
        try:
            server = self._server(message, kept)
        except StaleSite:
            return self._answer(message, NOTHING_YET, failure="it has lost what was folded before"), kept.to_bytes()
        host, method = self.workplace.host, self.workplace.method
        host.load_server(server)
        plan = self._plan(server.round_idx)
        job = ClientJob(
            client_id=self.client_id,
            rows=self._rows,
            start=method.transforms.start(self._start(message, server), server, self.client_id),
            state=kept.client,
            plan=plan,
        )
        (result,) = self._trainer.train([job])
        kept = replace(kept, frozen=folded_only(server), round_idx=server.round_idx)
        if result.payload is None:
            reason = "it sent nothing" if result.failure is None else str(result.failure)
            return self._answer(message, kept.round_idx, failure=reason), kept.to_bytes()
        kept = replace(kept, client=result.state or kept.client)
        return self._sent(message, result, server, plan), kept.to_bytes()

    def evaluate(self, message: Message, state: bytes | None = None) -> tuple[Message, bytes]:
        """Score the centre's model, or this site's own where tensors are private, on the sets that are due here.

        Returns:
            The scores by set, one of `workplace.SETS`, and what this site keeps.
        """
        self.workplace.settle()
        kept = self._kept(state)
        try:
            server = self._server(message, kept)
        except StaleSite:
            return self._answer(message, NOTHING_YET, failure="it has lost what was folded before"), kept.to_bytes()
        host = self.workplace.host
        host.load_server(server)
        if host.has_private:
            host.load_own(self._start(message, server), kept.client.private)
        kept = replace(kept, frozen=folded_only(server), round_idx=server.round_idx)
        scores = {name: self._scores(name) for name in message.facts["sets"]}
        return self._answer(message, kept.round_idx, scores=scores), kept.to_bytes()

    def export(self, message: Message, state: bytes | None, folder: Path) -> Path:
        """Write this site's own model, of what the centre has and what stayed here, as `fedlit run` writes a client's.

        Args:
            message: of `Center.conclude`, which asks sites that keep tensors to themselves.
            state: what this site kept of its last round.
            folder: where to; what is there is replaced.

        Raises:
            UserError: what was folded before is lost.
        """
        self.workplace.settle()
        kept, host = self._kept(state), self.workplace.host
        try:
            server = self._server(message, kept)
        except StaleSite as stale:
            raise UserError(f"client {self.client_id} has lost what its model is made of: {stale}") from stale
        host.load_server(server)
        host.load_own(self._start(message, server), kept.client.private)
        folder.parent.mkdir(parents=True, exist_ok=True)
        run = RunFolder(nowhere(self.workplace.config))
        self.workplace.exporter(run).write(server, folder, [], self.client_id)
        return folder

    @cached_property
    def _inputs(self) -> Inputs:
        """The inputs with this site's shard alone."""
        inputs = self.workplace.plan.inputs
        return replace(inputs, shards=[shard for shard in inputs.shards if shard.client_id == self.client_id])

    @cached_property
    def _rows(self) -> Sequence[Row]:
        return ClientRows(self._inputs.rows, self._inputs.shards[0].train, self.workplace.store)

    @cached_property
    def _trainer(self) -> SerialTrainer:
        place = self.workplace
        return SerialTrainer(
            host=place.host,
            module=place.module,
            steps=LocalSteps(fabric=place.fabric, module=place.module, local=place.config.local),
            local=place.config.local,
            seed=place.config.seed,
            num_rounds=place.config.num_rounds,
            parts=place.method.parts,
        )

    def _kept(self, state: bytes | None) -> Kept:
        return Kept.from_bytes(state) if state else Kept(client=self.workplace.state)

    def _plan(self, round_idx: int) -> RoundPlan:
        """Return the round as a site knows it: itself alone."""
        return RoundPlan(
            round_idx=round_idx,
            invited=(self.client_id,),
            arriving=(self.client_id,),
            weights={self.client_id: 1.0},
            trains=self.workplace.host.trains(round_idx),
        )

    def _server(self, message: Message, kept: Kept) -> ServerState:
        """Return the server's state as far as a site knows it."""
        first, device = self.workplace.server, self.workplace.device
        before = replace(first, frozen={**first.frozen, **to_device(kept.frozen, device)})
        server = unfolded(replace(message, tensors=to_device(message.tensors, device)), before, kept.round_idx)
        groups = grouped(to_device(message.group("group"), device))
        server = replace(server, shared={**server.shared, **groups.pop(MODEL, {})})
        for name, tensors in groups.items():
            server = server.with_group(name, tensors)
        return server

    def _start(self, message: Message, server: ServerState) -> Start:
        """Return what this client starts from, as the rule at the centre has it."""
        device = self.workplace.device
        groups = {name: server.group(name) for name in self.workplace.method.groups}
        share = message.tensors.get("own_share")
        return Start(
            groups={**groups, MODEL: {**server.shared, **to_device(message.group("own"), device)}},
            offsets=matrices_of(to_device(message.group("offset"), device)),
            own_share=None if share is None else share.to(device),
        )

    def _sent(self, message: Message, result: ClientResult, server: ServerState, plan: RoundPlan) -> Message:
        """Return the answer of a trained client: what differs from the server's tensors, which the centre has."""
        assert result.payload is not None
        method = self.workplace.method
        sent = method.transforms.on_client(result.payload, server, plan, self.client_id)
        known = prefixed("group", message.group("group"))
        silent = {f"group/{MODEL}/{name}" for name in method.transforms.unsent(server)}
        tensors = {
            name: tensor
            for name, tensor in prefixed("group", flat(sent)).items()
            if name not in silent and not (name in known and same_bits(tensor, known[name]))
        }
        return replace(self._answer(message, server.round_idx, metrics=dict(result.metrics)), tensors=tensors)

    def _answer(self, message: Message, held: int, **facts: Any) -> Message:
        about = {"client_id": self.client_id, "round_idx": message.facts["round_idx"], "held": held}
        return Message(kind=message.kind, facts={**about, **facts})

    def _scores(self, name: str) -> Scores:
        """Return the scores on a set of the model as it stands."""
        if name in OWN_SETS:
            evaluator = self._own_evaluators[name]
            if evaluator is None or self.client_id not in evaluator.own_batches:
                raise UserError(f"client {self.client_id} has no rows of the set {name} that the centre asks for")
            return evaluator.together_on_own()[0][self.client_id]
        evaluator = self.workplace.evaluators[name]
        if evaluator is None:
            raise UserError(f"client {self.client_id} has not the {name} set that the centre asks for; name its file")
        return evaluator.together()[0]

    @cached_property
    def _own_evaluators(self) -> dict[str, Evaluator | None]:
        return self.workplace.evaluators_of(self._inputs, on="clients")
