"""FedRot-LoRA: each client rotates its factors towards the server's before they are averaged.

FedRot-LoRA (ICML 2026), as in its authors' code with full alignment. B @ A = (B R)(R' A) for any orthogonal R, so
factors of clients can differ by a rotation although their products agree. R solves the orthogonal Procrustes problem
against the server's A in odd rounds and against its B in even ones; the first round, whose server has B = 0, is left as
it is. The rule is the mean: A, B <- sum_i p_i R_i' A_i, sum_i p_i B_i R_i.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedlit.algebra.rotations import procrustes
from fedlit.round.payload import MODEL, Payload
from fedlit.round.plan import RoundPlan
from fedlit.round.server import ServerState
from fedlit.round.transforms.base import Transform


@dataclass(frozen=True)
class Rotation(Transform):
    """A_i, B_i -> R_i' A_i, B_i R_i; the product is unchanged."""

    needs: ClassVar[frozenset[str]] = frozenset("AB")

    def on_client(self, payload: Payload, server: ServerState, plan: RoundPlan, client_id: int) -> Payload:
        """Return the client's factors, rotated."""
        if server.round_idx == 0:
            return payload
        tensors = dict(payload[MODEL])
        for layer in server.layers:
            a, b = tensors[layer.a].double(), tensors[layer.b].double()
            if server.round_idx % 2:
                overlap = a @ server.shared[layer.a].double().T
            else:
                overlap = b.T @ server.shared[layer.b].double()
            rotation = procrustes(overlap)
            tensors[layer.a] = (rotation.T @ a).to(tensors[layer.a])
            tensors[layer.b] = (b @ rotation).to(tensors[layer.b])
        return {**payload, MODEL: tensors}
