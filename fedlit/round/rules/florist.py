"""FLoRIST: FLoRA's mean product, of which each layer keeps the fewest singular values with enough of the energy.

Ramesh and Dass, FLoRIST: Singular Value Thresholding for Efficient and Accurate Federated Fine-Tuning of Large Language
Models, MLSys 2026, arXiv 2506.09199, section 3 and algorithm 1. dW = sum_i p_i * scaling_i * B_i @ A_i = U S V'; a
layer keeps the smallest p with

    sum_{j <= p} S_j^2 >= tau * sum_j S_j^2

(energy: the sum of squares), so that the rank differs between layers and rounds. U_p S_p and V_p' are sent to all, who
merge them into W and begin the next round from fresh factors of their own ranks. With tau = 1 it is FLoRA.

Differs from the paper in how the singular values are found: from the QR of both stacks in place of their SVDs, which
gives the same S. Each client's product carries its own scaling, which the paper leaves out.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from fedlit.algebra.together import ranks_of_energy, truncations
from fedlit.round.cohort import Cohort
from fedlit.round.rules.base import Traffic, both_ways, payload_bytes
from fedlit.round.rules.factors import fresh_factors, other_bytes, other_means, product_bytes
from fedlit.round.rules.options import FloristOptions
from fedlit.round.rules.products import ProductRule, require_share, those_who_returned
from fedlit.round.server import ServerState


@dataclass(frozen=True, kw_only=True)
class Florist(FloristOptions, ProductRule):
    """W <- W + the leading part of sum_i p_i * scaling_i * B_i @ A_i; A fresh, B = 0."""

    needs: ClassVar[frozenset[str]] = frozenset("AB")
    mixes_ranks: ClassVar[bool] = True
    folds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        ProductRule.__post_init__(self)
        require_share(self.energy_threshold)

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with the leading part merged. A layer whose clients sent no change is left as it was."""
        others = replace(server, shared=other_means(cohort, server))
        means = self.mean_products(cohort, server)
        makers = [partial(means.__getitem__, layer.name) for layer in server.layers]
        ranks = ranks_of_energy(makers, self.energy_threshold)
        names = [layer.name for layer in server.layers]
        kept = {name: part for name, part in zip(names, truncations(makers, ranks), strict=True) if part.width}
        return replace(
            server.fold(kept),
            shared=fresh_factors(others, self.seed),
            folded_ranks=dict(zip(names, ranks, strict=True)),
        )

    def traffic(self, server: ServerState, clients: Mapping[int, bool], trained: Collection[str]) -> dict[int, Traffic]:
        """Return a client's own factors up and the part that is kept down; by sums see `folding_traffic`."""
        ranks = server.folded_ranks or self.most_ranks(server, those_who_returned(clients))
        if self.by_sums:
            others, widths = other_bytes(server), self.widths(server, those_who_returned(clients))
            return self.folding_traffic(server, clients, (others, others), widths, ranks)
        down = other_bytes(server) + sum(product_bytes(server, layer, ranks[layer.name]) for layer in server.layers)
        up = {client_id: payload_bytes(server, server.shared, client_id) for client_id in clients}
        return both_ways(clients, up, dict.fromkeys(clients, down))
