"""FedRot-LoRA: each client rotates its factors towards the server's before they are averaged.

FedRot-LoRA (ICML 2026), as in its authors' code with full alignment. B @ A = (B R)(R' A) for any orthogonal R, so
factors of clients can differ by a rotation although their products agree. R solves the orthogonal Procrustes problem
against the server's A in odd rounds and against its B in even ones; the first round, whose server has B = 0, is left as
it is.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedlit.algebra.tensors import TensorDict
from fedlit.round.cohort import Cohort
from fedlit.round.rules import AggregationRule
from fedlit.round.server import ServerState


@dataclass(frozen=True)
class FedRotLora(AggregationRule):
    """A, B <- sum_i p_i R_i' A_i, sum_i p_i B_i R_i."""

    needs: ClassVar[frozenset[str]] = frozenset("AB")
    averages: ClassVar[bool] = True

    def upload(self, shared: TensorDict, server: ServerState, client_id: int) -> TensorDict:
        """Return the client's factors, rotated; their product is unchanged."""
        if server.round_idx == 0:
            return shared
        tensors = dict(shared)
        for layer in server.layers:
            a, b = tensors[layer.a].double(), tensors[layer.b].double()
            if server.round_idx % 2:
                overlap = a @ server.shared[layer.a].double().T
            else:
                overlap = b.T @ server.shared[layer.b].double()
            rotation = procrustes(overlap)
            tensors[layer.a] = (rotation.T @ a).to(tensors[layer.a])
            tensors[layer.b] = (b @ rotation).to(tensors[layer.b])
        return tensors

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with the mean of the rotated factors."""
        return server.replace(shared=cohort.mean())


def procrustes(overlap: Tensor) -> Tensor:
    """Return the orthogonal R (r, r) with the largest trace(R' overlap): U V' of its SVD (Schoenemann, 1966)."""
    u, _, vh = torch.linalg.svd(overlap)
    rotation: Tensor = u @ vh
    return rotation
