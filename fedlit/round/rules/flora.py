"""FLoRA: the clients' factors stacked, which adds up their products exactly, merged into the backbone each round.

Wang et al., FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous Low-Rank Adaptations, arXiv
2409.05976. [B_1, ..., B_n] @ [p_1 A_1; ...; p_n A_n] is the weighted sum of the products, whatever the clients' ranks;
every round starts from fresh factors. The effective weights are those of FedEx-LoRA.

Differs from the released code in that each client's product carries its own scaling.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from fedlit.round.cohort import Cohort
from fedlit.round.rules.base import Traffic, both_ways, payload_bytes
from fedlit.round.rules.factors import other_bytes, product_bytes
from fedlit.round.rules.products import ProductRule
from fedlit.round.server import ServerState


@dataclass(frozen=True, kw_only=True)
class Flora(ProductRule):
    """W <- W + sum_i p_i * scaling_i * B_i @ A_i; A fresh, B = 0."""

    needs: ClassVar[frozenset[str]] = frozenset("AB")
    mixes_ranks: ClassVar[bool] = True
    folds: ClassVar[bool] = True

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with the mean product merged."""
        return self.restart(cohort, server)

    def traffic(self, server: ServerState, clients: Mapping[int, bool], trained: Collection[str]) -> dict[int, Traffic]:
        """Return a client's own factors up and the stack of all clients' down; by sums see `folding_traffic`."""
        if self.by_sums:
            return self.restart_traffic(server, clients)
        down = other_bytes(server) + sum(
            product_bytes(server, layer, sum(layer.rank_of(client_id) for client_id in clients if clients[client_id]))
            for layer in server.layers
        )
        up = {client_id: payload_bytes(server, server.shared, client_id) for client_id in clients}
        return both_ways(clients, up, dict.fromkeys(clients, down))
