"""HetLoRA: clients of different ranks, their factors padded with zeros to the largest rank and averaged.

Cho et al., Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models, arXiv 2401.06432: zero padding
and truncation. A client's scaling alpha / r is shared out equally to A and B, so that factors of different ranks are
averaged in one unit. The paper's rank self-pruning and norm weighting are not part of this rule.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedlit.aggregation import AggregationRule
from fedlit.aggregation.factors import at_rank, at_server_scale
from fedlit.cohort import Cohort
from fedlit.server import Download, ServerState
from fedlit.tensors import TensorDict


@dataclass(frozen=True)
class HetLora(AggregationRule):
    """A, B <- means of the clients' factors, zeros beyond each client's rank."""

    needs: ClassVar[frozenset[str]] = frozenset("AB")
    averages: ClassVar[bool] = True
    mixes_ranks: ClassVar[bool] = True

    def download(self, server: ServerState, client_id: int) -> Download:
        """Return the first rows of A and columns of B, as many as the client's rank."""
        return Download(shared=at_rank(server.shared, server.layers, client_id, share_of_a=0.5))

    def upload(self, shared: TensorDict, server: ServerState, client_id: int) -> TensorDict:
        """Return the client's factors, zeros beyond its rank, in the server's scaling."""
        return at_server_scale(shared, server.layers, client_id, share_of_a=0.5)

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with the mean."""
        return server.replace(shared=cohort.mean())
