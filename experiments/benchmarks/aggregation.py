"""Aggregation from factors against the dense product and its SVD: `python experiments/benchmarks/aggregation.py`.

Measures LowRank.sum and LowRank.truncated, which FlexLoRA is made of, on one matrix of the query projection, beside the
two lines of PyTorch that do the same densely in float32; then FlexLoRA and FedEx-LoRA as they run in a round, over all
adapted layers of a model with TinyLlama's shapes (22 layers, q 2048 x 2048, k and v 256 x 2048).
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from paired_timing import Elapsed, Ratio, Stopwatch, interleave, median, pin
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict
from fedlit.round.cohort import Cohort
from fedlit.round.payload import MODEL
from fedlit.round.plan import RoundPlan, weights_by_examples
from fedlit.round.rules import AggregationRule
from fedlit.round.rules.fedex_lora import FedExLora
from fedlit.round.rules.flexlora import FlexLora
from fedlit.round.server import ServerState

TARGET = 200.0
TOLERANCE = 1e-4
"""relative difference of the two products: the dense side is in float32"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Sizes of the adapted projections, and of the federation."""

    hidden: int
    kv: int
    num_layers: int
    rank: int
    num_clients: int
    alpha: float = 16.0

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(out, in) of q, k and v of every layer."""
        return [(self.hidden, self.hidden), (self.kv, self.hidden), (self.kv, self.hidden)] * self.num_layers

    def layers(self) -> tuple[LoraLayer, ...]:
        """Return the layers behind `shapes`."""
        return tuple(
            LoraLayer(name=f"{i}", a=f"{i}.A", b=f"{i}.B", weight=f"{i}.W", rank=self.rank, alpha=self.alpha)
            for i in range(len(self.shapes))
        )

    def factors(self, generator: torch.Generator) -> TensorDict:
        """Return random factors of every layer in float32."""
        tensors = {}
        for layer, (num_out, num_in) in zip(self.layers(), self.shapes, strict=True):
            tensors[layer.a] = torch.randn(self.rank, num_in, generator=generator) * num_in**-0.5
            tensors[layer.b] = torch.randn(num_out, self.rank, generator=generator) * 0.1
        return tensors

    def server(self, generator: torch.Generator) -> ServerState:
        """Return a server before its first round."""
        return ServerState(shared=self.factors(generator), layers=self.layers())

    def weights(self) -> tuple[float, ...]:
        """Return unequal p_i."""
        return weights_by_examples([10 + 5 * index for index in range(self.num_clients)])


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the number of scalars of the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at what it returns."""
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.numel())
        return result


def one_matrix(model: Model, num_pairs: int) -> dict[str, Any]:
    """Time the truncated mean of the clients' products on the query projection, from factors and densely."""
    generator = torch.Generator().manual_seed(0)
    layer, weights = model.layers()[0], model.weights()
    clients = [model.factors(generator) for _ in weights]

    def from_factors() -> tuple[Tensor, Tensor]:
        terms = [layer.change(tensors) * p for tensors, p in zip(clients, weights, strict=True)]
        best = LowRank.sum(terms).truncated(layer.rank)
        return best.left, best.right

    def densely() -> tuple[Tensor, Tensor]:
        scaled = [p * layer.scaling() for p in weights]
        product = sum(s * (tensors[layer.b] @ tensors[layer.a]) for s, tensors in zip(scaled, clients, strict=True))
        u, s, vh = torch.linalg.svd(product, full_matrices=False)
        return u[:, : layer.rank] * s[: layer.rank], vh[: layer.rank]

    (left, right), (dense_left, dense_right) = from_factors(), densely()
    expected = dense_left.double() @ dense_right.double()
    difference = float((left @ right - expected).norm() / expected.norm())
    assert difference < TOLERANCE, f"the two ways give different products: relative difference {difference}"
    with LargestTensor() as largest:
        from_factors()
    timings = interleave({"dense": timed(densely), "factors": timed(from_factors)}, num_pairs, seed=0)
    result: dict[str, Any] = {"shape": model.shapes[0], "num_pairs": num_pairs, "relative_difference": difference}
    result["largest_scalars"] = largest.numel
    for clock in ("cpu_s", "wall_s"):
        seconds = {name: [getattr(one, clock) for one in blocks] for name, blocks in timings.items()}
        result[clock] = {name: median(values) for name, values in seconds.items()}
        result[f"{clock}_ratio"] = asdict(Ratio.of(seconds["dense"], seconds["factors"]))
    result["verdict"] = "met" if result["cpu_s_ratio"]["median"] >= TARGET else "not met"
    return result


def whole_model(model: Model, num_repeats: int) -> dict[str, dict[str, float]]:
    """Time one round's aggregation of every rule, over all layers; the clients' updates are in the cohort before."""
    generator = torch.Generator().manual_seed(0)
    server = model.server(generator)
    cohort_of = _cohorts(model, server, generator)
    rules: dict[str, AggregationRule] = {
        "flexlora": FlexLora(),
        "fedex_lora": FedExLora(),
        f"fedex_lora, residual_rank={model.rank}": FedExLora(residual_rank=model.rank),
    }
    results = {}
    for name, rule in rules.items():
        with LargestTensor() as largest:
            rule(cohort_of(), server)
        times = []
        for _ in range(num_repeats):
            cohort = cohort_of()
            watch = Stopwatch()
            rule(cohort, server)
            times.append(watch.elapsed())
        results[name] = {
            "cpu_s": median([one.cpu_s for one in times]),
            "wall_s": median([one.wall_s for one in times]),
            "largest_scalars": largest.numel,
        }
    return results


def _cohorts(model: Model, server: ServerState, generator: torch.Generator) -> Callable[[], Cohort]:
    """Return a function that makes a cohort of the same updates, which has not yet been asked for its mean."""
    clients = tuple(range(model.num_clients))
    uploads = [model.factors(generator) for _ in clients]
    plan = RoundPlan(
        round_idx=0,
        invited=clients,
        arriving=clients,
        weights=dict(zip(clients, model.weights(), strict=True)),
        trains=frozenset(server.shared),
    )

    def cohort() -> Cohort:
        made = Cohort(plan, {MODEL: server.shared}, keeps=True)
        for client_id, tensors in zip(clients, uploads, strict=True):
            made.add(client_id, {MODEL: tensors})
        made.close(clients)
        return made

    return cohort


def timed(work: Callable[[], object]) -> Callable[[], Elapsed]:
    """Return a function that does the work once and returns its time."""

    def block() -> Elapsed:
        watch = Stopwatch()
        work()
        return watch.elapsed()

    return block


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=2048, help="outputs of q, and inputs of q, k and v")
    parser.add_argument("--kv", type=int, default=256, help="outputs of k and v")
    parser.add_argument("--layers", type=int, default=22, help="transformer blocks")
    parser.add_argument("--rank", type=int, default=8, help="LoRA rank of every client")
    parser.add_argument("--clients", type=int, default=4, help="clients of the round")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of timings on one matrix")
    parser.add_argument("--repeats", type=int, default=3, help="timings of a whole model")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Measure; return 0 if the ratio on one matrix met its target, else 1."""
    pin()
    options = parse_arguments(arguments)
    torch.set_num_threads(1)
    model = Model(
        hidden=options.hidden,
        kv=options.kv,
        num_layers=options.layers,
        rank=options.rank,
        num_clients=options.clients,
    )
    one = one_matrix(model, options.pairs)
    seconds, ratio = one["cpu_s"], Ratio(**one["cpu_s_ratio"])
    print(
        f"{model.shapes[0]}, {model.num_clients} clients of rank {model.rank}: dense {seconds['dense']:.3f} s, "
        f"factors {1e3 * seconds['factors']:.2f} ms of CPU time, {ratio} times faster, "
        f"relative difference {one['relative_difference']:.1e}; {one['verdict']}: {TARGET:.0f} times",
        flush=True,
    )
    rules = whole_model(model, options.repeats)
    for name, result in rules.items():
        print(
            f"{name}, all {len(model.shapes)} matrices: {result['cpu_s']:.2f} s of CPU time, {result['wall_s']:.2f} s "
            f"of wall time; largest tensor {result['largest_scalars']:,.0f} scalars",
            flush=True,
        )
    if options.json is not None:
        options.json.write_text(json.dumps({"one_matrix": one, "whole_model": rules}, indent=2) + "\n")
    return 0 if one["verdict"] == "met" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
