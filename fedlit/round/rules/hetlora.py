"""HetLoRA: clients of different ranks, their factors padded with zeros to the largest rank and averaged.

Cho et al., Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models, arXiv 2401.06432: zero padding
and truncation. A client's scaling alpha / r is shared out equally to A and B, so that factors of different ranks are
averaged in one unit. The paper's rank self-pruning and norm weighting are not part of this rule.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedlit.round.cohort import Cohort
from fedlit.round.rules.factors import MixedRanks
from fedlit.round.server import ServerState


@dataclass(frozen=True)
class HetLora(MixedRanks):
    """A, B <- means of the clients' factors, zeros beyond each client's rank."""

    averages: ClassVar[bool] = True
    share_of_a: ClassVar[float] = 0.5

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with the mean."""
        return server.replace(shared=cohort.mean())
