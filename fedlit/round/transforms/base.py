"""What happens to a payload between a client and the rule: on the client before it is encoded, on the server after the
sum is decoded.

Transforms are declared by the recipe or by `method.transforms`, composed in order: t1, t2 on the client, t2, t1 on the
server, and t2, t1 on what a client starts from. All are pure functions of their arguments.
"""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from fedlit.algebra.tensors import TensorDict
from fedlit.round.jobs import Start
from fedlit.round.payload import MODEL, Payload
from fedlit.round.plan import RoundPlan
from fedlit.round.server import ServerState


class Transform(ABC):  # noqa: B024  either half may be left out
    """A pair of functions around the sum; either may leave things as they are.

    needs: LoRA factors that clients must train and send, of `A`, `B`, or the heads `H`; empty for a transform of any
    tensors.
    mixes_ranks: brings factors of clients of different ranks into one scaling.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    mixes_ranks: ClassVar[bool] = False

    def start(self, tensors: TensorDict, server: ServerState, client_id: int) -> TensorDict:
        """Return what a client takes up of the server's `model` tensors."""
        return tensors

    def on_client(self, payload: Payload, server: ServerState, plan: RoundPlan, client_id: int) -> Payload:
        """Return what a client sends of its payload, in the names and shapes of the server's groups."""
        return payload

    def on_server(self, mean: Payload, server: ServerState, plan: RoundPlan) -> Payload:
        """Return what the rule sees of the means of all groups."""
        return mean

    def unsent(self, server: ServerState) -> frozenset[str]:
        """Return the `model` tensors whose value both sides know in every round: nothing of them travels."""
        return frozenset()


@dataclass(frozen=True)
class Transforms:
    """Transforms as one."""

    parts: Sequence[Transform] = ()

    def start(self, start: Start, server: ServerState, client_id: int) -> Start:
        """Return what a client takes up."""
        tensors = start.groups[MODEL]
        for part in reversed(self.parts):
            tensors = part.start(tensors, server, client_id)
        return replace(start, groups={**start.groups, MODEL: tensors})

    def on_client(self, payload: Payload, server: ServerState, plan: RoundPlan, client_id: int) -> Payload:
        """Return what a client sends."""
        for part in self.parts:
            payload = part.on_client(payload, server, plan, client_id)
        return payload

    def on_server(self, mean: Payload, server: ServerState, plan: RoundPlan) -> Payload:
        """Return what the rule sees."""
        for part in reversed(self.parts):
            mean = part.on_server(mean, server, plan)
        return mean

    def unsent(self, server: ServerState) -> frozenset[str]:
        """Return the tensors of which nothing travels."""
        return frozenset().union(*(part.unsent(server) for part in self.parts))
