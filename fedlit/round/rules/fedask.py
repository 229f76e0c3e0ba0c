"""FedASK: the mean of the clients' products from two narrow sums, split evenly into both factors.

Wen et al., Differentially Private Federated Low Rank Adaptation Beyond Fixed-Matrix, arXiv 2507.09990 (NeurIPS 2025),
algorithm 1. With Omega (in, w) Gaussian and w = r + oversampling:

    Y = sum_i p_i s B_i (A_i Omega),    Q = qr(Y),    P = sum_i p_i s A_i' (B_i' Q),    P' = U S V',
    B = Q U sqrt(S / s),    A = sqrt(S / s) V',    the first r singular triples each.

So s B A is the best matrix of rank r to Q P'. It is the best one to the mean product M itself where w reaches the
rank of M; of a narrower sketch see `products`. The width does not depend on who takes part, and the server sees two
sums alone. A direction that M lacks has a zero row in A and a zero column in B, which get no gradient ever after: that
is the published split.

Differs from the released code in: Omega is drawn anew in each round, there once in a run; w = r there; the sums are in
float64.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.together import truncations
from fedlit.errors import UserError
from fedlit.round.cohort import Cohort
from fedlit.round.rules.base import AggregationRule, Traffic
from fedlit.round.rules.factors import other_means
from fedlit.round.rules.flexlora import FlexLora
from fedlit.round.rules.options import FedAskOptions
from fedlit.round.server import ServerState


@dataclass(frozen=True, kw_only=True)
class FedAsk(FedAskOptions, AggregationRule):
    """B, A <- Q U sqrt(S / s), sqrt(S / s) V' of the sketch Q P' of sum_i p_i s B_i @ A_i.

    Clients train both factors, or B alone from the server's A, as the paper does under differential privacy.
    oversampling: columns of the sketch above the rank r of the factors.
    """

    seed: int = 0

    needs: ClassVar[frozenset[str]] = frozenset("B")
    sets: ClassVar[frozenset[str]] = frozenset("A")
    asks_again: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if type(self.oversampling) is not int or self.oversampling < 0:
            raise UserError(f"method.oversampling={self.oversampling} must be a number of 0 or more")

    def num_sums(self, server: ServerState) -> int:
        """Return 2, Y and P, and 1 more where other tensors travel beside the factors."""
        return self._sketch(server).num_sums(server)

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with the factors of the truncated sketch."""
        shared = other_means(cohort, server)
        means = self._sketch(server).mean_products(cohort, server)
        makers = [partial(means.__getitem__, layer.name) for layer in server.layers]
        bests = truncations(makers, [layer.rank for layer in server.layers])
        for layer, best in zip(server.layers, bests, strict=True):
            left, right = evenly(best)
            shared[layer.a] = (right / layer.scaling() ** 0.5).to(shared[layer.a])
            shared[layer.b] = (left / layer.scaling() ** 0.5).to(shared[layer.b])
        return replace(server, shared=shared)

    def traffic(self, server: ServerState, clients: Mapping[int, bool], trained: Collection[str]) -> dict[int, Traffic]:
        """Return a client's parts of Y and P up, and the new factors down, with Q to those who returned."""
        return self._sketch(server).traffic(server, clients, trained)

    def _sketch(self, server: ServerState) -> FlexLora:
        """Return the rule that sketches the same mean at this width."""
        width = max(layer.rank for layer in server.layers) + self.oversampling
        return FlexLora(aggregate_by="sums", sketch_width=width, seed=self.seed)


def evenly(best: LowRank) -> tuple[Tensor, Tensor]:
    """Return U sqrt(S) (out, r) and sqrt(S) V' (r, in) of a truncated matrix U S V', left = U S."""
    roots = best.left.norm(dim=0).sqrt()
    inverse = torch.where(roots > 0, 1 / roots, 0.0)
    return best.left * inverse, best.right * roots[:, None]
