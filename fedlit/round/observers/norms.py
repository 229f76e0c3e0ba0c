"""Norms that lemma 1 of SCL (arXiv 2412.07021, equation 2) and of FedFTG (arXiv 2410.23111, equation 30) bounds.

|W_agg| <= B + eta S t_agg D: with plain SGD of rate eta each of the t_agg local steps of each of S rounds moves a
client's weights by eta times a gradient of norm at most D, and a mean of clients goes no farther than the farthest. B
is the norm before the first round. The lemma is about one matrix; over all tensors together it holds the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedlit.algebra.tensors import norm
from fedlit.round.jobs import GRADIENT_NORM, ClientJob, ClientResult
from fedlit.round.observers import Observer, RoundView
from fedlit.round.payload import Payload


def shared_norm(shared: Mapping[str, Tensor]) -> dict[str, float]:
    """Return `norms/shared`, the Euclidean norm over all tensors; nothing where nothing travels."""
    return {"norms/shared": norm(shared)} if shared else {}


@dataclass(frozen=True, kw_only=True)
class NormObserver(Observer):
    """The norm of the server's shared tensors, the largest gradient of the round's clients, if they measure it, and
    the steps of the one that took most.
    """

    def see(self, job: ClientJob, result: ClientResult, sent: Payload) -> tuple[float | None, float]:
        """Return the largest gradient norm of a client, if it was measured, and its steps."""
        return result.metrics.get(GRADIENT_NORM), result.metrics.get("num_steps", 0)

    def record(self, view: RoundView) -> dict[str, Any]:
        """Return the norms of the round."""
        found: dict[str, Any] = shared_norm(view.after.shared)
        gradients = [gradient for gradient, _ in view.notes.values() if gradient is not None]
        if gradients:
            found["norms/gradient"] = max(gradients)
        if view.notes:
            found["norms/steps"] = max(int(steps) for _, steps in view.notes.values())
        return found
