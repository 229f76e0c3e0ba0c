"""What a round did to the effective weights of a LoRA method, from factors alone.

The effective weight of a client is W_i + scaling * B_i @ A_i, with its own frozen W_i. The ideal server has the
weighted mean of the clients' effective weights; most rules miss it, which is what their papers are about. Norms are
Frobenius norms divided by sqrt(out * in), that is root mean squares over a layer's weights, in float64.

Shapes: n clients with weights p_i, W (out, in).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict
from fedlit.round.cohort import Cohort
from fedlit.round.server import ServerState

START = "start/"
"""Prefix under which a cohort keeps what a client had when its round began."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundFactors:
    """The factors of one round, in the server's scaling.

    stacked: trained factors of every client, (n, *shape) in cohort order, and under `start/<name>` those it began with.
    fixed: factors that nobody trains.
    offsets: by layer name, every client's frozen weight less the server's, in cohort order; empty where they agree.
    weights: p_i in cohort order.
    """

    stacked: TensorDict
    fixed: Mapping[str, Tensor]
    offsets: Mapping[str, list[LowRank]]
    weights: tuple[float, ...]

    def clients(self, layer: LoraLayer, *, start: bool, instead: Mapping[str, Tensor] | None = None) -> list[LowRank]:
        """Return every client's scaling * B_i @ A_i, with the factors in `instead` for its own."""
        changes = []
        for row in range(len(self.weights)):
            tensors: dict[str, Tensor] = {}
            for name in layer.factors:
                key = f"{START}{name}" if start else name
                if instead is not None and name in instead:
                    tensors[name] = instead[name]
                else:
                    tensors[name] = self.stacked[key][row] if key in self.stacked else self.fixed[name]
            changes.append(layer.change(tensors))
        return changes

    def of_server(self, layer: LoraLayer, shared: Mapping[str, Tensor], *, start: bool) -> LowRank:
        """Return the server's scaling * B @ A; with a factor that each client keeps, the mean over clients."""
        if any(name in self.stacked and name not in shared for name in layer.factors):
            return self.mean(self.clients(layer, start=start, instead=shared))
        return layer.change({name: shared[name] if name in shared else self.fixed[name] for name in layer.factors})

    def mean(self, changes: list[LowRank]) -> LowRank:
        """Return sum_i p_i change_i."""
        return LowRank.sum([change * weight for change, weight in zip(changes, self.weights, strict=True)])


def round_factors(
    cohort: Cohort, names: list[str], fixed: Mapping[str, Tensor], offsets: Mapping[str, list[LowRank]]
) -> RoundFactors:
    """Collect the factors of a round from all processes; one collective. `names` are the trained factors."""
    return RoundFactors(
        stacked=cohort.stack([*names, *(f"{START}{name}" for name in names)]) if names else {},
        fixed=fixed,
        offsets=offsets,
        weights=tuple(cohort.weights[client_id] for client_id in cohort.client_ids),
    )


def measure(factors: RoundFactors, before: ServerState, after: ServerState) -> dict[str, float]:
    """Return the round's numbers for the record, means over layers, and the deviation of every layer.

    deviation: the new server's effective weight less the mean of the clients'. Where clients keep a factor of their
    own, the server's is the mean over clients of the product of theirs with the new shared one.
    update_norm: the new server's effective weight less the old one's.
    drift_norm: mean over clients, with their weights, of what local training did to a client's effective weight.
    rank: rank of the weighted mean of the clients' products, before any truncation.
    """
    record: dict[str, float] = {}
    updates, drifts, ranks = [], [], []
    for layer in after.layers:
        ended, started = factors.clients(layer, start=False), factors.clients(layer, start=True)
        ideal = factors.mean(ended)
        new = factors.of_server(layer, after.shared, start=False)
        old = factors.of_server(layer, before.shared, start=True)
        if layer.name in after.folded:
            new = new + after.folded[layer.name]
        own_start = factors.mean(factors.offsets[layer.name]) if layer.name in factors.offsets else None
        scale = (ideal.shape[0] * ideal.shape[1]) ** -0.5
        missed = new - ideal if own_start is None else new - ideal - own_start
        record[f"lora/deviation/{layer.name}"] = missed.norm() * scale
        updates.append((new - old).norm() * scale)
        pairs = zip(ended, started, factors.weights, strict=True)
        drifts.append(sum(weight * (end - start).norm() for end, start, weight in pairs) * scale)
        ranks.append(ideal.rank())
    per_layer = list(record.values())
    means = {"deviation": per_layer, "update_norm": updates, "drift_norm": drifts, "rank": ranks}
    return {f"lora/{name}": sum(values) / len(values) for name, values in means.items()} | record
