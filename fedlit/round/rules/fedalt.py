"""FedALT: every client gets the mean of the other clients' LoRAs, and trains on from its own.

Bian et al., FedALT: Federated Fine-Tuning through Adaptive Local Training with Rest-of-World LoRA, AAAI 2026, arXiv
2503.11880: A_-k = sum_{m != k} A_m / (K - 1), and B_-k likewise.

The server forms one mean of all who returned, M = sum_m p_m x_m, from a sum, which masks do not disturb. Client k knows
its own x_k and its share p_k, and takes it out by itself: (M - p_k x_k) / (1 - p_k) is the mean of the others with
weights p_m / (1 - p_k), and one that was not among them takes M as it is. So the server sends all clients the same and
keeps no client's tensors.

Chosen here, where the paper has all clients in every round: the rest of the world are those who returned in the last
round from which anybody did. A client that was alone in it has no rest, and nothing is added to its weights. Before the
first round the rest's B is zero.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from fedlit.round.cohort import Cohort
from fedlit.round.jobs import Start
from fedlit.round.payload import MODEL
from fedlit.round.rules.base import AggregationRule, Traffic, both_ways, payload_bytes
from fedlit.round.server import ServerState

OWN_SHARE = "own_share"
"""Of `ServerState.clients`: each client's weight in the mean that the server holds, (population,) in float64."""


@dataclass(frozen=True)
class FedAlt(AggregationRule):
    """M <- sum_k p_k x_k; client k starts from its own x_k beside (M - p_k x_k) / (1 - p_k)."""

    leaves_own_out: ClassVar[bool] = True

    def begin(self, server: ServerState, num_clients: int) -> ServerState:
        """Return the server with a mean of nobody's."""
        device = next(iter(server.shared.values())).device
        shares = torch.zeros(num_clients, dtype=torch.float64, device=device)
        return replace(server, clients={**server.clients, OWN_SHARE: shares})

    def start(self, server: ServerState, client_id: int) -> Start:
        """Return the mean, and the client's own share of it."""
        return Start(groups={MODEL: server.shared}, own_share=server.clients[OWN_SHARE][client_id])

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with the mean of the cohort and everybody's share of it."""
        weights = cohort.weights
        known = server.clients[OWN_SHARE]
        shares = torch.tensor([weights.get(client, 0.0) for client in range(len(known))], dtype=known.dtype)
        clients = {**server.clients, OWN_SHARE: shares.to(known.device)}
        return replace(server, shared=cohort.mean(), clients=clients)

    def traffic(self, server: ServerState, clients: Mapping[int, bool], trained: Collection[str]) -> dict[int, Traffic]:
        """Return the client's own factors up, and down one mean for all."""
        size = payload_bytes(server, server.shared)
        return both_ways(clients, dict.fromkeys(clients, size), dict.fromkeys(clients, size))
