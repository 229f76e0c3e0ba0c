"""How the server combines what the clients of a round trained."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from fedlit.round.cohort import Cohort
from fedlit.round.jobs import LocalPart, Start
from fedlit.round.payload import MODEL
from fedlit.round.server import ServerState


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Bytes that one client sends to the server and receives from it in one round."""

    uplink_bytes: int
    downlink_bytes: int


class AggregationRule(ABC):
    """A function of values, run on every process with the same result; a rule says only what differs from FedAvg.

    needs: LoRA factors that clients must train and send, of `A`, `B`; empty for a rule that takes any tensors.
    sets: LoRA factors that the server must be able to send besides.
    averages: shared is a mean of what clients sent, so that its change is a pseudo-gradient for a server optimizer.
    stacks: the rule calls cohort.stack(), which shows single clients; their tensors are kept until the round ends.
    asks_again: the rule calls cohort.mean_of(), for which they are kept too, though only sums leave a client.
    Either may be a property, where an option decides; see also `num_sums`.
    folds: the rule changes backbone weights; the server holds the changes beside them (ServerState.fold).
    leaves_own_out: what a client starts from is a mean without its own part, which it takes out itself.
    mixes_ranks: clients may have LoRA factors of different ranks, which a transform brings into one scaling.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    sets: ClassVar[frozenset[str]] = frozenset()
    averages: ClassVar[bool] = False
    stacks: ClassVar[bool] = False
    asks_again: ClassVar[bool] = False
    folds: ClassVar[bool] = False
    leaves_own_out: ClassVar[bool] = False
    mixes_ranks: ClassVar[bool] = False

    @property
    def moves_frozen(self) -> bool:
        """Whether `start` gives a client frozen weights that differ from the server's."""
        return False

    def num_sums(self, server: ServerState) -> int:
        """Return how many sums of what clients sent a round from this server lets out: `mean`, and each `mean_of`.

        With differential privacy all of them are one release, whose noise is made for this number: each sum gets its
        root times the standard deviation of one. A rule may ask for fewer, and is refused where it asks for more. It
        must not depend on who takes part.
        """
        return 1

    def local_parts(self) -> tuple[LocalPart, ...]:
        """Return what the rule needs in the clients' local training: groups that travel beside the model."""
        return ()

    def begin(self, server: ServerState, num_clients: int) -> ServerState:
        """Return the server before the first round."""
        return server

    def start(self, server: ServerState, client_id: int) -> Start:
        """Return what a client starts its round from, of the group `model`."""
        return Start(groups={MODEL: server.shared})

    @abstractmethod
    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server's state after the round; the cohort has at least one client.

        A copy with other tensors, `dataclasses.replace(server, shared=...)`; `round_idx` goes on by itself.
        """

    def traffic(self, server: ServerState, clients: Mapping[int, bool], trained: Collection[str]) -> dict[int, Traffic]:
        """Return what every invited client sends and receives in the round that begins from `server`, by shapes alone.

        The convention of all rules: uplink is what clients trained in this round; downlink is this round's result,
        what the server's step changed, sent to all who were invited, at their ranks. One who is lost sends nothing. A
        client that comes back after rounds without it also needs theirs; the first model, which all have, is in none.

        server: before the round, with the `folded_ranks` of its end, where a rule chooses them; before they are known,
        the largest that they can be count.
        clients: those invited, and whether they returned. trained: names of the tensors that train in this round; by
        default those among the shared travel both ways.
        """
        names = server.shared.keys() & set(trained)
        sizes = {client_id: payload_bytes(server, names, client_id) for client_id in clients}
        return both_ways(clients, sizes, sizes)


def both_ways(clients: Mapping[int, bool], up: Mapping[int, int], down: Mapping[int, int]) -> dict[int, Traffic]:
    """Return the traffic of invited clients from their bytes; those who did not return send nothing."""
    return {
        client: Traffic(uplink_bytes=up[client] if returned else 0, downlink_bytes=down[client])
        for client, returned in clients.items()
    }


def payload_bytes(server: ServerState, names: Iterable[str], client_id: int | None = None) -> int:
    """Return the bytes of shared tensors; of LoRA factors the rows and columns of a client's rank."""
    ranks = {name: layer for layer in server.layers for name in (layer.a, layer.b)}
    total = 0
    for name in names:
        tensor = server.shared[name]
        size = tensor.numel() * tensor.element_size()
        layer = ranks.get(name)
        total += size if layer is None else size // layer.rank * layer.rank_of(client_id)
    return total
