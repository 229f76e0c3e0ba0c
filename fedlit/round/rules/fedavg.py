"""FedAvg: the server takes the weighted mean of the clients' shared tensors.

McMahan et al., arXiv 1602.05629, Algorithm 1. Over LoRA's A and B it is FedIT (Zhang et al., arXiv 2305.05644): the
mean of the factors, whose product is not the mean of the products. Over B alone with A frozen it is FFA-LoRA (Sun et
al., arXiv 2403.12313), over A alone FedSA-LoRA (Guo et al., arXiv 2410.01463), over one factor a round RoLoRA (Chen et
al., arXiv 2502.01755), over the core Fed-SB (Singhal et al., arXiv 2502.15436), over whole weights FedFTG and full
fine-tuning. Over rotated factors it is FedRot-LoRA (transforms/rotation.py), over factors of several ranks, padded with
zeros, HetLoRA (Cho et al., arXiv 2401.06432; transforms/rank_scaling.py): a client's scaling alpha / r is shared out
equally to A and B. That paper's rank self-pruning and norm weighting are not part of it.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from fedlit.round.cohort import Cohort
from fedlit.round.rules.base import AggregationRule
from fedlit.round.server import ServerState


@dataclass(frozen=True)
class FedAvg(AggregationRule):
    """theta <- sum_i p_i theta_i."""

    averages: ClassVar[bool] = True
    mixes_ranks: ClassVar[bool] = True

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with the mean of the cohort."""
        return replace(server, shared=cohort.mean())


@dataclass(frozen=True)
class NoAggregation(AggregationRule):
    """Nothing travels: every client trains alone, the floor that a federation should beat."""

    def num_sums(self, server: ServerState) -> int:
        """Return 0."""
        return 0

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server unchanged."""
        return server
