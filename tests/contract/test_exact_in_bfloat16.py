"""Exact rules are exact in the model that trains and is scored, whatever type its weights and its forward pass have.

Measured on what the model holds: the weights of every client as its training left them, and those of the server after
the round, both in float64.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from factor_rounds import forward_weight
from peft import PeftModel
from tiny_federations import Builder, logits
from torch import Tensor

from fedlit.algebra.tensors import TensorDict
from fedlit.client.host import ModelHost
from fedlit.config import ModelConfig
from fedlit.models import load_backbone
from fedlit.round.jobs import ClientJob, ClientResult, Trainer
from fedlit.round.loop import Federation

TYPES = {
    "fp32": ["model.dtype=float32", "compute.precision=32-true"],
    "bf16 weights": ["model.dtype=bfloat16", "compute.precision=32-true"],
    "bf16 forward": ["model.dtype=float32", "compute.precision=bf16-mixed"],
    "bf16 both": ["model.dtype=bfloat16", "compute.precision=bf16-mixed"],
}
RULES = {
    "fedit": ["method=fedit"],
    "average": ["method=fedex_lora"],
    "reinitialize": ["method=fedex_lora", "method.assignment=reinitialize"],
    "keep": ["method=fedex_lora", "method.assignment=keep"],
    "flora": ["method=flora"],
    "florist": ["method=florist", "method.energy_threshold=1"],
    "fedmomentum": ["method=fedmomentum", "method.energy_threshold=1"],
}
EXACT = [rule for rule in RULES if rule != "fedit"]
COMMON = [
    "num_rounds=3",
    "local.lr=5e-4",
    "local.steps=3",
    "method.lora_rank=4",
    "method.lora_alpha=2",
    "eval.every=10",
    "method.target_modules=all",
]


def held_weights(host: ModelHost) -> TensorDict:
    """Return the effective weights (out, in) of the model as it stands, by its own forward pass in float64."""
    parameters = dict(host.model.named_parameters())
    kinds = {name: parameter.dtype for name, parameter in parameters.items()}
    rounded = None if host._folded is None else host._folded._changes
    host.model.double()
    if host._folded is not None and rounded is not None:
        host._folded.set({name: change.to(torch.float64) for name, change in rounded.items()})
    weights = {layer.name: forward_weight(host.model, layer) for layer in host.layers}
    for name, parameter in parameters.items():
        parameter.data = parameter.data.to(kinds[name])
    if host._folded is not None and rounded is not None:
        host._folded.set(rounded)
    return weights


@dataclass
class Watched(Trainer):
    """Trains, and keeps every client's weights as its training left them in the model."""

    inner: Trainer
    host: ModelHost
    ended: dict[int, TensorDict] = field(default_factory=dict)

    def num_steps(self, num_examples: int) -> int:
        return self.inner.num_steps(num_examples)

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        for result in self.inner.train(jobs):
            self.ended[result.client_id] = held_weights(self.host)
            yield result


@dataclass
class Measured:
    """A run's deviation in its last round: measured on the model, and recorded."""

    federation: Federation
    deviation: float
    recorded: float
    update: float


def measured(builder: Builder, name: str, *options: str) -> Measured:
    federation = builder(name, *COMMON, *options)
    watched = Watched(federation.trainer, federation.host)
    federation.trainer = watched
    last = [held_weights(federation.host)]
    load_server = federation.host.load_server

    def load(server: object) -> None:
        load_server(server)  # type: ignore[arg-type]
        last.append(held_weights(federation.host))

    federation.host.load_server = load  # type: ignore[method-assign]
    federation.run()
    rows = {client: len(federation.rows[client]) for client in watched.ended}
    missed, moved = [], []
    for layer in federation.host.layers:
        ideal: Tensor = sum(
            rows[client] / sum(rows.values()) * weights[layer.name] for client, weights in watched.ended.items()
        )  # type: ignore[assignment]
        missed.append(float((last[-1][layer.name] - ideal).square().mean().sqrt()))
        moved.append(float((last[-1][layer.name] - last[-2][layer.name]).square().mean().sqrt()))
    record = federation.folder.records()[-1]
    return Measured(federation, sum(missed) / len(missed), record["lora/deviation"], sum(moved) / len(moved))


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    torch.set_num_threads(1)
    return Builder(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def run(builder: Builder) -> Callable[[str, str], Measured]:
    """Return a function that runs a rule with types, each once in a worker."""
    return cache(lambda rule, kind: measured(builder, f"{rule} {kind}", *RULES[rule], *TYPES[kind]))


HELD_ON_PUSH = {
    *(("average", kind) for kind in ("fp32", "bf16 weights", "bf16 forward")),
    *(("reinitialize", "fp32"), ("keep", "fp32"), ("flora", "bf16 weights")),
}
EXPORTED_ON_PUSH = {("average", "adapter"), ("reinitialize", "merged"), ("keep", "adapter"), ("flora", "merged")}


def on_push(chosen: set[tuple[str, str]], others: Iterable[str]) -> list[Any]:
    """Return every rule with every other word, the pairs that are not chosen left to `make test-all`."""
    pairs = product(EXACT, others)
    return [pair if pair in chosen else pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs]


@pytest.mark.parametrize(("rule", "kind"), on_push(HELD_ON_PUSH, TYPES))
def test_the_model_holds_the_mean_of_the_clients(rule: str, kind: str, run: Callable[[str, str], Measured]) -> None:
    """FedEx and FLoRA miss it by less than a thousandth of what FedIT does, in bfloat16 as in float32."""
    one, plain = run(rule, kind), run("fedit", kind)
    assert plain.recorded == pytest.approx(plain.deviation, rel=1e-6)
    assert plain.deviation > 1e-8
    assert one.update > 10 * plain.deviation, "something happens in a round"
    assert one.deviation < 1e-3 * plain.deviation
    assert one.recorded == pytest.approx(one.deviation, rel=0.05, abs=1e-15), "the record tells what the model holds"
    assert one.deviation / plain.deviation < 2 * run(rule, "fp32").deviation / run("fedit", "fp32").deviation


@pytest.mark.parametrize(("rule", "form"), on_push(EXPORTED_ON_PUSH, ("adapter", "merged")))
def test_what_is_scored_is_what_is_exported(rule: str, form: str, builder: Builder) -> None:
    """Over the same bfloat16 backbone, to the precision of its forward pass; a merged model is in float32."""
    steps = ["local.lr=0.02", "num_rounds=2", "local.steps=2"]
    given = [option for option in COMMON if option.split("=")[0] not in {step.split("=")[0] for step in steps}]
    options = [*given, *steps, *RULES[rule], *TYPES["bf16 weights"], f"run.export={form}"]
    federation = builder(f"export {rule} {form}", *options)
    federation.run()
    federation.export()
    model = load_backbone(ModelConfig(dtype="bfloat16")).model
    pretrained, scored = logits(model).float(), logits(federation.host.model).float()
    size = float((scored - pretrained).abs().max())
    if form == "adapter":
        loaded = PeftModel.from_pretrained(model, federation.folder.adapter)
    else:
        loaded = load_backbone(ModelConfig(path=str(federation.folder.adapter))).model
    difference = float((logits(loaded).float() - scored).abs().max())
    noise = float((logits(load_backbone(ModelConfig()).model) - pretrained).abs().max())
    assert size > 5 * noise, "what was trained is far above the rounding of a bfloat16 forward pass"
    assert difference < 2 * noise
