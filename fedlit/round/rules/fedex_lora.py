"""FedEx-LoRA: exact aggregation, what the mean of the factors misses is folded into the frozen weights.

Singhal et al., FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning of Large Language Models, arXiv
2410.09432, equations 6 and 12 to 18, and its three assignment strategies. Every product carries the scaling that the
forward pass uses, every mean the same weights p_i.

Differs from the released code, which adds the residual transposed to nn.Linear weights. The residual travels as
factors of rank (n - 1) r, one r less than the paper's bound:
    sum_i p_i B_i A_i - B A = sum_{i<n} p_i (B_i - B)(A_i - A_n),  B = sum_i p_i B_i,  A = sum_i p_i A_i.

Differs from it also in where the residual goes: beside W, not into its bits (ServerState.fold). Added to a bfloat16 W,
as the paper's arithmetic and commonsense runs would, nearly all of it is rounded away.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.mean_products import mean_product, mean_residual
from fedlit.algebra.tensors import TensorDict
from fedlit.algebra.together import truncations
from fedlit.errors import UserError
from fedlit.round.cohort import Cohort
from fedlit.round.jobs import Start
from fedlit.round.payload import MODEL
from fedlit.round.rules.base import Traffic, both_ways, payload_bytes
from fedlit.round.rules.factors import (
    by_layer,
    factor_names,
    other_bytes,
    other_means,
    product_bytes,
    weight_tensor,
)
from fedlit.round.rules.options import ASSIGNMENTS, FedExOptions
from fedlit.round.rules.products import ProductRule, those_who_returned
from fedlit.round.server import ServerState


@dataclass(frozen=True, kw_only=True)
class FedExLora(FedExOptions, ProductRule):
    """W + scaling * B @ A <- sum_i p_i (W + scaling * B_i @ A_i) for every client.

    assignment: what becomes of the factors. `average`: their means, the residual goes into W (the method).
    `reinitialize`: fresh ones, the whole mean product goes into W. `keep`: each client keeps its own, and its W takes
    up the mean product less its own.
    residual_rank: rank to which the residual of `average` is truncated (equation 18); None is exact.
    """

    needs: ClassVar[frozenset[str]] = frozenset("AB")
    folds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        ProductRule.__post_init__(self)
        if self.assignment not in ASSIGNMENTS:
            raise UserError(f"method.assignment={self.assignment} is not known; valid are {', '.join(ASSIGNMENTS)}")
        if self.residual_rank is not None and self.assignment != "average":
            raise UserError(
                f"method.residual_rank={self.residual_rank} truncates the residual of method.assignment=average, "
                f"but assignment={self.assignment}; leave one of them out"
            )
        if self.residual_rank is not None and (type(self.residual_rank) is not int or self.residual_rank < 0):
            raise UserError(f"method.residual_rank={self.residual_rank} must be null (exact) or a rank of 0 or more")
        if self.assignment == "keep" and self.by_sums:
            raise UserError(
                "method.aggregate_by=sums lets the server see sums alone, and with method.assignment=keep it holds "
                "every client's own factors; choose assignment=average or reinitialize"
            )

    @property
    def moves_frozen(self) -> bool:
        """With assignment=keep."""
        return self.assignment == "keep"

    def begin(self, server: ServerState, num_clients: int) -> ServerState:
        """Give every client its own factors, equal before the first round, where clients keep them."""
        if self.assignment != "keep":
            return server
        clients = {name: torch.stack([server.shared[name]] * num_clients) for name in factor_names(server)}
        return replace(server, clients=clients)

    def start(self, server: ServerState, client_id: int) -> Start:
        """Return the server's factors, or the client's own with the frozen weight that makes up for them."""
        if self.assignment != "keep":
            return super().start(server, client_id)
        own = _of_client(server, client_id)
        # In the type that the client's model holds, so that who looks at them sees what it trains on.
        offsets = {layer.name: (layer.change(own) * -1.0).to(own[layer.b].dtype) for layer in server.layers}
        return Start(groups={MODEL: {**server.shared, **own}}, offsets=offsets)

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server after the assignment strategy's round."""
        match self.assignment:
            case "average":
                return self._average(cohort, server)
            case "reinitialize":
                return self.restart(cohort, server)
            case _:
                return _keep(cohort, server)

    def num_sums(self, server: ServerState) -> int:
        """Return the number of `restart`; for assignment=average 1, the mean, and 2 more for the residual."""
        if not self.by_sums or self.assignment != "average":
            return super().num_sums(server)
        return 1 if self.residual_rank == 0 else 3

    def _average(self, cohort: Cohort, server: ServerState) -> ServerState:
        mean = cohort.mean()
        alone = len(cohort.client_ids) == 1 and self.sketch_width is None and cohort.plan.expected is None
        if alone or (self.by_sums and self.residual_rank == 0):
            return replace(server.fold({}), shared=mean)
        residuals: Mapping[str, LowRank] = self._residuals(cohort, server, mean)
        if self.residual_rank is not None:
            makers = [partial(residuals.__getitem__, layer.name) for layer in server.layers]
            kept = truncations(makers, [self.residual_rank] * len(makers))
            residuals = {layer.name: one for layer, one in zip(server.layers, kept, strict=True)}
        return replace(server.fold(residuals), shared=mean)

    def _residuals(self, cohort: Cohort, server: ServerState, mean: TensorDict) -> Mapping[str, LowRank]:
        """Return scaling * (sum_i p_i B_i A_i - B A) by layer name."""
        if self.by_sums:
            return self.mean_residuals(cohort, server, mean)
        stacked, weights = cohort.stack(factor_names(server)), weight_tensor(cohort, server)
        return by_layer(
            server,
            lambda layer: mean_residual(stacked[layer.a], stacked[layer.b], mean[layer.b], weights, layer.scaling()),
        )

    def traffic(self, server: ServerState, clients: Mapping[int, bool], trained: Collection[str]) -> dict[int, Traffic]:
        """Return the factors up; down the means and the residual, or the mean product, as factors. By sums also Y and
        P up, and Q down in between.
        """
        up = payload_bytes(server, server.shared)
        if self.by_sums and self.assignment == "average":
            sketch = self.widths(server, those_who_returned(clients), centred=True)
            sketch = dict.fromkeys(sketch, 0) if self.residual_rank == 0 else sketch
            kept = {name: self._kept(width) for name, width in sketch.items()}
            return self.folding_traffic(server, clients, (up, up), sketch, kept)
        if self.by_sums:
            return self.restart_traffic(server, clients)
        n = sum(clients.values())
        if self.assignment == "average":
            widths, down = [self._kept(max(0, n - 1) * layer.rank) for layer in server.layers], up
        else:
            widths, down = [n * layer.rank for layer in server.layers], other_bytes(server)
        down += sum(product_bytes(server, layer, width) for layer, width in zip(server.layers, widths, strict=True))
        return both_ways(clients, dict.fromkeys(clients, up), dict.fromkeys(clients, down))

    def _kept(self, width: int) -> int:
        """Return the width of the residual that is sent, from its own."""
        return width if self.residual_rank is None else min(width, self.residual_rank)


def _keep(cohort: Cohort, server: ServerState) -> ServerState:
    """W holds the mean of the clients' effective weights; a client trains its own factors on W less their product."""
    stacked, weights = cohort.stack(factor_names(server)), weight_tensor(cohort, server)
    ids = torch.tensor(cohort.client_ids, device=weights.device)
    before = {name: server.clients[name][ids] for name in stacked}

    def change(layer: LoraLayer) -> LowRank:
        new, old = (mean_product(of[layer.a], of[layer.b], weights, layer.scaling()) for of in (stacked, before))
        return new - old

    clients = {name: tensor.clone() for name, tensor in server.clients.items()}
    for name, tensor in clients.items():
        tensor[ids] = stacked[name]
    server = server.fold(by_layer(server, change))
    return replace(server, clients=clients, shared=other_means(cohort, server))


def _of_client(server: ServerState, client_id: int) -> TensorDict:
    return {name: tensor[client_id] for name, tensor in server.clients.items()}
