"""FedMomentum: the leading part of the mean product becomes the factors, the next part is folded into W.

Yan et al., FedMomentum: Preserving LoRA Training Momentum in Federated Fine-Tuning, arXiv 2603.08014. The mean product
dW = sum_i p_i * s * B_i @ A_i = U S V' falls into three parts: the first r singular triples, LoRA's again, with the
root of S on either side,

    B = U_r sqrt(S_r),  A = sqrt(S_r) V_r' / s,  so that s B A = U_r S_r V_r';

the triples r + 1 to p, which are folded into W; and negligible ones, which are dropped. p is the smallest with
sum_{j <= p} S_j^2 >= tau * sum_j S_j^2. With tau = 1 nothing is dropped, and s B A + W is exact.

A singular value of 0 would leave zeros in both factors, which never train again. Its row of A is drawn anew, as LoRA
begins.

The full text could not be read: what the energy is (here the sum of squares, as FLoRIST has it) and when the rest goes
into W (here in the same round) were chosen. The SVD is exact, where the paper's is randomised.

Differs from FedLLM-Factory's re-implementation, which leaves alpha / r out: there s B A is s times what was trained.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.together import ranks_of_energy, truncations
from fedlit.round.cohort import Cohort
from fedlit.round.rules.base import Traffic, both_ways, payload_bytes
from fedlit.round.rules.factors import fresh_factors, other_bytes, other_means, product_bytes
from fedlit.round.rules.options import FedMomentumOptions
from fedlit.round.rules.products import ProductRule, require_share, those_who_returned
from fedlit.round.server import ServerState

SUM_ROUNDING = 2.0**-40
"""What the rounding of sums of some clients may leave of a singular value that is 0, times the longer side."""


@dataclass(frozen=True, kw_only=True)
class FedMomentum(FedMomentumOptions, ProductRule):
    """s * B @ A <- the first r triples of sum_i p_i * s * B_i @ A_i, W <- W + those after them."""

    needs: ClassVar[frozenset[str]] = frozenset("AB")
    folds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        ProductRule.__post_init__(self)
        require_share(self.energy_threshold)

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with new factors and the rest folded."""
        shared = other_means(cohort, server)
        means = self.mean_products(cohort, server)
        makers = [partial(means.__getitem__, layer.name) for layer in server.layers]
        ranks = ranks_of_energy(makers, self.energy_threshold)
        fresh = fresh_factors(server, self.seed)
        rests = {}
        widths = [max(layer.rank, rank) for layer, rank in zip(server.layers, ranks, strict=True)]
        for layer, part in zip(server.layers, truncations(makers, widths), strict=True):
            left, right, there = _split(part, layer.rank, max(part.shape) * SUM_ROUNDING if self.by_sums else 0.0)
            right = torch.where(there[:, None], right / layer.scaling(), fresh[layer.a].double())
            shared[layer.a], shared[layer.b] = right.to(shared[layer.a]), left.to(shared[layer.b])
            rests[layer.name] = part.without(layer.rank)
        folded = server.fold({name: rest for name, rest in rests.items() if rest.width})
        return replace(folded, shared=shared, folded_ranks={name: rest.width for name, rest in rests.items()})

    def traffic(self, server: ServerState, clients: Mapping[int, bool], trained: Collection[str]) -> dict[int, Traffic]:
        """Return the factors up; down the new ones and the rest. By sums Y and P up, and Q down in between."""
        returned = those_who_returned(clients)
        ranks = server.folded_ranks or {
            layer.name: max(0, self.most_ranks(server, returned)[layer.name] - layer.rank) for layer in server.layers
        }
        up = payload_bytes(server, server.shared)
        down = up + sum(product_bytes(server, layer, ranks[layer.name]) for layer in server.layers)
        basis = 0
        if self.by_sums:
            sent, basis = self.sketch_bytes(server, self.widths(server, returned))
            up = other_bytes(server) + sent
        return both_ways(
            clients, dict.fromkeys(clients, up), {client: down + basis * came for client, came in clients.items()}
        )


def _split(part: LowRank, rank: int, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return U sqrt(S) (out, rank) and sqrt(S) V' (rank, in) of the first triples of left = U S, right = V', and which
    singular values (rank,) are more than rounding, and than `least`. Of the others both are zeros.
    """
    scaled = part.left[:, :rank]
    values = scaled.norm(dim=0)
    there = values > (values.max() * max(part.shape) * torch.finfo(values.dtype).eps).clamp(min=least)
    roots = torch.where(there, values.sqrt(), 0.0)
    return scaled * torch.where(there, values.rsqrt(), 0.0), roots[:, None] * part.right[:rank], there
