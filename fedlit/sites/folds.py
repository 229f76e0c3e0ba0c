"""What a rule folds into frozen weights, on its way to the sites: each round's change, as factors.

The centre's fold of a round is `held <- compacted(held + change)` for each layer (`ServerState.fold`). A site that has
what the centre held before gets the round's change, and folds it in the same way, to the same bits. One that has been
away gets the rounds that it missed, or all that is held, whichever is smaller: that alone may be a dense matrix, where
the factors of all rounds have outgrown it.

A change travels in the type in which it is kept, which rounds it as the fold does; where the fold computes with it, in
its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import PARTS, LowRank
from fedlit.algebra.tensors import TensorDict, num_bytes, on_cpu
from fedlit.round.server import ServerState
from fedlit.sites.kept import NOTHING_YET
from fedlit.sites.messages import Message, matrices_of, matrices_to_tensors, prefixed

_ROUND, _WHOLE, _FROM = "fold", "held", "folded_from"


class StaleSite(Exception):
    """A site has not got what the centre took for granted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NotingServer(ServerState):
    """A server that notes what a rule folds.

    noted: gets the changes by layer name; the same list in all copies.
    """

    noted: list[Mapping[str, LowRank]] = field(default_factory=list, compare=False)

    @classmethod
    def of(cls, server: ServerState) -> "NotingServer":
        """Return a server with the same state."""
        return cls(
            round_idx=server.round_idx,
            shared=server.shared,
            frozen=server.frozen,
            optimizer=server.optimizer,
            clients=server.clients,
            layers=server.layers,
        )

    def fold(self, changes: Mapping[str, LowRank]) -> ServerState:
        """Return what ServerState.fold does, and note the changes."""
        made = {layer.name: changes[layer.name] for layer in self.layers if layer.name in changes}
        self.noted.append(made)
        return ServerState.fold(self, made)


@dataclass(kw_only=True)
class FoldLog:
    """The changes of all rounds that a site may still need.

    rounds: by round_idx of the server before it, layer name and change. first: the round from which on all are there.
    """

    rounds: dict[int, dict[str, LowRank]] = field(default_factory=dict)
    first: int = 0

    def note(self, before: ServerState, after: ServerState, noted: list[Mapping[str, LowRank]]) -> None:
        """Take up what a round folded."""
        assert len(noted) <= 1, "a rule folds once in a round"
        changes = noted[0] if noted else {}
        kept = {
            layer.name: _as_kept(before, after, layer, changes[layer.name])
            for layer in before.layers
            if layer.name in changes
        }
        self.rounds[before.round_idx] = kept
        # What costs more than all that is held is never sent.
        whole = num_bytes(_held(after))
        while self.rounds and self._bytes_from(self.first) > whole:
            self.rounds.pop(self.first, None)
            self.first += 1

    def restart(self, round_idx: int) -> None:
        """Forget all: a centre that goes on from a checkpoint sends what it holds."""
        self.rounds, self.first = {}, round_idx

    def parcel_for(self, held: int, server: ServerState) -> tuple[dict[str, Any], TensorDict]:
        """Return facts and tensors for a site that has what the server of round `held` had folded."""
        held = 0 if held == NOTHING_YET else held  # nothing is folded before the first round
        if not self.first <= held <= server.round_idx:
            return {_FROM: None}, prefixed(_WHOLE, _held(server))
        found: TensorDict = {}
        for round_idx in range(held, server.round_idx):
            found |= prefixed(f"{_ROUND}/{round_idx}", matrices_to_tensors(self.rounds.get(round_idx, {})))
        return {_FROM: held}, found

    def _bytes_from(self, first: int) -> int:
        later = [changes for round_idx, changes in self.rounds.items() if round_idx >= first]
        return sum(each.num_bytes for changes in later for each in changes.values())


def _as_kept(before: ServerState, after: ServerState, layer: LoraLayer, change: LowRank) -> LowRank:
    """Return a change in the type in which it stands beside the others, if it only stands beside them."""
    held, new = before.change(layer), after.change(layer)
    width = change.width + (0 if held is None else held.width)
    stands = new is not None and new.rest is None and change.rest is None and new.width == width
    return change.to(new.left.dtype) if stands and new is not None else change


def _held(server: ServerState) -> TensorDict:
    """Return the tensors of all that is folded, by their names in `frozen`."""
    names = {f"{layer.weight}/{part}" for layer in server.layers for part in PARTS}
    return {name: tensor for name, tensor in server.frozen.items() if name in names}


def unfolded(message: Message, server: ServerState, held: int) -> ServerState:
    """Return a site's server, which has what was folded up to round `held`, with what the message brings.

    Raises:
        StaleSite: it goes on from a round that the site has not got.
    """
    wanted, came_from = int(message.facts["round_idx"]), message.facts[_FROM]
    others = {name: tensor for name, tensor in server.frozen.items() if name not in _held(server)}
    if came_from is None:
        return replace(server, frozen={**others, **message.group(_WHOLE)}, round_idx=wanted)
    if came_from == 0:
        server = replace(server, frozen=others)
    elif came_from != held:
        raise StaleSite(f"this site has what was folded up to round {held}, and was sent what follows {came_from}")
    for round_idx in range(came_from, wanted):
        changes = matrices_of(message.group(f"{_ROUND}/{round_idx}"))
        server = server.fold(changes) if changes else server
    return replace(server, round_idx=wanted, folded={})


def folded_only(server: ServerState) -> TensorDict:
    """Return what a site keeps of its server until the next round, on the CPU."""
    return on_cpu(_held(server))
