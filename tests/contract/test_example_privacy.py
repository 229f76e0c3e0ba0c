"""Federations whose clients train by DP-SGD: what they compute, what they claim, and what is refused."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import test_classifiers
import tiny_federations
import torch
from away_federations import on_cpu, second_device, waits_in_steps
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from single_rows import assert_the_same, at_once, in_a_loop
from test_recipes import on_push
from tiny_federations import ROWS, Builder, assert_equal, leaves, results

from fedlit.client.per_example.recording import Rows
from fedlit.client.trainers.example import ExampleTrainer
from fedlit.config import load_config
from fedlit.errors import UserError
from fedlit.methods import build_method
from fedlit.round.loop import Federation

BASE = ("privacy.unit=example", "privacy.clip_norm=0.5", "privacy.noise_multiplier=0.8")
QUIET = ("privacy.unit=example", "privacy.clip_norm=1e9", "privacy.noise_multiplier=0")


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path, num_layers=2)


@pytest.mark.parametrize("recipe", on_push())
def test_every_recipe_trains_by_noisy_steps(builder: Builder, recipe: str) -> None:
    options = [f"method={recipe}", *BASE, *(["method.init=random"] if recipe == "fed_sb" else [])]
    if build_method(load_config([f"method={recipe}"])).adapter.has_own_steps:
        with pytest.raises(UserError, match=r"method\.adapter=lora_dual has steps of its own"):
            builder("one", *options)
        return
    federation = builder.run("one", *options)
    assert isinstance(federation.trainer, ExampleTrainer)
    assert all(tensor.isfinite().all() for _, tensor in leaves(results(federation)))
    last = federation.folder.records()[-1]
    assert last["privacy/epsilon"] > 0
    assert last["privacy/unit"] == "example"
    shares = [value for key, value in last.items() if key.endswith("/clipped_share")]
    assert shares
    assert all(0 <= share <= 1 for share in shares)


def test_without_noise_and_clipping_whole_batches_are_plain_steps(tmp_path: Path) -> None:
    """Of images, whose losses are means over rows: a rate of 1 and an untouched sum are federated gradient descent."""
    words = ("method=fedit", "method.optimizer=sgd", "local.batch_size=2000", "local.lr=0.1", "data.sample=60")
    plain = test_classifiers.federation(tmp_path, "plain", *words)
    private = test_classifiers.federation(tmp_path, "private", *words, *QUIET)
    before = dict(leaves(results(plain)))
    for federation in (plain, private):
        federation.run()
    for (place, one), (_, other) in zip(leaves(results(plain)), leaves(results(private)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=place)
    assert any(not torch.equal(tensor, before[place]) for place, tensor in leaves(results(plain)))


@pytest.mark.parametrize(
    ("options", "client_id"),
    [
        (["method=fedex_lora", "method.target_modules=all"], None),
        (["method=hetlora", "method.lora_rank=[2,4,1]"], 2),
        (["method=flora", "method.lora_rank=[2,4,1]", "model.dtype=bfloat16"], 1),
    ],
    ids=["folded changes", "a rank of its own", "over bfloat16"],
)
def test_what_stands_beside_the_factors_has_its_part(
    builder: Builder, options: list[str], client_id: int | None
) -> None:
    """Changes folded into frozen weights, and a client's scale, are in the gradients of single rows too."""
    federation = builder.run("one", *options)
    model, task, trained = federation.host.model, federation.trainer.module.task, federation.host.trained
    federation.host.load_server(federation.server)
    federation.host.method.adapter.set_rank(model, client_id=client_id)
    if "model.dtype=bfloat16" not in options:
        model.double()
    if client_id is None:
        assert federation.server.changes(), "something is folded"
    model.train()
    examples = task.encode(ROWS[:4])
    joined = task.join([task.collate([each]) for each in examples])
    rows = Rows(num_rows=4, width=max(joined.widths), labels=joined.labels)
    expected, norms = in_a_loop(lambda row: task.loss(model, task.collate([examples[row]])), 4, trained, 1e-3)
    found = at_once(model, lambda: task.losses(model, joined), rows, trained, 1e-3)
    assert_the_same(found, expected, norms, 1e-6 if "model.dtype=bfloat16" not in options else 0.05)


def epsilon_of(num_steps: int, rate: float, noise: float, delta: float) -> float:
    """Return the epsilon of so many sampled Gaussians, from dp-accounting directly."""
    accountant = PLDAccountant()
    event = dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise))
    accountant.compose(event, num_steps)
    return float(accountant.get_epsilon(delta))


def test_the_record_tells_the_largest_epsilon_of_steps_really_taken(builder: Builder) -> None:
    """Two of three clients a round: who joins more has spent more, and a small shard has a large rate."""
    federation = builder.run(
        *("one", "method=ffa_lora", *BASE, "cohort_size=2", "num_rounds=3", "local.accumulate=2"),
        *("partition.name=quantity", "partition.alpha=1", "partition.min_test_rows=1"),
    )
    rows = [len(each) for each in federation.rows]
    assert len(set(rows)) == 3
    taken = [0] * 3
    for record in federation.folder.records()[1:]:
        for client_id in range(3):
            taken[client_id] += record.get(f"client/{client_id}/num_steps", 0)
        each = [epsilon_of(k, min(1, 4 / n), 0.8, 1e-5) for k, n in zip(taken, rows, strict=True) if k]
        assert record["privacy/epsilon"] == pytest.approx(max(each), rel=1e-6)
    assert sum(taken) == 3 * 2 * 2


def test_a_stopped_run_goes_on_to_the_same_bits_and_the_same_ledger(builder: Builder) -> None:
    """Noise and batches are of rounds and clients, not of a process's history."""
    options = ("method=fedsa_lora", *BASE, "num_rounds=3", "local.optimizer_state=keep", "cohort_size=2")
    whole = builder.run("whole", *options)
    first = builder("parts", *options)
    first.config.num_rounds = 1
    first.run()
    second = builder("parts", *options)
    assert second.server.round_idx == 1
    second.run()
    assert_equal(results(second), results(whole))
    assert privacy_of(second) == privacy_of(whole)
    assert whole.clients is not None
    assert second.clients is not None
    for client_id, state in whole.clients.items():
        assert_equal(state.optimizer["state"], second.clients[client_id].optimizer["state"])  # type: ignore[index]


def privacy_of(federation: Federation) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if key.startswith("privacy/")}
        for record in federation.folder.records()[1:]
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["method=fedit", "local.accumulate=2", "local.max_grad_norm=0.1"],
        ["method=full", "local.batch_size=3"],
    ],
    ids=["factors", "the whole model"],
)
def test_no_step_waits_for_the_device(
    arguments: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is computed there has the CPU's bits."""
    small = ("num_clients=2", "local.steps=3", "eval.every=2", "model.attention_implementation=eager")
    build = Builder(tmp_path, num_layers=1)
    with second_device(monkeypatch, tiny_federations) as device:
        in_steps = waits_in_steps(device, monkeypatch)
        away = build.run("away", *arguments, *BASE, *small)
    monkeypatch.undo()
    expected = build.run("cpu", *arguments, *BASE, *small)
    assert_equal(on_cpu(results(away)), results(expected))
    assert not in_steps
    assert not [place for place in device.reads if place.startswith("client/")]


def test_classifiers_have_noise_on_their_heads(tmp_path: Path) -> None:
    """Of the same gradients, noise is all the difference; of z C / L in each number of one step with a rate of 1."""
    words = ("method=fedit", "method.optimizer=sgd", "local.batch_size=2000", "local.lr=1", "data.sample=60")
    words = (*words, "local.steps=1", "num_rounds=1", "num_clients=1", "privacy.unit=example", "privacy.clip_norm=0.5")
    ends = []
    for noise in (0, 3):
        federation = test_classifiers.federation(
            tmp_path, f"noise-{noise}", *words, f"privacy.noise_multiplier={noise}"
        )
        federation.run()
        ends.append(federation.server.shared["classifier.weight"])
        num_rows = len(federation.rows[0])
    change = ends[1] - ends[0]
    assert float(change.std()) == pytest.approx(3 * 0.5 / num_rows, rel=4 / math.sqrt(2 * change.numel()))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["method=full"], r"vit\.embeddings \(ViTEmbeddings\) is of no kind"),
        (["method=fedit", "local.clients_per_batch=2"], r"give local\.clients_per_batch=1"),
    ],
)
def test_what_has_no_gradients_of_single_rows_is_refused(tmp_path: Path, options: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        test_classifiers.federation(tmp_path, "one", *options, *BASE)
    assert "\n" not in str(refused.value)
