"""The numbers that a round leaves about effective weights are those of dense matrices, for every LoRA recipe.

Each round goes through Exchange on a random Llama in float64: what real clients would download, train and upload.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from factor_rounds import seeded
from torch import Tensor

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.tensors import TensorDict, copy_into, snapshot
from fedlit.config import EvalConfig, MethodConfig, RunConfig
from fedlit.methods import RECIPES, build_method
from fedlit.models import PROJECTIONS
from fedlit.round.cohort import ClientUpdate
from fedlit.round.exchange import Exchange, RoundCohort
from fedlit.round.server import Download, ServerState

NUM_EXAMPLES = (10, 30, 20, 40)
MIXED = [2, 5, 3, 5]
COHORTS = ((0, 1, 3), (1, 2), (0, 1, 2, 3))
RECIPE_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "fedit": ("fedit", {}),
    "ffa_lora": ("ffa_lora", {}),
    "fedsa_lora": ("fedsa_lora", {}),
    "flexlora": ("flexlora", {}),
    "flexlora, mixed ranks": ("flexlora", {"lora_rank": MIXED}),
    "hetlora, mixed ranks": ("hetlora", {"lora_rank": MIXED}),
    "flora": ("flora", {}),
    "flora, mixed ranks": ("flora", {"lora_rank": MIXED}),
    "fedex_lora": ("fedex_lora", {}),
    "fedex_lora, reinitialize": ("fedex_lora", {"assignment": "reinitialize"}),
    "fedex_lora, keep": ("fedex_lora", {"assignment": "keep"}),
    "fedex_lora, residual_rank=1": ("fedex_lora", {"residual_rank": 1}),
    "fedsvd": ("fedsvd", {}),
    "fedrot_lora": ("fedrot_lora", {}),
    "rolora": ("rolora", {}),
    "fed_sb": ("fed_sb", {"init": "weights"}),
    "fedit, rslora": ("fedit", {"use_rslora": True}),
}
EXACT = {
    "ffa_lora",
    "flora",
    "flora, mixed ranks",
    "fedex_lora",
    "fedex_lora, reinitialize",
    "fedex_lora, keep",
    "fedsvd",
    "rolora",
    "fed_sb",
}
"""Rules whose server has the mean of the clients' effective weights."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round's record beside dense effective weights (out, in) by layer name."""

    layers: tuple[LoraLayer, ...]
    record: dict[str, float]
    weights: tuple[float, ...]
    started: list[TensorDict]
    ended: list[TensorDict]
    before: TensorDict
    after: TensorDict
    products: list[TensorDict]


def product(layer: LoraLayer, tensors: dict[str, Tensor], client_id: int | None, ranks: list[int] | None) -> Tensor:
    """Return scaling * B @ A, or with the core, written apart from the library's."""
    rank = layer.rank if ranks is None or client_id is None else ranks[client_id]
    scaling = layer.alpha / (rank**0.5 if layer.use_rslora else rank)
    left = tensors[layer.b] @ tensors[layer.core] if layer.core else tensors[layer.b]
    return scaling * left @ tensors[layer.a]


@dataclass
class Federation:
    """A population that trains by random steps."""

    exchange: Exchange
    server: ServerState
    private: dict[int, TensorDict]
    ranks: list[int] | None
    generator: torch.Generator

    def parameters(self) -> TensorDict:
        return {name: parameter.data for name, parameter in self.exchange.model.named_parameters()}

    def effective(self, client_id: int | None = None) -> TensorDict:
        """Return the effective weights of what is loaded in the model."""
        loaded = self.parameters()
        return {
            layer.name: loaded[layer.weight] + product(layer, loaded, client_id, self.ranks)
            for layer in self.exchange.layers
        }

    def global_weights(
        self, server: ServerState, client_ids: tuple[int, ...], weights: tuple[float, ...]
    ) -> TensorDict:
        """Return the server's effective weights: the mean over clients where they have a factor of their own."""
        self.exchange.load_server(server)
        total: TensorDict = {}
        for client_id, weight in zip(client_ids, weights, strict=True):
            copy_into(self.exchange.method.private(self.exchange.model), self.private[client_id])
            for name, dense in self.effective().items():
                total[name] = total.get(name, torch.zeros(())) + weight * dense
        return total

    def trained(self, tensors: TensorDict, client_id: int) -> TensorDict:
        """Return trainable tensors moved at random, those beyond a client's rank excepted."""
        parameters = dict(self.exchange.model.named_parameters())
        result = {}
        for name, tensor in tensors.items():
            step = 0.3 * torch.randn(tensor.shape, generator=self.generator, dtype=tensor.dtype)
            if self.ranks:
                (step if ".lora_A." in name else step.T)[self.ranks[client_id] :] = 0
            result[name] = tensor + step if parameters[name].requires_grad else tensor.clone()
        return result

    def round(self, client_ids: tuple[int, ...]) -> Round:
        exchange, before = self.exchange, self.server
        exchange.load_server(before)
        cohort = exchange.cohort(client_ids, before)
        total = sum(NUM_EXAMPLES[client_id] for client_id in client_ids)
        weights = tuple(NUM_EXAMPLES[client_id] / total for client_id in client_ids)
        before_weights = self.global_weights(before, client_ids, weights)
        started, ended, products = [], [], []
        for client_id in client_ids:
            start, end, products_of_one = self.train(cohort, exchange.download(before, client_id), client_id)
            started.append(start)
            ended.append(end)
            products.append(products_of_one)
        self.server = cohort.aggregate()
        return Round(
            layers=exchange.layers,
            record=cohort.deviation(self.server, compute=True),
            weights=weights,
            started=started,
            ended=ended,
            before=before_weights,
            after=self.global_weights(self.server, client_ids, weights),
            products=products,
        )

    def train(
        self, cohort: RoundCohort, download: Download, client_id: int
    ) -> tuple[TensorDict, TensorDict, TensorDict]:
        method, model = self.exchange.method, self.exchange.model
        private = self.private[client_id]
        copy_into(method.shared(model), download.shared)
        copy_into(method.private(model), private)
        started = self.effective(client_id)
        shared = self.trained(download.shared, client_id)
        self.private[client_id] = self.trained(private, client_id)
        copy_into(method.shared(model), shared)
        copy_into(method.private(model), self.private[client_id])
        ended, loaded = self.effective(client_id), self.parameters()
        products = {layer.name: product(layer, loaded, client_id, self.ranks) for layer in self.exchange.layers}
        update = ClientUpdate(
            client_id=client_id, num_examples=1, shared=shared, private=self.private[client_id], metrics={}
        )
        cohort.add(update, download, private)
        return started, ended, products


@pytest.fixture
def federation(small_llama: Callable[..., Any]) -> Callable[..., Federation]:
    def build(case: str, deviation: bool = True) -> Federation:
        name, options = RECIPE_OPTIONS[case]
        options = {"lora_rank": 2, "lora_alpha": 7.0, "target_modules": "attention", **options}
        config = RunConfig(
            method=MethodConfig(name=name, options=options),
            num_clients=len(NUM_EXAMPLES),
            eval=EvalConfig(deviation=deviation),
        )
        method = build_method(config)
        model = small_llama(dtype=torch.float64)
        torch.manual_seed(0)
        method.adapter.attach(model, PROJECTIONS["llama"])
        model.double()
        layers = method.adapter.layers(model)
        exchange = Exchange(config=config, method=method, model=model, layers=layers, num_examples=NUM_EXAMPLES)
        return Federation(
            exchange=exchange,
            server=exchange.first_server({}),
            private={client_id: snapshot(method.private(model)) for client_id in range(len(NUM_EXAMPLES))},
            ranks=options["lora_rank"] if isinstance(options["lora_rank"], list) else None,
            generator=seeded(5),
        )

    return build


def rms(matrix: Tensor) -> float:
    return float(matrix.square().mean().sqrt())


def mean_of(weights: tuple[float, ...], tensors: list[TensorDict], name: str) -> Tensor:
    return torch.stack([weight * one[name] for weight, one in zip(weights, tensors, strict=True)]).sum(0)


def test_every_lora_recipe_is_here() -> None:
    lora = {name for name, recipe in RECIPES.items() if recipe.adapter.startswith("lora")}
    assert lora - {"centralized", "local_only"} == {name for name, _ in RECIPE_OPTIONS.values()}


@pytest.mark.parametrize("case", RECIPE_OPTIONS)
def test_three_rounds_measured_densely(case: str, federation: Callable[..., Federation]) -> None:
    population = federation(case)
    for client_ids in COHORTS:
        one = population.round(client_ids)
        deviations, updates, drifts, ranks = [], [], [], []
        for layer in one.layers:
            name = layer.name
            missed = one.after[name] - mean_of(one.weights, one.ended, name)
            assert one.record[f"lora/deviation/{name}"] == pytest.approx(rms(missed), rel=1e-8, abs=1e-10)
            deviations.append(rms(missed))
            updates.append(rms(one.after[name] - one.before[name]))
            moved = [rms(end[name] - start[name]) for end, start in zip(one.ended, one.started, strict=True)]
            drifts.append(sum(weight * norm for weight, norm in zip(one.weights, moved, strict=True)))
            ranks.append(int(torch.linalg.matrix_rank(mean_of(one.weights, one.products, name))))
        expected = {"deviation": deviations, "update_norm": updates, "drift_norm": drifts, "rank": ranks}
        for key, values in expected.items():
            mean = sum(values) / len(values)
            assert one.record[f"lora/{key}"] == pytest.approx(mean, rel=1e-8, abs=1e-10), key
        assert len(one.record) == len(expected) + len(one.layers)
        assert one.record["lora/drift_norm"] > 1e-3
        if case in EXACT:
            assert one.record["lora/deviation"] < 1e-12
        else:
            assert one.record["lora/deviation"] > 1e-4


def test_the_truncated_residual_leaves_what_it_cuts_off(federation: Callable[..., Federation]) -> None:
    """FlexLoRA and FedEx with residual_rank=1 miss the singular values beyond what they keep."""
    one = federation("flexlora").round((0, 1, 3))
    for layer in one.layers:
        ideal = mean_of(one.weights, one.products, layer.name)
        cut = torch.linalg.svdvals(ideal)[layer.rank :].norm() / ideal.numel() ** 0.5
        assert one.record[f"lora/deviation/{layer.name}"] == pytest.approx(float(cut), rel=1e-9)


@pytest.mark.parametrize("case", ["fedit", "fedsa_lora", "fed_sb", "ffa_lora"])
def test_measuring_changes_nothing(case: str, federation: Callable[..., Federation]) -> None:
    ends = []
    for deviation in (True, False):
        population = federation(case, deviation=deviation)
        for client_ids in COHORTS:
            record = population.round(client_ids).record
            assert bool(record) is deviation
        ends.append(population.server.shared)
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_a_process_that_need_not_compute_gets_nothing(federation: Callable[..., Federation]) -> None:
    population = federation("fedit")
    cohort = population.exchange.cohort((0, 1), population.server)
    for client_id in (0, 1):
        population.train(cohort, population.exchange.download(population.server, client_id), client_id)
    assert cohort.deviation(cohort.aggregate(), compute=False) == {}
