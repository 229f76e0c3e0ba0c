"""FlexLoRA: the mean of the clients' products, truncated by SVD back to each client's rank.

Bai et al., Federated Fine-tuning of Large Language Models under Heterogeneous Tasks and Client Resources, arXiv
2402.11505. dW = sum_i p_i * scaling_i * B_i @ A_i; with dW = U S V', a client of rank r gets A = V'[:r] and
B = U[:, :r] S[:r] / scaling. The leading triples come from small Gram matrices, or from the SVD of a small core where
the range of the singular values asks for it (LowRank.truncated); no dense (out, in) matrix exists while the clients'
factors are thinner than that.

Differs from the released code, which fixes alpha at 16, never applies different ranks to its clients, and takes plain
means of the factors where all ranks are equal.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from fedlit.algebra.together import truncations
from fedlit.round.cohort import Cohort
from fedlit.round.rules.base import Traffic, both_ways, payload_bytes
from fedlit.round.rules.factors import other_bytes, other_means
from fedlit.round.rules.products import ProductRule, those_who_returned
from fedlit.round.server import ServerState


@dataclass(frozen=True, kw_only=True)
class FlexLora(ProductRule):
    """B @ A * scaling <- best approximation of sum_i p_i * scaling_i * B_i @ A_i."""

    needs: ClassVar[frozenset[str]] = frozenset("AB")
    mixes_ranks: ClassVar[bool] = True

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with the factors of the truncated mean, of the largest rank."""
        shared = other_means(cohort, server)
        means = self.mean_products(cohort, server)
        makers = [partial(means.__getitem__, layer.name) for layer in server.layers]
        bests = truncations(makers, [layer.rank for layer in server.layers])
        for layer, best in zip(server.layers, bests, strict=True):
            shared[layer.a] = best.right.to(shared[layer.a])
            shared[layer.b] = (best.left / layer.scaling()).to(shared[layer.b])
        return replace(server, shared=shared)

    def traffic(self, server: ServerState, clients: Mapping[int, bool], trained: Collection[str]) -> dict[int, Traffic]:
        """Return a client's own factors both ways; by sums its parts of Y and P up, and down also Q to those who
        returned.
        """
        if not self.by_sums:
            return super().traffic(server, clients, trained)
        sent, basis = self.sketch_bytes(server, self.widths(server, those_who_returned(clients)))
        down = {
            client_id: payload_bytes(server, server.shared, client_id) + (basis if returned else 0)
            for client_id, returned in clients.items()
        }
        return both_ways(clients, dict.fromkeys(clients, other_bytes(server) + sent), down)
