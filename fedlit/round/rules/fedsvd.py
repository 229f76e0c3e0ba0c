"""FedSVD: clients train B; the server takes the mean and refactors B @ A by SVD, so that A follows the data.

Lee et al., FedSVD: Adaptive Orthogonalization for Private Federated Learning with LoRA, arXiv 2505.12805. With A the
same for all clients the mean of B is exact; B @ A = U S V' gives B = U S and A = V', orthonormal rows.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from fedlit.algebra.low_rank import LowRank
from fedlit.errors import UserError
from fedlit.round.cohort import Cohort
from fedlit.round.rules.base import AggregationRule, Traffic, both_ways, payload_bytes
from fedlit.round.rules.options import FedSvdOptions
from fedlit.round.server import ServerState


@dataclass(frozen=True, kw_only=True)
class FedSvd(FedSvdOptions, AggregationRule):
    """B, A <- U S, V' of sum_i p_i B_i @ A.

    svd_every: rounds between two factorisations; in the others B is averaged alone.
    """

    needs: ClassVar[frozenset[str]] = frozenset("B")
    sets: ClassVar[frozenset[str]] = frozenset("A")

    def __post_init__(self) -> None:
        if self.svd_every < 1:
            raise UserError(f"method.svd_every={self.svd_every} must be 1 or more")

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with the mean, refactored where it is time; the product stays what it is."""
        shared = cohort.mean()
        if self._refactors(server):
            for layer in server.layers:
                product = LowRank(shared[layer.b].double(), shared[layer.a].double()).truncated(layer.rank)
                shared[layer.a] = product.right.to(shared[layer.a])
                shared[layer.b] = product.left.to(shared[layer.b])
        return replace(server, shared=shared)

    def traffic(self, server: ServerState, clients: Mapping[int, bool], trained: Collection[str]) -> dict[int, Traffic]:
        """Return B up, and down B, with A where this round makes a new one."""
        trained = server.shared.keys() & set(trained)
        up = payload_bytes(server, trained)
        down = payload_bytes(server, server.shared if self._refactors(server) else trained)
        return both_ways(clients, dict.fromkeys(clients, up), dict.fromkeys(clients, down))

    def _refactors(self, server: ServerState) -> bool:
        """Whether the round that begins from this server ends with a factorisation."""
        return (server.round_idx + 1) % self.svd_every == 0
