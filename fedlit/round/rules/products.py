"""The mean of the clients' products of factors: from the factors side by side, or from two sums.

A server that sees sums alone, since they are masked or noisy, cannot have the clients' factors. With
`aggregate_by=sums` it asks twice (the range finder of Halko, Martinsson and Tropp, arXiv 0909.4061, which FedASK, Wen
et al., arXiv 2507.09990, has for LoRA), with Omega (in, w) Gaussian, from a stream of its own for each round:

    Y = sum_i p_i s B_i (A_i Omega),    Q = qr(Y),    P = sum_i p_i s A_i' (B_i' Q),    M = sum_i p_i s B_i A_i = Q P'

Exact where w is at least the rank of M. Of a narrower sketch the error |M - Q P'| is, in the mean and at most,
sqrt(1 + k / (w - k - 1)) times what the best matrix of rank k misses, for every k up to w - 2 (theorem 10.5 there).

Shapes: n clients with weights p_i; A (r, in), B (out, r), in the server's scaling s; Y and Q (out, w), P (in, w), all
in float64. No matrix (out, in) is made.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.round.cohort import Cohort
from fedlit.round.rules.base import Traffic, both_ways
from fedlit.round.rules.factors import (
    ByLayer,
    by_layer,
    fresh_factors,
    has_others,
    other_bytes,
    other_means,
    product_bytes,
    stacked_products,
)
from fedlit.round.rules.options import ProductOptions
from fedlit.round.rules.ways import SUM_BYTES, WayRule
from fedlit.round.server import ServerState
from fedlit.seeding import torch_stream

SPARE = 2
"""Columns of a sketch above the rank. Without any, the square part of Omega that meets M is now and then close to
singular, and the fixed-point sum's rounding of 2**-45 is multiplied by its inverse."""

SCALE = 2.0**7
"""Of Omega, so that this rounding is small against Y. An entry of Y is then a row's length of a client's s B A times
some 600 at most, which leaves room for a length of 200 below the limit of the sum (2**17)."""


@dataclass(frozen=True, kw_only=True)
class ProductRule(ProductOptions, WayRule):
    """A rule over the mean product. See `ProductOptions` for `aggregate_by` and `sketch_width`."""

    seed: int = 0

    def __post_init__(self) -> None:
        WayRule.__post_init__(self)
        if self.sketch_width is None:
            return
        if self.aggregate_by != "sums":
            raise UserError(
                f"method.sketch_width={self.sketch_width} is that of method.aggregate_by=sums, but "
                f"aggregate_by={self.aggregate_by}; leave one of them out"
            )
        if type(self.sketch_width) is not int or self.sketch_width < 1:
            raise UserError(
                f"method.sketch_width={self.sketch_width} must be null (the largest rank) or a number of 1 or more"
            )

    def num_sums(self, server: ServerState) -> int:
        """Return 2, Y and P, and 1 more where other tensors travel beside the factors."""
        return 2 + has_others(server) if self.by_sums else 1

    def mean_products(self, cohort: Cohort, server: ServerState) -> ByLayer:
        """Return sum_i p_i * scaling * B_i @ A_i by layer name; one collective, or two."""
        return self._sketched(cohort, server, {}) if self.by_sums else stacked_products(cohort, server)

    def mean_residuals(self, cohort: Cohort, server: ServerState, mean: Mapping[str, Tensor]) -> ByLayer:
        """Return scaling * sum_i p_i (B_i - B)(A_i - A) by layer name, with the means B and A, by two sums.

        It is the mean product less that of the means. As a sum of its own it has one client's rank less, and a narrow
        sketch costs a part of the residual, not of the whole product.
        """
        return self._sketched(cohort, server, mean)

    def restart(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server with the mean product folded into W, the old factors gone, and fresh ones of no effect."""
        others = replace(server, shared=other_means(cohort, server))
        folded = server.fold(self.mean_products(cohort, server))
        return replace(folded, shared=fresh_factors(others, self.seed))

    def widths(self, server: ServerState, client_ids: Collection[int], *, centred: bool = False) -> dict[str, int]:
        """Return w of every layer in a round in which these clients returned; 0 where nothing is there to sketch.

        centred: of the residuals of clients of one rank, which have the rank of one client less.
        """
        found = {}
        for layer in server.layers:
            if centred:
                rank = max(0, len(client_ids) - 1) * layer.rank
            else:
                rank = sum(layer.rank_of(client_id) for client_id in client_ids)
            width = self.sketch_width or (rank + SPARE if rank else 0)
            found[layer.name] = min(width, *_sides(server, layer))
        return found

    def most_ranks(self, server: ServerState, client_ids: Collection[int]) -> dict[str, int]:
        """Return the largest rank that every layer's mean can have in a round in which these clients returned."""
        return {
            layer.name: min(sum(layer.rank_of(client_id) for client_id in client_ids), *_sides(server, layer))
            for layer in server.layers
        }

    def sketch_bytes(self, server: ServerState, widths: Mapping[str, int]) -> tuple[int, int]:
        """Return the bytes that a client that returned sends of Y and P, and that it receives of Q in between."""
        up = down = 0
        for layer in server.layers:
            num_out, num_in = _sides(server, layer)
            up += widths[layer.name] * (num_out + num_in) * SUM_BYTES
            down += widths[layer.name] * num_out * SUM_BYTES
        return up, down

    def folding_traffic(
        self,
        server: ServerState,
        clients: Mapping[int, bool],
        beside: tuple[int, int],
        widths: Mapping[str, int],
        kept: Mapping[str, int],
    ) -> dict[int, Traffic]:
        """Return the traffic of a round by sums whose result is a matrix for each layer.

        A client that returned has Q already, and needs P alone where the result is Q P' itself; to one that was lost
        both are sent, or the dense matrix where that is less.

        beside: bytes up and down of all else. widths: w by layer name. kept: the result's.
        """
        up, basis = self.sketch_bytes(server, widths)
        whole = {layer.name: product_bytes(server, layer, kept[layer.name]) for layer in server.layers}
        rest = {
            layer.name: widths[layer.name] * _sides(server, layer)[1] * server.shared[layer.a].element_size()
            if kept[layer.name] == widths[layer.name]
            else whole[layer.name]
            for layer in server.layers
        }
        down = {True: beside[1] + basis + sum(rest.values()), False: beside[1] + sum(whole.values())}
        return both_ways(
            clients,
            dict.fromkeys(clients, beside[0] + up),
            {client_id: down[returned] for client_id, returned in clients.items()},
        )

    def restart_traffic(self, server: ServerState, clients: Mapping[int, bool]) -> dict[int, Traffic]:
        """Return the traffic of `restart` by sums: factors do not travel at all."""
        others, widths = other_bytes(server), self.widths(server, those_who_returned(clients))
        return self.folding_traffic(server, clients, (others, others), widths, widths)

    def _sketched(self, cohort: Cohort, server: ServerState, centre: Mapping[str, Tensor]) -> ByLayer:
        """Return Q P' by layer name, of products of the factors less those in `centre`."""
        if cohort.plan.expected is not None and self.sketch_width is None:
            raise UserError(
                "method.sketch_width=null is as wide as the number of clients that came, which privacy.unit=client "
                "hides; give a number, such as twice method.lora_rank"
            )
        omegas = self._omegas(server, self.widths(server, cohort.client_ids, centred=bool(centre)))

        def terms(layer: LoraLayer, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
            left, right = tensors[layer.b].double(), tensors[layer.a].double()
            if centre:
                left, right = left - centre[layer.b].double(), right - centre[layer.a].double()
            return left * layer.scaling(), right

        def ranges(tensors: TensorDict) -> TensorDict:
            found = {layer.name: terms(layer, tensors) for layer in server.layers}
            return {name: left @ (right @ omegas[name]) for name, (left, right) in found.items()}

        bases: TensorDict = {name: torch.linalg.qr(y).Q for name, y in cohort.mean_of(ranges).items()}

        def projections(tensors: TensorDict) -> TensorDict:
            found = {layer.name: terms(layer, tensors) for layer in server.layers}
            return {name: right.T @ (left.T @ bases[name]) for name, (left, right) in found.items()}

        projected = cohort.mean_of(projections)
        return by_layer(server, lambda layer: LowRank(bases[layer.name], projected[layer.name].T))

    def _omegas(self, server: ServerState, widths: Mapping[str, int]) -> TensorDict:
        """Return Omega (in, w) of every layer."""
        omegas = {}
        with torch_stream(self.seed, "sketch", round_idx=server.round_idx):
            for layer in server.layers:
                a = server.shared[layer.a]
                # Drawn on the CPU, so that no device has a sketch of its own.
                drawn = torch.randn(a.shape[1], widths[layer.name], dtype=torch.float64)
                omegas[layer.name] = (drawn * SCALE).to(a.device)
        return omegas


def require_share(energy: float) -> None:
    """Raise a UserError for a share of singular values that is none."""
    if not 0 < energy <= 1:
        raise UserError(f"method.energy_threshold={energy} must be above 0 and at most 1")


def those_who_returned(clients: Mapping[int, bool]) -> list[int]:
    """Return the clients of a round that sent something."""
    return [client_id for client_id, returned in clients.items() if returned]


def _sides(server: ServerState, layer: LoraLayer) -> tuple[int, int]:
    """Return (out, in)."""
    return server.shared[layer.b].shape[0], server.shared[layer.a].shape[1]
