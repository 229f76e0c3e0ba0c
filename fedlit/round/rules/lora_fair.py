"""LoRA-FAIR: the means of the factors, and a correction of B that makes up for what their product misses.

Bian et al., LoRA-FAIR: Federated LoRA Fine-Tuning with Aggregation and Initialization Refinement, ICCV 2025, arXiv
2411.14961. With the means B and A, and T = sum_i p_i B_i A_i, the server looks for the dB that brings (B + dB) A near
to T and stays small, and sends A and B + dB. Here it is the minimum of

    |T - (B + dB) A|_F^2 + lambda |dB|_F^2,    dB = (T - B A) A' (A A' + lambda I)^-1,

of the factors as they are, without alpha / r, which multiplies both products alike. From the thin SVD A = U S V' it is
R diag(S / (S^2 + lambda)) U' with R = (T - B A) V: no inverse of A A', and lambda may be 0.

Differs from the paper in the distance: there it is a similarity S(T, (B + dB) A), the cosine, with lambda |dB|, and dB
comes from steps of SGD. The cosine does not see the size of a product, so its minimum is not the one above.

Shapes: A (r, in), B (out, r), T (out, in); of A's SVD U (r, k), S (k,), V (in, k) with k = min(r, in). R (out, k) is a
sum over clients, sum_i p_i (B_i - B)((A_i - A) V), which `aggregate_by=sums` asks for once the means are known.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from fedlit.algebra.mean_products import mean_residual, shrunk_inverse
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.round.cohort import Cohort
from fedlit.round.fixed_point import FRACTION_BITS
from fedlit.round.rules.base import Traffic, both_ways, payload_bytes
from fedlit.round.rules.factors import factor_names, weight_tensor
from fedlit.round.rules.options import LoraFairOptions
from fedlit.round.rules.ways import SUM_BYTES, WayRule
from fedlit.round.server import ServerState


@dataclass(frozen=True, kw_only=True)
class LoraFair(LoraFairOptions, WayRule):
    """A <- sum_i p_i A_i, B <- sum_i p_i B_i + dB."""

    needs: ClassVar[frozenset[str]] = frozenset("AB")

    def __post_init__(self) -> None:
        WayRule.__post_init__(self)
        if not 0 <= self.regularization < float("inf"):
            raise UserError(f"method.regularization={self.regularization} must be a finite number of at least 0")

    def num_sums(self, server: ServerState) -> int:
        """Return 1, the means; with aggregate_by=sums 1 more, R."""
        return 1 + self.by_sums

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with the means, B corrected."""
        shared = cohort.mean()
        bases = {layer.name: torch.linalg.svd(shared[layer.a].double(), full_matrices=False) for layer in server.layers}
        missed = (self._summed if self.by_sums else _stacked)(
            cohort, server, shared, {name: vh.T for name, (_, _, vh) in bases.items()}
        )
        for layer in server.layers:
            u, s, _ = bases[layer.name]
            inverse = shrunk_inverse(s, self.regularization, _rounding(s, shared[layer.a]))
            correction = missed[layer.name] * inverse @ u.T
            shared[layer.b] = (shared[layer.b].double() + correction).to(shared[layer.b])
        return replace(server, shared=shared)

    def _summed(
        self, cohort: Cohort, server: ServerState, mean: Mapping[str, Tensor], bases: Mapping[str, Tensor]
    ) -> TensorDict:
        """Return R by layer name, of one sum."""

        def missed(tensors: TensorDict) -> TensorDict:
            return {
                layer.name: (tensors[layer.b].double() - mean[layer.b].double())
                @ ((tensors[layer.a].double() - mean[layer.a].double()) @ bases[layer.name])
                for layer in server.layers
            }

        return cohort.mean_of(missed)

    def traffic(self, server: ServerState, clients: Mapping[int, bool], trained: Collection[str]) -> dict[int, Traffic]:
        """Return the factors both ways. By sums a client also sends its part of R, for which those who return get the
        means in between, and only B + dB afterwards.
        """
        whole = payload_bytes(server, server.shared)
        if not self.by_sums:
            return both_ways(clients, dict.fromkeys(clients, whole), dict.fromkeys(clients, whole))
        again = sum(
            server.shared[layer.b].shape[0] * min(server.shared[layer.a].shape) * SUM_BYTES for layer in server.layers
        )
        corrected = payload_bytes(server, [layer.b for layer in server.layers])
        return both_ways(
            clients,
            dict.fromkeys(clients, whole + again),
            {client: whole + corrected * came for client, came in clients.items()},
        )


def _stacked(
    cohort: Cohort, server: ServerState, mean: Mapping[str, Tensor], bases: Mapping[str, Tensor]
) -> TensorDict:
    """Return R = (sum_i p_i B_i A_i - B A) V by layer name, from the factors side by side."""
    stacked, weights = cohort.stack(factor_names(server)), weight_tensor(cohort, server)
    found = {}
    for layer in server.layers:
        residual = mean_residual(stacked[layer.a], stacked[layer.b], mean[layer.b], weights, 1.0)
        found[layer.name] = residual.left @ (residual.right @ bases[layer.name])
    return found


def _rounding(values: Tensor, mean: Tensor) -> Tensor:
    """Return what a singular value of the mean A may be by rounding alone, in its type or in the fixed-point sum."""
    return (values.max() * torch.finfo(mean.dtype).eps).clamp(min=2.0**-FRACTION_BITS) * max(mean.shape)
