"""What every recipe in the table must keep, with no list kept by hand: a new line in RECIPES is tested here."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tiny_federations import (
    Builder,
    assert_equal,
    assert_export_computes_the_same,
    differ,
    effective_weights,
    logits,
    results,
)

from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.config import CONFIG_DIR, load_config
from fedlit.errors import UserError
from fedlit.methods import Method, build_method
from fedlit.recipes import ADAPTERS, RECIPES, RULES, TRANSFORMS
from fedlit.round.jobs import ClientJob, ClientResult, ClientState, Trainer
from fedlit.round.loop import Federation
from fedlit.round.observers.traffic import TrafficObserver
from fedlit.round.payload import MODEL

EXTRA: dict[str, list[str]] = {}
"""Options without which a recipe cannot run on the packaged model."""

MIXED_RANKS = ("flexlora", "flora", "florist", "hetlora")
EXACT: dict[str, list[str]] = {"florist": ["method.energy_threshold=1"]}
"""Options without which a recipe leaves out a part of what all clients agree on."""
MEASURES = {"lora/deviation", "lora/update_norm", "lora/drift_norm", "lora/rank"}


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    torch.set_num_threads(1)
    return Builder(tmp_path_factory.mktemp("runs"))


def on_push() -> list[Any]:
    """Return all recipes, those nightly whose every part is in one before them: each part is seen on every push."""
    seen: set[tuple[str, str]] = set()
    cases = []
    for name in sorted(RECIPES, key=lambda name: (name != "fedit", name)):
        entry = RECIPES[name]
        parts = {("adapter", entry.adapter), ("optimizer", entry.optimizer), ("rule", entry.rule)}
        parts |= {("transform", transform) for transform in entry.transforms}
        cases.append(name if parts - seen else pytest.param(name, marks=pytest.mark.slow))
        seen |= parts
    return cases


@pytest.fixture(scope="module", params=on_push())
def recipe(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def options(recipe: str) -> list[str]:
    return [f"method={recipe}", "local.optimizer_state=keep", *EXTRA.get(recipe, [])]


@pytest.fixture(scope="module")
def started(builder: Builder, recipe: str, options: list[str]) -> tuple[Federation, TensorDict]:
    """Return a federation before its first round and copies of all its parameters at that time."""
    federation = builder(recipe, *options)
    return federation, snapshot(dict(federation.host.model.named_parameters()))


@pytest.fixture(scope="module")
def finished(started: tuple[Federation, TensorDict]) -> Federation:
    """Return the federation after its last round; nobody may change it."""
    started[0].run()
    return started[0]


def test_it_has_a_yaml_whose_options_its_parts_take(recipe: str) -> None:
    assert (CONFIG_DIR / "method" / f"{recipe}.yaml").is_file()
    assert isinstance(build_method(load_config([f"method={recipe}"])), Method)


def test_training_moves_what_it_should_and_nothing_else(
    started: tuple[Federation, TensorDict], finished: Federation
) -> None:
    before, after = started[1], dict(finished.host.model.named_parameters())
    host = finished.host
    shared, private = host.method.shared(host.model), host.method.private(host.model)
    assert not shared.keys() & private.keys()
    trained = host.trained.keys()
    assert trained <= shared.keys() | private.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= shared.keys() | private.keys(), "the pretrained weights stay as they are"
    assert moved & trained
    assert finished.clients is not None
    assert len(finished.clients) == len(finished.rows)
    for state in finished.clients.values():
        assert all(not torch.equal(tensor, before[name]) for name, tensor in state.private.items())


@dataclass
class Agreeing(Trainer):
    """Whose clients all end with the same tensors, 0.1 or so from those that the first one began with.

    shared, private: what they end with. moved: names of the tensors that were changed.
    """

    shared: TensorDict = field(default_factory=dict)
    private: TensorDict = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    _first: ClientJob | None = None

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        for job in jobs:
            start = dict(job.start.groups[MODEL])
            if self._first is None:
                self._first = job
                generator = torch.Generator().manual_seed(3)
                self.shared, self.private = (
                    {name: self._trained(name, tensor, job, generator) for name, tensor in tensors.items()}
                    for tensors in (start, job.state.private)
                )
            assert_equal(start, dict(self._first.start.groups[MODEL]))
            assert_equal(job.state.private, self._first.state.private)
            state = ClientState(private=snapshot(self.private))
            payload = {**job.start.groups, MODEL: snapshot(self.shared)}
            yield ClientResult(client_id=job.client_id, payload=payload, private=snapshot(self.private), state=state)

    def _trained(self, name: str, tensor: torch.Tensor, job: ClientJob, generator: torch.Generator) -> torch.Tensor:
        if name not in job.plan.trains:
            return tensor
        self.moved.add(name)
        return tensor + 0.1 * torch.randn(tensor.shape, generator=generator)

    def num_steps(self, num_examples: int) -> int:
        return 1


def test_what_all_clients_agree_on_is_the_server_s(builder: Builder, recipe: str, options: list[str]) -> None:
    """Clients that trained to the same tensors: LoRA layers keep their effective weights, others their tensors."""
    federation = builder(f"{recipe}-identical", *options, *EXACT.get(recipe, []), "num_rounds=1")
    host, server, trainer = federation.host, federation.server, Agreeing()
    before = effective_weights(federation, {})
    started = {name: parameter.detach().clone() for name, parameter in host.model.named_parameters()}
    federation.trainer = trainer
    federation.run()
    after, record = federation.server, federation.folder.records()[1]
    assert after.round_idx == 1
    assert record["aggregation/num_clients"] == len(federation.rows)
    assert trainer.moved == host.trains(0)
    clients = effective_weights(federation, {**started, **trainer.shared, **trainer.private})
    if not host.method.communicates:
        assert_equal(after.shared, server.shared)
    elif not host.layers:
        assert after.shared.keys() == trainer.shared.keys()
        for name, tensor in after.shared.items():
            torch.testing.assert_close(tensor, trainer.shared[name], rtol=0, atol=1e-12)  # the mean's fixed point
    else:
        merged = effective_weights(federation, {**started, **trainer.private, **after.frozen, **after.shared})
        for name, weight in merged.items():
            assert (weight - clients[name]).norm() < 1e-5 * (clients[name] - before[name]).norm()
        assert record["lora/deviation"] < 1e-5 * record["lora/drift_norm"]
        assert record["lora/drift_norm"] > 0


@dataclass
class Backwards(Trainer):
    """Trains the clients, and yields their results, in the order opposite to the jobs'."""

    inner: Trainer
    order: list[int] = field(default_factory=list)

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        turned = list(jobs)[::-1]
        self.order += [job.client_id for job in turned]
        yield from self.inner.train(turned)

    def num_steps(self, num_examples: int) -> int:
        return self.inner.num_steps(num_examples)


def test_the_order_of_clients_is_irrelevant(
    builder: Builder, recipe: str, options: list[str], finished: Federation
) -> None:
    """Clients train and hand in their results the other way round; the cohort as such is sorted."""
    reversed_ = builder(f"{recipe}-reversed", *options)
    backwards = Backwards(reversed_.trainer)
    reversed_.trainer = backwards
    reversed_.run()
    assert backwards.order == 2 * list(range(len(finished.rows)))[::-1]
    assert_equal(results(finished), results(reversed_))
    for one, other in zip(finished.folder.records(), reversed_.folder.records(), strict=True):
        timeless = [key for key in one if not key.startswith("time/")]
        assert [one[key] for key in timeless] == [other[key] for key in timeless]


def test_state_survives_save_and_load(builder: Builder, recipe: str, options: list[str], finished: Federation) -> None:
    """One round, then a new process's federation that resumes, equals two rounds at one go."""
    first = builder(f"{recipe}-halves", *options)
    original = first.config.num_rounds
    first.config.num_rounds = 1
    first.run()
    second = builder(f"{recipe}-halves", *options)
    assert second.server.round_idx == 1
    second.config.num_rounds = original
    second.run()
    assert_equal(results(finished), results(second))


@dataclass
class Watching(Trainer):
    """Sees that a client that comes back has the private tensors that it left with.

    seen: those of every client. num_returns: clients that came back.
    """

    inner: Trainer
    seen: dict[int, TensorDict] = field(default_factory=dict)
    num_returns: int = 0

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        for result in self.inner.train(self._checked(jobs)):
            assert result.state is not None
            self.seen[result.client_id] = result.state.private
            yield result

    def _checked(self, jobs: Iterable[ClientJob]) -> Iterator[ClientJob]:
        for job in jobs:
            if job.client_id in self.seen:
                self.num_returns += 1
                assert_equal(job.state.private, self.seen[job.client_id])
            yield job

    def num_steps(self, num_examples: int) -> int:
        return self.inner.num_steps(num_examples)


def test_private_tensors_stay_with_their_client(builder: Builder, recipe: str, options: list[str]) -> None:
    """A client's private tensors before round t + 1 are its own after round t, whoever trained in between."""
    federation = builder(
        f"{recipe}-private", *options, "cohort_size=2", "num_rounds=3", "local.steps=1", "eval.every=3"
    )
    if not federation.host.has_private:
        pytest.skip("nothing is private")
    watching = Watching(federation.trainer)
    federation.trainer = watching
    federation.run()
    assert watching.num_returns > 0
    seen = watching.seen
    assert len(seen) == 3
    first, second = (list(seen[client].values()) for client in (0, 1))
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_client_trains_from_what_is_scored(finished: Federation) -> None:
    """The model in which its next round begins computes what its scores are of, also where it takes up a part alone."""
    plan, host = finished.schedule.plan(finished.server.round_idx), finished.host
    for client_id in plan.arriving:
        host.load_client(finished._job(client_id, plan))
        begun = logits(host.model)
        host.load_server(finished.server)
        if host.has_private:
            finished.load_client(client_id)
        scored = logits(host.model)
        assert float((begun - scored).abs().max()) <= 1e-5 * float(scored.abs().max())


def test_the_result_computes_the_same_without_fedlit(finished: Federation) -> None:
    assert_export_computes_the_same(finished)


def test_the_record_has_its_keys(finished: Federation) -> None:
    first, *rounds = finished.folder.records()
    assert [record["round"] for record in (first, *rounds)] == [0, 1, 2]
    for record in (first, rounds[-1]):
        assert {"global/loss", "global/rouge_l", "global/bleu_4", "eval/protocol"} <= record.keys()
    assert {"eval/signature/rouge_l", "eval/signature/bleu_4"} <= first.keys()
    for record in (first, *rounds):
        assert all(math.isfinite(value) for value in record.values() if isinstance(value, float))
    for record in rounds:
        for client_id in range(1 if finished.host.method.pooled else 3):
            assert {f"client/{client_id}/{name}" for name in ("train_loss", "update_norm")} <= record.keys()
        travels = finished.host.method.communicates and not finished.host.method.pooled
        assert (record["communication/uplink_bytes"] > 0) == travels
        assert (record["communication/downlink_bytes"] > 0) == travels
        measured = finished.host.method.communicates and bool(finished.host.layers)
        assert record.keys() >= MEASURES if measured else not record.keys() & MEASURES
        if measured:
            assert record["lora/drift_norm"] > 0
            assert record["lora/rank"] > 0


def test_it_trains_on_pooled_data(builder: Builder, recipe: str, options: list[str]) -> None:
    federation = builder.run(f"{recipe}-pooled", *options, "method.pooled=true", "num_rounds=1", "local.steps=1")
    assert federation.schedule.cohort_size == 1
    record = federation.folder.records()[1]
    assert record["client/0/num_steps"] == 3
    assert record["communication/uplink_bytes"] == 0


def test_a_proximal_term_changes_the_result(
    builder: Builder, recipe: str, options: list[str], finished: Federation
) -> None:
    plain = finished
    if finished.host.method.adapter.takes_turns_by_step:  # the first step of each factor has nothing to be pulled to
        options = [*options, "local.steps=3"]
        plain = builder.run(f"{recipe}-unpulled", *options)
    options = [*options, "local.prox_mu=0.1"]
    if finished.host.method.adapter.sends_own:
        with pytest.raises(UserError, match="no client starts from them"):
            build_method(load_config(options))
    elif finished.host.method.communicates and not finished.host.method.pooled:
        assert differ(builder.run(f"{recipe}-prox", *options), plain)
    else:
        with pytest.raises(UserError, match="nothing travels here"):
            build_method(load_config(options))


def test_a_server_optimizer_where_the_rule_averages(
    builder: Builder, recipe: str, options: list[str], finished: Federation
) -> None:
    options = [*options, "server.optimizer=fedavgm", "server.beta1=0.9", "server.lr=0.5"]
    if finished.host.method.rule.averages:
        slower = builder.run(f"{recipe}-fedavgm", *options)
        assert slower.server.optimizer
        assert differ(slower, finished)
    else:
        with pytest.raises(UserError, match=f"method.rule={RECIPES[recipe].rule} does not return the mean"):
            build_method(load_config(options))


def test_scaffold_where_sgd_and_the_mean_are(builder: Builder, recipe: str, options: list[str]) -> None:
    # Of three rounds: RoLoRA trains a factor for the second time in the third, where its variates are not zero.
    options = [*options, "method.optimizer=sgd", "num_rounds=3", "local.steps=1", "eval.every=3"]
    scaffold = [*options, "local.scaffold=true"]
    entry = RECIPES[recipe]
    alternates = build_method(load_config(options)).adapter.takes_turns_by_step
    if entry.rule == "fedavg" and not entry.pooled and not entry.transforms and not alternates:
        corrected, plain = builder.run(f"{recipe}-scaffold", *scaffold), builder.run(f"{recipe}-sgd", *options)
        assert differ(corrected, plain)
        uplinks = [run.folder.records()[1]["communication/uplink_bytes"] for run in (corrected, plain)]
        assert uplinks[0] > uplinks[1]
    else:
        with pytest.raises(UserError, match=r"local.scaffold=true .*method\.(rule|optimizer|transforms|adapter)="):
            build_method(load_config(scaffold))


ONE_OF_EACH_ADAPTER = [
    next(name for name, entry in RECIPES.items() if entry.adapter == adapter) for adapter in sorted(ADAPTERS)
]


@pytest.mark.parametrize(
    "name", sorted({*ONE_OF_EACH_ADAPTER, *(name for name, entry in RECIPES.items() if entry.transforms)})
)
def test_without_a_rule_every_client_trains_alone(builder: Builder, name: str) -> None:
    federation = builder.run(f"{name}-alone", f"method={name}", "method.rule=none", "num_rounds=1")
    assert not federation.host.method.shared(federation.host.model)
    assert federation.folder.records()[1]["communication/uplink_bytes"] == 0
    assert differ_between_clients(federation)
    assert_export_computes_the_same(federation)


def differ_between_clients(federation: Federation) -> bool:
    assert federation.clients is not None
    one, other = (federation.clients[client].private for client in (0, 1))
    return any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", MIXED_RANKS)
def test_clients_of_several_ranks(builder: Builder, name: str) -> None:
    federation = builder.run(f"{name}-ranks", f"method={name}", "method.lora_rank=[2,4,3]")
    record = federation.folder.records()[1]
    widest = builder(f"{name}-rank-4", f"method={name}", "method.lora_rank=4")
    (traffic,) = (observer for observer in widest.observers if isinstance(observer, TrafficObserver))
    most, _ = traffic.of_round(widest.server, range(3), range(3), widest.host.trains(0))
    assert 0 < record["communication/uplink_bytes"] == most * (2 + 4 + 3) / (3 * 4)
    assert record["lora/drift_norm"] > 0
    assert_export_computes_the_same(federation)


def test_every_part_is_in_some_recipe() -> None:
    """A part that no recipe uses has no contract test."""
    assert {entry.adapter for entry in RECIPES.values()} == set(ADAPTERS)
    assert {entry.rule for entry in RECIPES.values()} == set(RULES)
    assert {name for entry in RECIPES.values() for name in entry.transforms} == set(TRANSFORMS)


def test_recipes_that_mix_ranks_are_tested_here() -> None:
    """Those whose parts say so, and no others, take a rank for each client."""
    methods = {name: build_method(load_config([f"method={name}"])) for name in RECIPES}
    mixing = {
        name
        for name, method in methods.items()
        if method.rule.mixes_ranks and any(transform.mixes_ranks for transform in method.transforms.parts)
    }
    assert mixing == set(MIXED_RANKS)
    for name in RECIPES.keys() - mixing:
        with pytest.raises(UserError, match="lora_rank"):
            build_method(load_config([f"method={name}", "method.lora_rank=[2,4,3]"]))
