"""One round on hand-made LoRA factors, and its dense algebra written apart from the library's.

Shapes: W (out, in), A (r, in), B (out, r). A transposed layer keeps W as (in, out), what is folded as (out, in).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.tensors import TensorDict
from fedlit.round.cohort import Cohort
from fedlit.round.payload import MODEL
from fedlit.round.plan import RoundPlan
from fedlit.round.rules import AggregationRule
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transform, Transforms

WEIGHTS = {
    1: (1.0,),
    2: (0.7, 0.3),
    3: (0.5, 0.2, 0.3),
    4: (0.1, 0.4, 0.3, 0.2),
    5: (0.05, 0.35, 0.3, 0.2, 0.1),
}
"""p_i of n clients, unequal."""
SHAPES = ((7, 5), (23, 17), (16, 29))
"""(out, in): the stacked factors are wider than the first layer and thinner than the others."""


def make_layers(
    rank: int = 3,
    alpha: float = 7.0,
    *,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    client_ranks: tuple[int, ...] = (),
    use_rslora: bool = False,
    transposed: bool = False,
) -> tuple[LoraLayer, ...]:
    """Return a layer for each shape."""
    return tuple(
        LoraLayer(
            name=f"m{index}",
            a=f"m{index}.A",
            b=f"m{index}.B",
            weight=f"m{index}.W",
            rank=rank,
            alpha=alpha,
            use_rslora=use_rslora,
            transposed=transposed,
            client_ranks=client_ranks,
        )
        for index in range(len(shapes))
    )


def random_factors(
    layers: Sequence[LoraLayer],
    generator: torch.Generator,
    *,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    client_id: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> TensorDict:
    """Return random factors, zero beyond the client's rank."""
    tensors: TensorDict = {}
    for layer, (num_out, num_in) in zip(layers, shapes, strict=True):
        a = torch.randn(layer.rank, num_in, generator=generator, dtype=dtype)
        b = torch.randn(num_out, layer.rank, generator=generator, dtype=dtype)
        rank = layer.rank_of(client_id)
        a[rank:] = 0
        b[:, rank:] = 0
        tensors |= {layer.a: a, layer.b: b}
    return tensors


def make_server(
    layers: Sequence[LoraLayer],
    generator: torch.Generator,
    *,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    zero_b: bool = False,
    round_idx: int = 0,
) -> ServerState:
    """Return a server with random factors (B = 0 on request) and changes of rank 2 that earlier rounds folded."""
    shared = random_factors(layers, generator, shapes=shapes)
    frozen = {}
    for layer, (num_out, num_in) in zip(layers, shapes, strict=True):
        frozen[f"{layer.weight}/left"] = torch.randn(num_out, 2, generator=generator, dtype=torch.float64)
        frozen[f"{layer.weight}/right"] = torch.randn(2, num_in, generator=generator, dtype=torch.float64)
        if zero_b:
            shared[layer.b] = torch.zeros_like(shared[layer.b])
    return ServerState(round_idx=round_idx, shared=shared, frozen=frozen, layers=tuple(layers))


def make_plan(client_ids: Sequence[int], weights: Sequence[float], round_idx: int = 0) -> RoundPlan:
    """Return the plan of a round in which these clients take part with these weights."""
    return RoundPlan(
        round_idx=round_idx,
        invited=tuple(client_ids),
        arriving=tuple(client_ids),
        weights=dict(zip(client_ids, weights, strict=True)),
        trains=frozenset(),
    )


def make_cohort(
    server: ServerState, uploads: Mapping[int, TensorDict], weights: Sequence[float], *, keeps: bool = True
) -> Cohort:
    """Return a cohort of clients that uploaded these tensors."""
    cohort = Cohort(make_plan(list(uploads), weights, server.round_idx), {MODEL: server.shared}, keeps=keeps)
    for client_id, tensors in uploads.items():
        cohort.add(client_id, {MODEL: tensors})
    return cohort


def aggregated(
    rule: AggregationRule,
    server: ServerState,
    trained: Mapping[int, TensorDict],
    weights: Sequence[float],
    *transforms: Transform,
) -> ServerState:
    """Return the next server after clients ended their local training with the tensors `trained`."""
    plan = make_plan(list(trained), weights, server.round_idx)
    uploads = {
        client_id: dict(Transforms(transforms).on_client({MODEL: tensors}, server, plan, client_id)[MODEL])
        for client_id, tensors in trained.items()
    }
    return replace(rule(make_cohort(server, uploads, weights), server), round_idx=server.round_idx + 1)


def dense_product(layer: LoraLayer, tensors: Mapping[str, Tensor], rank: int | None = None) -> Tensor:
    """Return scaling * B @ A, (out, in), at this rank's scaling (the layer's own if None)."""
    rank = layer.rank if rank is None else rank
    scaling = layer.alpha / (rank**0.5 if layer.use_rslora else rank)
    return scaling * (tensors[layer.b].double() @ tensors[layer.a].double())


def dense_weight(layer: LoraLayer, server: ServerState) -> Tensor:
    """Return what the server's W (out, in) has more than the pretrained one."""
    prefix = f"{layer.weight}/"
    total: Tensor = server.frozen.get(f"{prefix}rest", torch.zeros(()))
    if f"{prefix}left" in server.frozen:
        total = total + server.frozen[f"{prefix}left"] @ server.frozen[f"{prefix}right"]
    return total


@torch.no_grad()
def forward_weight(model: nn.Module, layer: LoraLayer) -> Tensor:
    """Return the effective weight (out, in) of an adapted layer: what its forward pass makes of unit vectors."""
    module = model.get_submodule(layer.name)
    weight = model.get_parameter(layer.weight)
    num_in = weight.shape[0] if layer.transposed else weight.shape[1]
    unit = torch.eye(num_in, dtype=weight.dtype)
    output: Tensor = module(unit) - module(torch.zeros_like(unit))
    return output.T


def mean_product(
    layer: LoraLayer, trained: Mapping[int, TensorDict], weights: Sequence[float], ranks: Sequence[int] | None = None
) -> Tensor:
    """Return sum_i p_i * scaling_i * B_i @ A_i, (out, in), term by term."""
    total = torch.zeros((), dtype=torch.float64)
    for client_id, weight in zip(trained, weights, strict=True):
        rank = None if ranks is None else ranks[client_id]
        total = total + weight * dense_product(layer, trained[client_id], rank)
    return total


def best_of_rank(matrix: Tensor, rank: int) -> Tensor:
    """Return the best approximation of a dense matrix of at most this rank, by its dense SVD."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


def close(left: Tensor, right: Tensor, tolerance: float = 1e-10) -> bool:
    """Return whether two tensors of one shape differ by at most `tolerance`, of their norm where that is above 1."""
    assert left.shape == right.shape, f"{tuple(left.shape)}, {tuple(right.shape)}"
    with torch.no_grad():
        return float((left - right).norm()) <= tolerance * max(1.0, float(right.norm()))


def seeded(seed: int = 0) -> torch.Generator:
    """Return a generator of its own."""
    return torch.Generator().manual_seed(seed)


class Made(TorchDispatchMode):
    """Records the shapes of the tensors that operations return, views included."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    @property
    def largest(self) -> int:
        """Number of scalars of the largest tensor."""
        return max(math.prod(shape) for shape in self.shapes)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.shapes.append(tuple(value.shape))
        return result
