"""What every recipe in the table must keep, with no list kept by hand: a new line in RECIPES is tested here."""

import math
from collections.abc import Iterator

import pytest
import torch
from tiny_federations import (
    Builder,
    assert_equal,
    assert_export_computes_the_same,
    differ,
    effective_weights,
    packaged_backbone,
    results,
)

from fedlit import assembly
from fedlit.adapters import trainable
from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.config import CONFIG_DIR, load_config
from fedlit.errors import UserError
from fedlit.methods import ADAPTERS, RECIPES, RULES, Method, build_method
from fedlit.round import loop as federation_module
from fedlit.round.cohort import ClientUpdate, sample_cohort
from fedlit.round.loop import Federation
from fedlit.round.server import Download

EXTRA: dict[str, list[str]] = {}
"""Options without which a recipe cannot run on the packaged model."""

MIXED_RANKS = ("flexlora", "flora", "hetlora")
MEASURES = {"lora/deviation", "lora/update_norm", "lora/drift_norm", "lora/rank"}


@pytest.fixture(scope="module", autouse=True)
def one_backbone() -> Iterator[None]:
    """Read the packaged model once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "load_backbone", packaged_backbone)
        yield


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    torch.set_num_threads(1)
    return Builder(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module", params=sorted(RECIPES))
def recipe(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def options(recipe: str) -> list[str]:
    return [f"method={recipe}", "local.optimizer_state=keep", *EXTRA.get(recipe, [])]


@pytest.fixture(scope="module")
def started(builder: Builder, recipe: str, options: list[str]) -> tuple[Federation, TensorDict]:
    """Return a federation before its first round and copies of all its parameters at that time."""
    federation = builder(recipe, *options)
    return federation, snapshot(dict(federation.model.named_parameters()))


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
    before, after = started[1], dict(finished.model.named_parameters())
    shared, private = finished.method.shared(finished.model), finished.method.private(finished.model)
    assert not shared.keys() & private.keys()
    trained = finished.trainer.module.trained.keys()
    assert trained <= shared.keys() | private.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= shared.keys() | private.keys() | finished.server.frozen.keys()
    assert moved & trained
    for state in finished.clients.values():
        assert all(not torch.equal(tensor, before[name]) for name, tensor in state.private.items())


def test_what_all_clients_agree_on_is_the_server_s(builder: Builder, recipe: str, options: list[str]) -> None:
    """Clients that trained to the same tensors: LoRA layers keep their effective weights, others their tensors."""
    federation = builder(f"{recipe}-identical", *options)
    exchange, server = federation.exchange, federation.server
    num_clients = len(federation.rows)
    round_ = exchange.cohort(range(num_clients), server)
    now = trainable(federation.model)
    generator = torch.Generator().manual_seed(3)

    def trained(tensors: TensorDict) -> TensorDict:
        return {
            name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) if name in now else tensor
            for name, tensor in tensors.items()
        }

    download = exchange.download(server, 0)
    started_private = snapshot(federation.method.private(federation.model))
    shared, private = trained(download.shared), trained(started_private)
    clients = effective_weights(federation, {**shared, **private})
    for client_id in range(num_clients):
        update = ClientUpdate(client_id=client_id, num_examples=1, shared=shared, private=snapshot(private), metrics={})
        round_.add(update, download, started_private)
    after = round_.aggregate()
    if not federation.method.communicates:
        assert_equal(after.shared, server.shared)
    elif not exchange.layers:
        for name, tensor in after.shared.items():
            torch.testing.assert_close(tensor, shared[name], rtol=0, atol=1e-12)  # the mean's fixed point
    else:
        merged = effective_weights(federation, {**private, **after.frozen, **after.shared})
        before = effective_weights(federation, {})
        for name, weight in merged.items():
            assert (weight - clients[name]).norm() < 1e-5 * (clients[name] - before[name]).norm()
        numbers = round_.deviation(after, compute=True)
        assert numbers["lora/deviation"] < 1e-5 * numbers["lora/drift_norm"]
        assert numbers["lora/drift_norm"] > 0


def test_the_order_of_clients_is_irrelevant(
    builder: Builder, recipe: str, options: list[str], finished: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients train and hand in their updates the other way round; the cohort as such is sorted."""

    def backwards(*arguments: int) -> tuple[int, ...]:
        return sample_cohort(*arguments)[::-1]

    reversed_ = builder(f"{recipe}-reversed", *options)
    cohort = reversed_.exchange.cohort
    monkeypatch.setattr(federation_module, "sample_cohort", backwards)
    monkeypatch.setattr(reversed_.exchange, "cohort", lambda ids, server: cohort(sorted(ids), server))
    reversed_.run()
    assert_equal(results(finished), results(reversed_))


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


def test_private_tensors_stay_with_their_client(builder: Builder, recipe: str, options: list[str]) -> None:
    """A client's private tensors before round t + 1 are its own after round t, whoever trained in between."""
    federation = builder(
        f"{recipe}-private", *options, "cohort_size=2", "num_rounds=3", "local.steps=1", "eval.every=3"
    )
    if not federation.method.private(federation.model):
        pytest.skip("nothing is private")
    seen: dict[int, TensorDict] = {}
    train = type(federation.trainer).train

    def checked(
        trainer: object, client_id: int, rows: object, download: Download, state: object, *rest: object
    ) -> object:
        if client_id in seen:
            assert_equal(state.private, seen[client_id])  # type: ignore[attr-defined]
        result = train(trainer, client_id, rows, download, state, *rest)  # type: ignore[arg-type]
        assert result is not None
        seen[client_id] = result[1].private
        return result

    object.__setattr__(federation.trainer, "train", checked.__get__(federation.trainer))
    federation.run()
    assert len(seen) == 3
    first, second = (list(seen[client].values()) for client in (0, 1))
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_result_computes_the_same_without_fedlit(finished: Federation) -> None:
    assert_export_computes_the_same(finished)


def test_the_record_has_its_keys(finished: Federation) -> None:
    first, *rounds = finished.folder.records()
    assert [record["round"] for record in (first, *rounds)] == [0, 1, 2]
    for record in (first, rounds[-1]):
        assert {"global/loss", "global/rouge_l", "global/bleu_4", "eval/protocol"} <= record.keys()
    for record in (first, *rounds):
        assert all(math.isfinite(value) for value in record.values() if isinstance(value, float))
    for record in rounds:
        for client_id in range(1 if finished.method.pooled else 3):
            assert {f"client/{client_id}/{name}" for name in ("train_loss", "update_norm")} <= record.keys()
        travels = finished.method.communicates and not finished.method.pooled
        assert (record["communication/uplink_bytes"] > 0) == travels
        assert (record["communication/downlink_bytes"] > 0) == travels
        measured = finished.method.communicates and bool(finished.exchange.layers)
        assert record.keys() >= MEASURES if measured else not record.keys() & MEASURES
        if measured:
            assert record["lora/drift_norm"] > 0
            assert record["lora/rank"] > 0


def test_it_trains_on_pooled_data(builder: Builder, recipe: str, options: list[str]) -> None:
    federation = builder.run(f"{recipe}-pooled", *options, "method.pooled=true", "num_rounds=1", "local.steps=1")
    assert federation.cohort_size == 1
    record = federation.folder.records()[1]
    assert record["client/0/num_steps"] == 3
    assert record["communication/uplink_bytes"] == 0


def test_a_proximal_term_changes_the_result(
    builder: Builder, recipe: str, options: list[str], finished: Federation
) -> None:
    options = [*options, "local.prox_mu=0.1"]
    if finished.method.communicates and not finished.method.pooled:
        assert differ(builder.run(f"{recipe}-prox", *options), finished)
    else:
        with pytest.raises(UserError, match="nothing travels here"):
            build_method(load_config(options))


def test_a_server_optimizer_where_the_rule_averages(
    builder: Builder, recipe: str, options: list[str], finished: Federation
) -> None:
    options = [*options, "server.optimizer=fedavgm", "server.beta1=0.9", "server.lr=0.5"]
    if finished.method.rule.averages:
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
    if entry.rule == "fedavg" and not entry.pooled:
        corrected, plain = builder.run(f"{recipe}-scaffold", *scaffold), builder.run(f"{recipe}-sgd", *options)
        assert differ(corrected, plain)
        uplinks = [run.folder.records()[1]["communication/uplink_bytes"] for run in (corrected, plain)]
        assert uplinks[0] > uplinks[1]
    else:
        with pytest.raises(UserError, match=r"local.scaffold=true .*method\.(rule|optimizer)="):
            build_method(load_config(scaffold))


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_without_a_rule_every_client_trains_alone(builder: Builder, adapter: str) -> None:
    name = next(name for name, entry in RECIPES.items() if entry.adapter == adapter)
    federation = builder.run(f"{adapter}-alone", f"method={name}", "method.rule=none", "num_rounds=1")
    assert not federation.method.shared(federation.model)
    assert federation.folder.records()[1]["communication/uplink_bytes"] == 0
    assert differ_between_clients(federation)
    assert_export_computes_the_same(federation)


def differ_between_clients(federation: Federation) -> bool:
    one, other = (federation.clients[client].private for client in (0, 1))
    return any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", MIXED_RANKS)
def test_clients_of_several_ranks(builder: Builder, name: str) -> None:
    federation = builder.run(f"{name}-ranks", f"method={name}", "method.lora_rank=[2,4,3]")
    record = federation.folder.records()[1]
    widest = builder(f"{name}-rank-4", f"method={name}", "method.lora_rank=4")
    most = widest.exchange.traffic(range(3), widest.server)
    assert 0 < record["communication/uplink_bytes"] == most["communication/uplink_bytes"] * (2 + 4 + 3) / (3 * 4)
    assert record["lora/drift_norm"] > 0
    assert_export_computes_the_same(federation)


def test_every_part_is_in_some_recipe() -> None:
    """A part that no recipe uses has no contract test."""
    assert {entry.adapter for entry in RECIPES.values()} == set(ADAPTERS)
    assert {entry.rule for entry in RECIPES.values()} == set(RULES)


def test_rules_that_mix_ranks_are_tested_here() -> None:
    mixing = {name for name, entry in RECIPES.items() if build_method(load_config([f"method={name}"])).rule.mixes_ranks}
    assert mixing == set(MIXED_RANKS)
