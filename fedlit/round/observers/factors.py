"""What is measured of pairs of factors, layer by layer: the clients' factors, and one pass over them for all measures.

The clients' factors wait in a file until the server has stepped, and come back a few layers at a time: a squared norm
from running sums would lose half the digits, and exact aggregation is a matter of the last ones. What a measure takes
from large matrices is computed where they are; small ones come to the CPU, a few layers in one transfer.

Shapes: n clients with weights p_i, W (out, in), factors of width k, their coordinates (K, n, k), K <= n k.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.spectra import Spectrum
from fedlit.algebra.tensors import TensorDict, on_cpu
from fedlit.algebra.together import norms
from fedlit.process import communication
from fedlit.round.cohort import stack_rows
from fedlit.round.jobs import ClientJob, ClientResult
from fedlit.round.kept import Kept, OnDisk
from fedlit.round.observers import Observer, RoundView
from fedlit.round.payload import MODEL, Payload
from fedlit.round.plan import RoundPlan
from fedlit.round.rules import AggregationRule
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transforms

START = "start/"
"""Prefix under which a client's private factors stand as they were when its round began."""

STACK_BYTES = 2**22
"""Factors of all clients that are in memory at once, of one layer at least."""

LEFT, RIGHT = "left", "right"
"""Under which the coordinates of all clients' products stand in `Small.tensors`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerFactors:
    """The factors of one layer's clients, in the server's scaling.

    stacked: trained factors of every client, (n, *shape) in cohort order, and under `start/<name>` those private ones
    that it began with.
    fixed: factors that nobody trains.
    offsets: every client's frozen weight less the server's, in cohort order; None where they agree.
    weights: p_i in cohort order.
    """

    layer: LoraLayer
    stacked: TensorDict
    fixed: Mapping[str, Tensor]
    offsets: list[LowRank] | None
    weights: tuple[float, ...]

    def clients(self, *, start: bool = False, instead: Mapping[str, Tensor] | None = None) -> list[LowRank]:
        """Return every client's scaling * B_i @ A_i, with the factors in `instead` for its own."""
        changes = []
        for row in range(len(self.weights)):
            tensors: dict[str, Tensor] = {}
            for name in self.layer.factors:
                key = f"{START}{name}" if start else name
                if instead is not None and name in instead:
                    tensors[name] = instead[name]
                else:
                    tensors[name] = self.stacked[key][row] if key in self.stacked else self.fixed[name]
            changes.append(self.layer.change(tensors))
        return changes

    def has_private(self, shared: Mapping[str, Tensor]) -> bool:
        """Tell whether clients keep a factor of their own."""
        return any(name in self.stacked and name not in shared for name in self.layer.factors)

    def of_server(self, shared: Mapping[str, Tensor], *, start: bool = False) -> LowRank:
        """Return the server's scaling * B @ A; with a factor that each client keeps, the mean over clients."""
        if self.has_private(shared):
            return self.mean(self.clients(start=start, instead=shared))
        names = self.layer.factors
        return self.layer.change({name: shared[name] if name in shared else self.fixed[name] for name in names})

    def mean(self, changes: list[LowRank]) -> LowRank:
        """Return sum_i p_i change_i."""
        return LowRank.sum([change * weight for change, weight in zip(changes, self.weights, strict=True)])


def coordinates(changes: Sequence[LowRank]) -> tuple[Tensor, Tensor]:
    """Return (K, n, k) and (L, n, k): matrix i is P left[:, i] right[:, i]' Q' with orthonormal columns in P and Q.

    From one QR for each side, whose P and Q are not made. The matrices have one width k.
    """
    both = []
    for factors in ([change.left for change in changes], [change.right.T for change in changes]):
        both.append(torch.linalg.qr(torch.cat(factors, 1), mode="r").R.unflatten(1, (len(changes), -1)))
    return both[0], both[1]


class LayerView:
    """One layer in a round that has happened, where its factors are; what several measures ask for is computed once."""

    def __init__(self, factors: LayerFactors, before: ServerState, after: ServerState) -> None:
        self.factors, self.before, self.after = factors, before, after

    @cached_property
    def clients(self) -> list[LowRank]:
        """What the clients trained, s B_i A_i."""
        return self.factors.clients()

    @cached_property
    def old(self) -> LowRank:
        """The server's product before the round."""
        return self.factors.of_server(self.before.shared, start=True)

    @cached_property
    def new(self) -> LowRank:
        """The server's product after the round, without what was folded into the weight."""
        return self.factors.of_server(self.after.shared)


@dataclass(kw_only=True)
class Small:
    """What measures have taken of a layer, on the CPU.

    shape: (out, in). weights: p_i. drifts: Frobenius norm of what training changed, of every client. tensors: by the
    names that `LayerMeasure.taken` gave, and the coordinates of the clients' products.
    """

    layer: LoraLayer
    shape: tuple[int, int]
    weights: tuple[float, ...]
    drifts: Sequence[float]
    tensors: TensorDict

    @property
    def floor(self) -> float:
        """Share of the largest singular value below which others are rounding."""
        return max(self.shape) * torch.finfo(torch.float64).eps

    @cached_property
    def mean_values(self) -> Tensor:
        """Singular values of the mean of the clients' products, before any truncation."""
        left, right = self.tensors[LEFT], self.tensors[RIGHT]
        weights = torch.tensor(self.weights, dtype=left.dtype)[:, None]
        values: Tensor = torch.linalg.svdvals((left * weights).flatten(1) @ right.flatten(1).T)
        return values

    @cached_property
    def spectra(self) -> list[Spectrum]:
        """Every client's product, its vectors in coordinates."""
        sides = [torch.linalg.qr(self.tensors[side].movedim(1, 0)) for side in (LEFT, RIGHT)]
        u, s, vh = torch.linalg.svd(sides[0].R @ sides[1].R.mT, full_matrices=False)
        left, right = sides[0].Q @ u, sides[1].Q @ vh.mT
        return [Spectrum.of_triples(*triple, self.floor) for triple in zip(left, s, right, strict=True)]


class LayerMeasure(ABC):
    """Numbers of a layer in a round. needs_drifts: it reads `Small.drifts`, which cost a pass for every client."""

    needs_drifts: ClassVar[bool] = False

    @property
    def per_layer(self) -> frozenset[str]:
        """Keys that the record has of single layers, too."""
        return frozenset()

    def taken(self, view: LayerView) -> TensorDict:
        """Return small tensors, where the factors are; they come to the CPU together. Names are the measure's own."""
        return {}

    @abstractmethod
    def numbers(self, small: Small) -> dict[str, float]:
        """Return the layer's numbers by key; one that has no meaning here is left out."""


@dataclass(kw_only=True)
class FactorObserver(Observer):
    """Lets measures look at every layer of every round.

    layers: pairs of factors. factors: trained factors by name, whose shapes and types count. fixed: all other tensors
    of the model. rule, transforms: what clients start from and how they send it. folder: where the clients' factors
    wait; None for the system's temporary files.
    """

    measures: tuple[LayerMeasure, ...]
    layers: tuple[LoraLayer, ...]
    factors: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor]
    rule: AggregationRule
    transforms: Transforms
    folder: Path | None = None

    def begin(self, plan: RoundPlan, server: ServerState) -> None:
        """Start with an empty file."""
        self._server, self._plan = server, plan
        self._kept: Kept = OnDisk(self.folder)
        self._private = {name: tensor for name, tensor in self.factors.items() if name not in server.shared}

    @torch.no_grad()
    def see(self, job: ClientJob, result: ClientResult, sent: Payload) -> list[float]:
        """Put a client's factors aside; return the norm of what its training changed, layer by layer, if a measure
        reads it.
        """
        start = self.transforms.on_client(job.start.groups, self._server, self._plan, job.client_id)[MODEL]
        tensors = {**result.private, **sent[MODEL]}
        ended = {name: tensors[name] for name in self.factors}
        # What a client keeps between its rounds is on the CPU.
        everything = {**job.state.private, **start}
        began = {name: everything[name].to(tensor) for name, tensor in ended.items()}
        self._kept.put(job.client_id, ended | {f"{START}{name}": began[name] for name in self._private})
        if not any(measure.needs_drifts for measure in self.measures):
            return []
        return norms(
            layer.change({**self._of(layer), **ended}) - layer.change({**self._of(layer), **began})
            for layer in self.layers
        )

    def _of(self, layer: LoraLayer) -> dict[str, Tensor]:
        """Return the layer's factors that nobody trains."""
        return {name: self.fixed[name] for name in layer.factors if name not in self.factors}

    @torch.no_grad()
    def record(self, view: RoundView) -> dict[str, Any]:
        """Return the measures' numbers, means over layers and of single ones; nothing of an empty round."""
        weights = view.cohort.shares
        if not weights:
            return {}
        if communication.process_index():
            for chunk in self._chunks(len(weights)):
                self._stack(chunk, tuple(weights))
            return {}
        found: dict[str, list[float]] = {}
        single: dict[str, float] = {}
        for small in self._small(view, weights):
            for measure in self.measures:
                for key, number in measure.numbers(small).items():
                    found.setdefault(key, []).append(number)
                    if key in measure.per_layer:
                        single[f"{key}/{small.layer.name}"] = number
        return {key: sum(numbers) / len(numbers) for key, numbers in found.items()} | single

    def _small(self, view: RoundView, weights: Mapping[int, float]) -> Iterator[Small]:
        """Yield what the measures take of one layer after the other."""
        offsets: dict[str, list[LowRank]] = {}
        for client_id in weights:
            for name, offset in self.rule.start(view.before, client_id).offsets.items():
                offsets.setdefault(name, []).append(offset.to(torch.float64))
        index = 0
        for chunk in self._chunks(len(weights)):
            stacked = self._stack(chunk, tuple(weights))
            taken: TensorDict = {}
            shapes = []
            for place, layer in enumerate(chunk):
                factors = LayerFactors(
                    layer=layer,
                    stacked=stacked,
                    fixed=self.fixed,
                    offsets=offsets.get(layer.name),
                    weights=tuple(weights.values()),
                )
                of_layer, shape = self._taken(LayerView(factors, view.before, view.after))
                taken |= {f"{place}/{name}": tensor for name, tensor in of_layer.items()}
                shapes.append(shape)
            here = on_cpu(taken)
            for place, (layer, shape) in enumerate(zip(chunk, shapes, strict=True)):
                prefix = f"{place}/"
                yield Small(
                    layer=layer,
                    shape=shape,
                    weights=tuple(weights.values()),
                    drifts=[view.notes[client_id][index] for client_id in weights if view.notes[client_id]],
                    tensors={k.removeprefix(prefix): v for k, v in here.items() if k.startswith(prefix)},
                )
                index += 1

    def _taken(self, view: LayerView) -> tuple[TensorDict, tuple[int, int]]:
        left, right = coordinates(view.clients)
        taken = {LEFT: left, RIGHT: right}
        for measure in self.measures:
            taken |= measure.taken(view)
        return taken, view.clients[0].shape

    def _chunks(self, num_clients: int) -> Iterator[tuple[LoraLayer, ...]]:
        """Yield the layers in groups whose factors of all clients fit into STACK_BYTES."""
        chunk: list[LoraLayer] = []
        size = 0
        for layer in self.layers:
            own = num_clients * sum(tensor.numel() * tensor.element_size() for tensor in self._like([layer]).values())
            if chunk and size + own > STACK_BYTES:
                yield tuple(chunk)
                chunk, size = [], 0
            chunk.append(layer)
            size += own
        if chunk:
            yield tuple(chunk)

    def _like(self, layers: Sequence[LoraLayer]) -> dict[str, Tensor]:
        names = {name for layer in layers for name in layer.factors}
        trained = {name: tensor for name, tensor in self.factors.items() if name in names}
        return trained | {f"{START}{name}": tensor for name, tensor in trained.items() if name in self._private}

    def _stack(self, layers: Sequence[LoraLayer], client_ids: Sequence[int]) -> TensorDict:
        like = self._like(layers)
        return stack_rows(self._kept, client_ids, like) if like else {}
