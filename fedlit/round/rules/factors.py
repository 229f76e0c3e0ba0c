"""What rules over LoRA factors have in common: the clients' products, factors of several ranks, fresh factors.

Shapes: n clients with weights p_i; A (r, in), B (out, r). At the server all factors stand in the server's scaling, that
of the largest rank: what a client of another rank sends is rescaled, which leaves its scaling * B @ A as it is.
"""

from typing import ClassVar

import torch

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict
from fedlit.round.cohort import Cohort
from fedlit.round.rules import AggregationRule, payload_bytes
from fedlit.round.server import Download, ServerState
from fedlit.seeding import torch_stream


class MixedRanks(AggregationRule):
    """A rule over A and B whose clients may have different ranks.

    share_of_a: the power with which the change of scaling goes to A, the rest going to B.
    """

    needs: ClassVar[frozenset[str]] = frozenset("AB")
    mixes_ranks: ClassVar[bool] = True
    share_of_a: ClassVar[float] = 0.0

    def download(self, server: ServerState, client_id: int) -> Download:
        """Return the first rows of A and columns of B, as many as the client's rank, in its scaling."""
        return Download(shared=at_rank(server.shared, server.layers, client_id, share_of_a=self.share_of_a))

    def upload(self, shared: TensorDict, server: ServerState, client_id: int) -> TensorDict:
        """Return the client's factors in the server's scaling."""
        return at_server_scale(shared, server.layers, client_id, share_of_a=self.share_of_a)


def factor_names(server: ServerState) -> list[str]:
    """Return the names of the LoRA factors, layer by layer."""
    return [name for layer in server.layers for name in (layer.a, layer.b)]


def other_means(cohort: Cohort, server: ServerState) -> TensorDict:
    """Return shared with the means of what is no LoRA factor, a classification head, and the factors as they were."""
    names = server.shared.keys() - set(factor_names(server))
    if not names:
        return dict(server.shared)
    mean = cohort.mean()
    return {name: mean[name] if name in names else tensor for name, tensor in server.shared.items()}


def other_bytes(server: ServerState) -> int:
    """Return the bytes of what is shared beside the LoRA factors."""
    return payload_bytes(server, server.shared.keys() - set(factor_names(server)))


def mean_changes(cohort: Cohort, server: ServerState) -> dict[str, LowRank]:
    """Return sum_i p_i * scaling * B_i @ A_i by layer name, as the clients' factors side by side; one collective."""
    stacked = cohort.stack(factor_names(server))
    weights = [cohort.weights[client_id] for client_id in cohort.client_ids]
    return {
        layer.name: LowRank.sum(
            [
                layer.change({layer.a: a, layer.b: b}) * weight
                for a, b, weight in zip(stacked[layer.a], stacked[layer.b], weights, strict=True)
            ]
        )
        for layer in server.layers
    }


def at_rank(shared: TensorDict, layers: tuple[LoraLayer, ...], client_id: int, *, share_of_a: float) -> TensorDict:
    """Return factors in the server's scaling as a client takes them up: its rank's first rows, in its scaling.

    The product's factor server scaling / client scaling goes to A with the power `share_of_a`, to B with the rest.
    """
    tensors = dict(shared)
    for layer in layers:
        ratio, rank = layer.scaling() / layer.scaling(client_id), layer.rank_of(client_id)
        tensors[layer.a] = tensors[layer.a] * ratio**share_of_a
        tensors[layer.b] = tensors[layer.b] * ratio ** (1 - share_of_a)
        tensors[layer.a][rank:] = 0
        tensors[layer.b][:, rank:] = 0
    return tensors


def at_server_scale(
    shared: TensorDict, layers: tuple[LoraLayer, ...], client_id: int, *, share_of_a: float
) -> TensorDict:
    """Return a client's factors in the server's scaling: the inverse of `at_rank` on the rows that the client has."""
    tensors = dict(shared)
    for layer in layers:
        ratio = layer.scaling(client_id) / layer.scaling()
        tensors[layer.a] = tensors[layer.a] * ratio**share_of_a
        tensors[layer.b] = tensors[layer.b] * ratio ** (1 - share_of_a)
    return tensors


def fresh_factors(server: ServerState, seed: int) -> TensorDict:
    """Return shared with A drawn anew, uniform within 1 / sqrt(in) as peft initialises it, and B = 0."""
    tensors = dict(server.shared)
    with torch_stream(seed, "fresh factors", round_idx=server.round_idx):
        for layer in server.layers:
            a, b = tensors[layer.a], tensors[layer.b]
            bound = a.shape[1] ** -0.5
            # Drawn on the CPU, so that no device has factors of its own.
            tensors[layer.a] = torch.empty(a.shape).uniform_(-bound, bound).to(a)
            tensors[layer.b] = torch.zeros_like(b)
    return tensors


def restart(cohort: Cohort, server: ServerState, seed: int) -> ServerState:
    """Return the server with the mean product folded into W, the old factors gone, and fresh ones of no effect."""
    others = server.replace(shared=other_means(cohort, server))
    return server.fold(mean_changes(cohort, server)).replace(shared=fresh_factors(others, seed))


def product_bytes(server: ServerState, layer: LoraLayer, width: int) -> int:
    """Return the bytes of a matrix of the layer's shape sent as factors of this width, or dense where that is less."""
    a, b = server.shared[layer.a], server.shared[layer.b]
    num_out, num_in = b.shape[0], a.shape[1]
    return min(width * (num_out + num_in), num_out * num_in) * a.element_size()
