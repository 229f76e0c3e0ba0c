"""The numbers that a round leaves about effective weights are those of dense matrices, for every LoRA recipe.

Each round goes through RoundWork, the transforms and the server's step on a random Llama in float64; only the trainer
is made up, whose steps are random.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from factor_rounds import forward_weight, make_plan, seeded
from torch import Tensor

from fedlit import assembly
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.tensors import TensorDict, num_bytes
from fedlit.client.host import ModelHost
from fedlit.config import EvalConfig, MethodConfig, RunConfig, ServerConfig
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS
from fedlit.process import communication
from fedlit.recipes import RECIPES
from fedlit.round.cohort import Cohort
from fedlit.round.jobs import ClientJob, ClientResult, ClientState, Trainer
from fedlit.round.observers import Observer, RoundView, deviation
from fedlit.round.payload import MODEL
from fedlit.round.plan import RoundPlan
from fedlit.round.server import ServerState
from fedlit.round.step import ServerStep
from fedlit.round.work import LocalWork, RoundWork

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
    "florist": ("florist", {}),
    "florist, mixed ranks": ("florist", {"lora_rank": MIXED, "energy_threshold": 1.0}),
    "fedmomentum": ("fedmomentum", {"energy_threshold": 1.0}),
    "fedmomentum, half": ("fedmomentum", {"energy_threshold": 0.5}),
    "lora_fair": ("lora_fair", {}),
    "fedsvd": ("fedsvd", {}),
    "fedrot_lora": ("fedrot_lora", {}),
    "rolora": ("rolora", {}),
    "la_lora": ("la_lora", {}),
    "fed_sb": ("fed_sb", {"init": "weights"}),
    "ravan": ("ravan", {"num_heads": 2}),
    "fedask": ("fedask", {}),
    "fedit, rslora": ("fedit", {"use_rslora": True}),
}
EXACT = {
    "ffa_lora",
    "flora",
    "flora, mixed ranks",
    "fedex_lora",
    "fedex_lora, reinitialize",
    "fedex_lora, keep",
    "florist, mixed ranks",
    "fedmomentum",
    "fedsvd",
    "rolora",
    "fed_sb",
    "ravan",
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
    """Return scaling * B @ A, or with the core or the heads, written apart from the library's."""
    rank = layer.rank if ranks is None or client_id is None else ranks[client_id]
    scaling = layer.alpha / (rank**0.5 if layer.use_rslora else rank)
    if layer.core and layer.scale:
        cores = tensors[layer.core].split(tensors[layer.core].shape[1])
        core = torch.block_diag(*(scale * each for scale, each in zip(tensors[layer.scale], cores, strict=True)))
        return scaling * tensors[layer.b] @ core @ tensors[layer.a]
    left = tensors[layer.b] @ tensors[layer.core] if layer.core else tensors[layer.b]
    return scaling * left @ tensors[layer.a]


@dataclass(kw_only=True)
class RandomSteps(Trainer):
    """Moves trained tensors at random, those beyond a client's rank excepted; keeps dense effective weights.

    The `lost` send nothing.
    """

    host: ModelHost
    ranks: list[int] | None
    generator: torch.Generator
    lost: tuple[int, ...] = ()
    started: list[TensorDict] = field(default_factory=list)
    ended: list[TensorDict] = field(default_factory=list)
    products: list[TensorDict] = field(default_factory=list)

    def num_steps(self, num_examples: int) -> int:
        return 1

    def parameters(self) -> TensorDict:
        return {name: parameter.data for name, parameter in self.host.model.named_parameters()}

    def effective(self) -> TensorDict:
        """Return the effective weights of what is loaded in the model, with all that was folded into them."""
        return {layer.name: forward_weight(self.host.model, layer) for layer in self.host.layers}

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        for job in jobs:
            if job.client_id in self.lost:
                yield ClientResult(client_id=job.client_id, payload=None)
                continue
            self.host.load_client(job)
            self.started.append(self.effective())
            for name, parameter in self.host.trained.items():
                step = 0.3 * torch.randn(parameter.shape, generator=self.generator, dtype=parameter.dtype)
                if self.ranks:
                    (step if ".lora_A." in name else step.T)[self.ranks[job.client_id] :] = 0
                if parameter.requires_grad:
                    parameter.data += step
            self.ended.append(self.effective())
            loaded = self.parameters()
            self.products.append(
                {layer.name: product(layer, loaded, job.client_id, self.ranks) for layer in self.host.layers}
            )
            shared, private = self.host.take()
            yield ClientResult(
                client_id=job.client_id, payload={MODEL: shared}, private=private, state=ClientState(private=private)
            )


@dataclass
class Federation:
    """A population that trains by random steps."""

    host: ModelHost
    observers: list[Observer]
    server: ServerState
    private: dict[int, TensorDict]
    ranks: list[int] | None
    generator: torch.Generator

    def global_weights(self, trainer: RandomSteps, server: ServerState, weights: dict[int, float]) -> TensorDict:
        """Return the server's effective weights: the mean over clients where they have a factor of their own."""
        self.host.load_server(server)
        total: TensorDict = {}
        for client_id, weight in weights.items():
            self.host.load_private(self.private[client_id])
            for name, dense in trainer.effective().items():
                total[name] = total.get(name, torch.zeros(())) + weight * dense
        return total

    def train(self, client_ids: tuple[int, ...], trainer: RandomSteps) -> tuple[RoundPlan, Cohort, LocalWork]:
        """Let clients train as the round loop would."""
        client_ids = tuple(sorted(client_ids))
        method, server = self.host.method, self.server
        weights = method.weights([NUM_EXAMPLES[client_id] for client_id in client_ids])
        plan = replace(make_plan(client_ids, weights, server.round_idx), trains=self.host.trains(server.round_idx))
        cohort = Cohort(
            plan,
            {MODEL: server.shared},
            keeps=method.rule.stacks or method.rule.asks_again,
            on_server=partial(method.transforms.on_server, server=server, plan=plan),
        )
        jobs = [
            ClientJob(
                client_id=client_id,
                rows=(),
                start=method.transforms.start(method.rule.start(server, client_id), server, client_id),
                state=ClientState(private=self.private[client_id]),
                plan=plan,
            )
            for client_id in client_ids
        ]
        self.host.load_server(server)
        round_work = RoundWork(
            trainer=trainer, transforms=method.transforms, observers=self.observers, drops_failures=False
        )
        work = round_work.run(plan, server, cohort, jobs)
        assert work.problem is None
        self.private |= {client_id: state.private for client_id, state in round_work.states.items()}
        return plan, cohort, work

    def record(self, view: RoundView, work: LocalWork) -> dict[str, Any]:
        """Return what the observers make of a round."""
        record = {}
        for index, observer in enumerate(self.observers):
            notes = {client_id: noted[index] for client_id, noted in work.notes.items()}
            record |= observer.record(replace(view, notes=notes))
        return record

    def trainer(self, lost: tuple[int, ...] = ()) -> RandomSteps:
        return RandomSteps(host=self.host, ranks=self.ranks, generator=self.generator, lost=lost)

    def round(self, client_ids: tuple[int, ...], lost: tuple[int, ...] = ()) -> Round:
        """Train clients, and aggregate; the `lost` are planned and send nothing."""
        before, trainer, method = self.server, self.trainer(lost), self.host.method
        private = dict(self.private)
        plan, cohort, work = self.train((*client_ids, *lost), trainer)
        assert work.lost.keys() == set(lost)
        cohort.close(client_ids)
        shares = method.weights([NUM_EXAMPLES[client_id] for client_id in client_ids])
        of_clients = dict(zip(client_ids, shares, strict=True))
        step = ServerStep(rule=method.rule, options=ServerConfig(), parts=(), population_share=lambda _: 1.0)
        self.server = step(cohort, before, plan)
        after_weights = self.global_weights(trainer, self.server, of_clients)
        ended, self.private = self.private, private
        before_weights = self.global_weights(trainer, before, of_clients)
        self.private = ended
        view = RoundView(plan=plan, before=before, after=self.server, cohort=cohort, notes={})
        return Round(
            layers=self.host.layers,
            record=self.record(view, work),
            weights=shares,
            started=trainer.started,
            ended=trainer.ended,
            before=before_weights,
            after=after_weights,
            products=trainer.products,
        )


@pytest.fixture
def federation(small_llama: Callable[..., Any], tmp_path: Path) -> Callable[..., Federation]:
    def build(case: str, measures: bool = True) -> Federation:
        name, options = RECIPE_OPTIONS[case]
        options = {"lora_rank": 2, "lora_alpha": 7.0, "target_modules": "attention", **options}
        config = RunConfig(
            method=MethodConfig(name=name, options=options),
            num_clients=len(NUM_EXAMPLES),
            eval=EvalConfig(deviation=measures),
        )
        method = build_method(config)
        model = small_llama(dtype=torch.float64)
        torch.manual_seed(0)
        method.adapter.attach(model, PROJECTIONS["llama"])
        model.double()
        host = ModelHost(model, method, method.adapter.layers(model))
        folder: Any = SimpleNamespace(path=tmp_path)
        return Federation(
            host=host,
            observers=assembly._deviation(config, host, folder),
            server=host.first_server(method.parts, len(NUM_EXAMPLES)),
            private={client_id: host.first_state(method.parts).private for client_id in range(len(NUM_EXAMPLES))},
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
    assert lora - {"centralized", "local_only", "feddpa", "fedalt"} == {name for name, _ in RECIPE_OPTIONS.values()}


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
    for measures in (True, False):
        population = federation(case, measures=measures)
        for client_ids in COHORTS:
            record = population.round(client_ids).record
            assert bool(record) is measures
        ends.append(population.server.shared)
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


@pytest.mark.parametrize("case", ["fedit", "fedsa_lora", "fedex_lora, keep"])
def test_a_lost_client_is_in_no_number(case: str, federation: Callable[..., Federation]) -> None:
    """Measured is against the clients that returned, with their weights divided by their sum."""
    with_loss, without = (federation(case).round((0, 1, 3), lost=lost) for lost in ((2,), ()))
    assert with_loss.record.keys() == without.record.keys()
    for key, value in without.record.items():
        assert with_loss.record[key] == pytest.approx(value, rel=1e-9, abs=1e-11), key


@pytest.mark.parametrize("case", ["fedit", "fedsa_lora", "ffa_lora", "flexlora, mixed ranks"])
def test_a_few_layers_at_a_time_are_all_layers(
    case: str, federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clients' factors come back from the file in pieces; how many there are makes no difference."""
    records, calls = [], []
    monkeypatch.setattr(communication, "sum_in_place", lambda buffer: calls.append(buffer.numel()))
    for share in (1, 0.5, 0):
        population = federation(case)
        (observer,) = population.observers
        observer.begin(make_plan((), ()), population.server)
        stack = 3 * num_bytes(observer._like(population.host.layers))  # type: ignore[attr-defined]
        monkeypatch.setattr(deviation, "STACK_BYTES", int(share * stack))
        records.append(population.round((0, 1, 3)).record)
        calls.append(0)
    assert records[0] == records[1] == records[2]
    whole, some, single = (len(part) for part in _split(calls))
    assert whole < some < single
    assert single == whole - 1 + len(population.host.layers)


def _split(calls: list[int]) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for call in calls:
        if call:
            parts[-1].append(call)
        else:
            parts.append([])
    return parts[:-1]


@pytest.mark.parametrize("stack_bytes", [2**24, 1])
def test_a_process_that_need_not_compute_gets_nothing(
    stack_bytes: int, federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But takes part in every collective, in the same order, also if it trained nobody."""
    monkeypatch.setattr(deviation, "STACK_BYTES", stack_bytes)
    population = federation("fedit")
    plan, cohort, work = population.train((0, 1), population.trainer())
    cohort.close((0, 1))
    view = RoundView(plan=plan, before=population.server, after=population.server, cohort=cohort, notes={})
    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(communication, "sum_in_place", lambda buffer: calls.append(tuple(buffer.shape)))
    assert population.record(view, work)
    of_first, calls[:] = list(calls), []
    monkeypatch.setattr(communication, "process_index", lambda: 1)
    assert population.record(view, work) == {}
    assert calls == of_first
    calls.clear()
    (observer,) = population.observers
    observer.begin(plan, population.server)
    assert population.record(view, work) == {}
    assert calls == of_first


def test_an_empty_round_is_not_measured(federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch) -> None:
    population = federation("fedit")
    plan, cohort, work = population.train((), population.trainer())
    cohort.close(())
    monkeypatch.setattr(communication, "sum_in_place", lambda _: pytest.fail("there is nothing to sum"))
    view = RoundView(plan=plan, before=population.server, after=population.server, cohort=cohort, notes={})
    assert population.record(view, work) == {}


def test_the_clients_factors_wait_in_a_file_without_a_name(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    """In the run's folder, where nothing is left."""
    population = federation("fedsa_lora")
    (observer,) = population.observers
    assert observer.folder == tmp_path  # type: ignore[attr-defined]
    population.round((0, 1))
    assert list(tmp_path.iterdir()) == []
