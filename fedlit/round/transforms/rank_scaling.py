"""Clients of several LoRA ranks: a client takes up as much as its rank holds, and sends it in the server's scaling.

At the server all factors stand in the scaling of the largest rank; what a client of another rank sends is rescaled,
which leaves its scaling * B @ A as it is. Rows of A and columns of B beyond a client's rank are zeros.

Shapes: A (r, in), B (out, r), r being the largest rank.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.round.payload import MODEL, Payload
from fedlit.round.plan import RoundPlan
from fedlit.round.server import ServerState
from fedlit.round.transforms.base import Transform


@dataclass(frozen=True, kw_only=True)
class RankScaling(Transform):
    """Truncates and rescales on the way down, rescales on the way up.

    share_of_a: the power, from 0 to 1, with which the change of scaling goes to A, the rest going to B. A rule that
    looks at products alone does not mind; where factors are averaged, half and half keeps both in one unit.
    """

    share_of_a: float = 0.0

    needs: ClassVar[frozenset[str]] = frozenset("AB")
    mixes_ranks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.share_of_a <= 1:
            raise UserError(f"method.share_of_a={self.share_of_a} must be from 0 to 1")

    def start(self, tensors: TensorDict, server: ServerState, client_id: int) -> TensorDict:
        """Return the first rows of A and columns of B, as many as the client's rank, in its scaling."""
        taken = self._scaled(tensors, server.layers, client_id, up=False)
        for layer in server.layers:
            rank = layer.rank_of(client_id)
            taken[layer.a][rank:] = 0
            taken[layer.b][:, rank:] = 0
        return taken

    def on_client(self, payload: Payload, server: ServerState, plan: RoundPlan, client_id: int) -> Payload:
        """Return the client's factors in the server's scaling: the inverse of `start` on the rows that it has."""
        return {**payload, MODEL: self._scaled(payload[MODEL], server.layers, client_id, up=True)}

    def _scaled(self, tensors: TensorDict, layers: tuple[LoraLayer, ...], client_id: int, *, up: bool) -> TensorDict:
        scaled = dict(tensors)
        for layer in layers:
            server, client = layer.scaling(), layer.scaling(client_id)
            ratio = client / server if up else server / client
            scaled[layer.a] = scaled[layer.a] * ratio**self.share_of_a
            scaled[layer.b] = scaled[layer.b] * ratio ** (1 - self.share_of_a)
        return scaled
