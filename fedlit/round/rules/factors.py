"""What rules over LoRA factors have in common: the clients' products, fresh factors.

Shapes: n clients with weights p_i; A (r, in), B (out, r), in the server's scaling.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.mean_products import mean_product
from fedlit.algebra.tensors import TensorDict
from fedlit.round.cohort import Cohort
from fedlit.round.rules.base import payload_bytes
from fedlit.round.server import ServerState
from fedlit.seeding import torch_stream


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


def has_others(server: ServerState) -> bool:
    """Whether anything is shared beside the LoRA factors."""
    return not server.shared.keys() <= set(factor_names(server))


def other_bytes(server: ServerState) -> int:
    """Return the bytes of what is shared beside the LoRA factors."""
    return payload_bytes(server, server.shared.keys() - set(factor_names(server)))


@dataclass(frozen=True)
class ByLayer(Mapping[str, LowRank]):
    """Matrices by layer name that are made when they are asked for, each time anew.

    In float64 and for many clients those of all layers would be the largest thing in memory.
    """

    layers: Mapping[str, LoraLayer]
    make: Callable[[LoraLayer], LowRank]

    def __getitem__(self, name: str) -> LowRank:
        return self.make(self.layers[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


def by_layer(server: ServerState, make: Callable[[LoraLayer], LowRank]) -> ByLayer:
    """Return what `make` makes of every layer of the server."""
    return ByLayer({layer.name: layer for layer in server.layers}, make)


def stacked_products(cohort: Cohort, server: ServerState) -> ByLayer:
    """Return sum_i p_i * scaling * B_i @ A_i by layer name, as the clients' factors side by side; one collective."""
    stacked, weights = cohort.stack(factor_names(server)), weight_tensor(cohort, server)
    return by_layer(server, lambda layer: mean_product(stacked[layer.a], stacked[layer.b], weights, layer.scaling()))


def weight_tensor(cohort: Cohort, server: ServerState) -> Tensor:
    """Return p_i (n,) in float64 where the factors are."""
    device = server.shared[server.layers[0].a].device
    return torch.tensor(list(cohort.weights.values()), dtype=torch.float64, device=device)


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


def product_bytes(server: ServerState, layer: LoraLayer, width: int) -> int:
    """Return the bytes of a matrix of the layer's shape sent as factors of this width, or dense where that is less."""
    a, b = server.shared[layer.a], server.shared[layer.b]
    num_out, num_in = b.shape[0], a.shape[1]
    return min(width * (num_out + num_in), num_out * num_in) * a.element_size()
