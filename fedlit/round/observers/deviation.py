"""What a round did to the effective weights of a LoRA method, from factors alone.

The effective weight of a client is W_i + scaling * B_i @ A_i, with its own frozen W_i. The ideal server has the
weighted mean of the clients' effective weights; most rules miss it, which is what their papers are about. What a rule
folds into W counts as the model holds it, rounded to the type in which it is kept. Norms are
Frobenius norms divided by sqrt(out * in), that is root mean squares over a layer's weights, in float64.

The clients' factors wait in a file until the server has stepped, and come back a few layers at a time: a squared norm
from running sums would lose half the digits, and exact aggregation is a matter of the last ones.

Shapes: n clients with weights p_i, W (out, in).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict
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

    def of_server(self, shared: Mapping[str, Tensor], *, start: bool = False) -> LowRank:
        """Return the server's scaling * B @ A; with a factor that each client keeps, the mean over clients."""
        names = self.layer.factors
        if any(name in self.stacked and name not in shared for name in names):
            return self.mean(self.clients(start=start, instead=shared))
        return self.layer.change({name: shared[name] if name in shared else self.fixed[name] for name in names})

    def mean(self, changes: list[LowRank]) -> LowRank:
        """Return sum_i p_i change_i."""
        return LowRank.sum([change * weight for change, weight in zip(changes, self.weights, strict=True)])


@dataclass(kw_only=True)
class DeviationObserver(Observer):
    """Measures every round how far the server is from the mean of the clients.

    layers: the LoRA layers. factors: trained factors by name, whose shapes and types count. fixed: all other tensors of
    the model. rule, transforms: what clients start from and how they send it. folder: where the clients' factors wait;
    None for the system's temporary files.
    """

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
        """Put a client's factors aside; return the norm of what its training changed, layer by layer."""
        start = self.transforms.on_client(job.start.groups, self._server, self._plan, job.client_id)[MODEL]
        tensors = {**result.private, **sent[MODEL]}
        ended = {name: tensors[name] for name in self.factors}
        # What a client keeps between its rounds is on the CPU.
        everything = {**job.state.private, **start}
        began = {name: everything[name].to(tensor) for name, tensor in ended.items()}
        self._kept.put(job.client_id, ended | {f"{START}{name}": began[name] for name in self._private})
        return norms(
            layer.change({**self._of(layer), **ended}) - layer.change({**self._of(layer), **began})
            for layer in self.layers
        )

    def _of(self, layer: LoraLayer) -> dict[str, Tensor]:
        """Return the layer's factors that nobody trains."""
        return {name: self.fixed[name] for name in layer.factors if name not in self.factors}

    @torch.no_grad()
    def record(self, view: RoundView) -> dict[str, Any]:
        """Return the round's numbers, means over layers, and the deviation of every layer; nothing of an empty round.

        deviation: the new server's effective weight less the mean of the clients'. Where clients keep a factor of their
        own, the server's is the mean over clients of the product of theirs with the new shared one.
        update_norm: the new server's effective weight less the old one's.
        drift_norm: mean over clients, with their weights, of what local training did to a client's effective weight.
        rank: rank of the weighted mean of the clients' products, before any truncation.
        """
        weights = view.cohort.shares
        if not weights:
            return {}
        measured = [] if communication.process_index() else list(self._measure(view, weights))
        if communication.process_index():
            for chunk in self._chunks(len(weights)):
                self._stack(chunk, tuple(weights))
        record: dict[str, Any] = {}
        means: dict[str, list[float]] = {"deviation": [], "update_norm": [], "drift_norm": [], "rank": []}
        for layer, numbers in zip(self.layers, _read(measured), strict=False):
            record[f"lora/deviation/{layer.name}"] = numbers["deviation"]
            for name, values in means.items():
                values.append(numbers[name])
        if not measured:
            return {}
        return {f"lora/{name}": sum(values) / len(values) for name, values in means.items()} | record

    def _measure(self, view: RoundView, weights: Mapping[int, float]) -> Iterator[dict[str, Tensor | float]]:
        """Yield the numbers of one layer after the other, those computed here as 0-d tensors on the device."""
        offsets: dict[str, list[LowRank]] = {}
        for client_id in weights:
            for name, offset in self.rule.start(view.before, client_id).offsets.items():
                offsets.setdefault(name, []).append(offset.to(torch.float64))
        index = 0
        for chunk in self._chunks(len(weights)):
            stacked = self._stack(chunk, tuple(weights))
            for layer in chunk:
                factors = LayerFactors(
                    layer=layer,
                    stacked=stacked,
                    fixed=self.fixed,
                    offsets=offsets.get(layer.name),
                    weights=tuple(weights.values()),
                )
                drifts = [view.notes[client_id][index] for client_id in weights]
                yield _of_layer(factors, view.before, view.after, drifts)
                index += 1

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


def _of_layer(
    factors: LayerFactors, before: ServerState, after: ServerState, drifts: Sequence[float]
) -> dict[str, Tensor | float]:
    """Return a layer's deviation, update norm and rank, each 0-d in float64 on the device, and its drift norm."""
    layer = factors.layer
    ideal = factors.mean(factors.clients())
    new = factors.of_server(after.shared)
    old = factors.of_server(before.shared, start=True)
    if layer.name in after.folded:
        new = new + after.folded[layer.name]
    missed = new - ideal if factors.offsets is None else new - ideal - factors.mean(factors.offsets)
    scale = (ideal.shape[0] * ideal.shape[1]) ** -0.5
    return {
        "deviation": missed.core().norm() * scale,
        "update_norm": (new - old).core().norm() * scale,
        "drift_norm": sum(weight * drift for weight, drift in zip(factors.weights, drifts, strict=True)) * scale,
        "rank": ideal.num_above_rounding().double(),
    }


def _read(measured: Sequence[Mapping[str, Tensor | float]]) -> list[dict[str, float]]:
    """Return the numbers of all layers; one wait for the device."""
    tensors = [value for numbers in measured for value in numbers.values() if isinstance(value, Tensor)]
    values = iter(torch.stack(tensors).tolist() if tensors else ())
    return [
        {name: next(values) if isinstance(value, Tensor) else value for name, value in numbers.items()}
        for numbers in measured
    ]
