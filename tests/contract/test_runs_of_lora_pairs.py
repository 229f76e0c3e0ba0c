"""Federations of FedALT and FedDPA, round by round: what each client's model holds, against a plain loop."""

import math
from pathlib import Path

import pytest
import torch
from tiny_federations import Builder, assert_equal, results

from fedlit.adapters.lora_dual import mixer_of
from fedlit.adapters.lora_pair import PRIVATE, SHARED, factors, is_factor, twin
from fedlit.algebra.tensors import snapshot
from fedlit.errors import UserError
from fedlit.exported.found import Result
from fedlit.exported.merging import merge_result
from fedlit.restoring import Trained
from fedlit.round.loop import Federation

UNEQUAL = ("partition.name=quantity", "partition.alpha=1", "partition.min_test_rows=1")
PARTIAL = ("num_clients=4", "cohort_size=2", "num_rounds=4", "local.steps=2", *UNEQUAL)


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    torch.set_num_threads(1)
    return Builder(tmp_path, num_layers=2)


def one_more_round(federation: Federation) -> None:
    federation.config.num_rounds = federation.server.round_idx + 1
    federation.run()


@pytest.mark.parametrize("weighting", ["num_examples", "uniform"])
def test_every_client_of_fedalt_has_the_mean_of_those_who_came_with_it_or_without(
    builder: Builder, weighting: str
) -> None:
    federation = builder("one", "method=fedalt", f"method.weighting={weighting}", *PARTIAL)
    clients = federation.clients
    assert clients is not None
    model = federation.host.model
    sizes = [len(rows) for rows in federation.rows]
    assert len(set(sizes)) > 1
    absent = set()
    for round_idx in range(4):
        plan = federation.schedule.plan(round_idx)
        one_more_round(federation)
        for client in range(4):
            federation.load_client(client)
            held, own = factors(model, SHARED), factors(model, PRIVATE)
            assert_equal(snapshot(own), {name: clients[client].private[name] for name in own})
            others = [other for other in plan.arriving if other != client]
            weights = [1.0 if weighting == "uniform" else sizes[other] for other in others]
            for name, tensor in held.items():
                expected = sum(
                    weight / sum(weights) * clients[other].private[twin(name)].double()
                    for weight, other in zip(weights, others, strict=True)
                )
                torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=2e-6)
            absent |= {client} - set(plan.arriving)
    assert absent == {0, 1, 2, 3}, "everybody was absent once"


def test_a_client_alone_in_a_round_of_fedalt_has_no_rest_of_the_world(builder: Builder) -> None:
    federation = builder("one", "method=fedalt", "num_clients=2", "cohort_size=1", "num_rounds=1")
    federation.run()
    (came,) = federation.schedule.plan(0).arriving
    federation.load_client(came)
    assert not any(tensor.any() for tensor in factors(federation.host.model, SHARED).values())
    federation.load_client(1 - came)
    received = snapshot(factors(federation.host.model, SHARED))
    assert federation.clients is not None
    for name, tensor in received.items():
        torch.testing.assert_close(tensor, federation.clients[came].private[twin(name)], rtol=0, atol=1e-6)


def test_masks_do_not_disturb_the_mean_of_the_others(builder: Builder) -> None:
    options = ("method=fedalt", "num_clients=5", "num_rounds=2", "eval.every=2")
    plain = builder.run("plain", *options)
    masked = builder.run("masked", *options, "privacy.secure_aggregation=true")
    assert_equal(results(plain), results(masked))


@pytest.mark.parametrize("method", ["fedalt", "feddpa"])
def test_a_killed_federation_of_some_clients_goes_on_to_the_same_bits(builder: Builder, method: str) -> None:
    options = (f"method={method}", *PARTIAL, "eval.every=4", "local.optimizer_state=keep")
    whole = builder.run("whole", *options)
    for done in (1, 3, 4):
        halves = builder("halves", *options)
        halves.config.num_rounds = done
        halves.run()
    assert_equal(results(halves), results(whole))
    last = [federation.folder.records()[-1] for federation in (halves, whole)]
    keys = [key for key in last[0] if not key.startswith("time/")]
    assert [last[0][key] for key in keys] == [last[1][key] for key in keys]


@pytest.mark.parametrize("method", ["fedalt", "feddpa"])
def test_what_is_scored_is_what_is_held_exported_and_loaded(builder: Builder, method: str) -> None:
    federation = builder.run("one", f"method={method}", "num_rounds=2", "eval.protocol=teacher_forced")
    federation.export()
    record = federation.folder.records()[-1]
    trained = Trained.of(federation)
    scored = [record[f"client/{client}/loss"] for client in range(3)]
    assert len(set(scored)) == 3
    for client in range(3):
        trained.load_client(client)
        scores, _ = federation.evaluator.together()
        assert scores["loss"] == scored[client]
        folder = federation.folder.adapter / f"client-{client:05d}"
        result = Result(run=federation.folder.path, config=federation.config, folder=folder, client_id=client)
        assert result.is_pair
        with pytest.raises(UserError, match="which no weight can be"):
            merge_result(result, builder.folder / "merged")
        assert "Two LoRA adapters, and what weighs them by the input, over" in (folder / "README.md").read_text()
        assert (folder / "shared" / "adapter_config.json").is_file()
    assert record["global/loss"] == pytest.approx(sum(scored) / 3)


def test_feddpa_f_personalises_after_its_global_rounds(builder: Builder) -> None:
    """Rounds of the global LoRA are FedIT's; then nothing travels, and a local LoRA begins as the global one."""
    options = ("num_clients=3", "cohort_size=2", "eval.every=1", "method.lora_rank=4", "local.steps=2")
    federation = builder("f", "method=feddpa", "method.global_rounds=2", "num_rounds=5", *options)
    fedit = builder.run("fedit", "method=fedit", "num_rounds=2", *options)
    clients = federation.clients
    assert clients is not None
    for _ in range(2):
        one_more_round(federation)
    for name, tensor in federation.server.shared.items():
        assert tensor.shape == fedit.server.shared[name.replace(f".{SHARED}.", ".default.")].shape
    for client in range(3):
        federation.load_client(client)
        own = factors(federation.host.model, PRIVATE)
        assert_equal(snapshot(own), {twin(name): tensor for name, tensor in federation.server.shared.items()})
        assert not mixer_of(federation.host.model).references.any()
    shared = snapshot(federation.server.shared)
    one_more_round(federation)
    came = federation.schedule.plan(2).arriving
    record = federation.folder.records()[-1]
    assert (record["communication/uplink_bytes"], record["communication/downlink_bytes"]) == (0, 0)
    assert_equal(dict(federation.server.shared), shared)
    for client in range(3):
        federation.load_client(client)
        own, references = factors(federation.host.model, PRIVATE), mixer_of(federation.host.model).references
        assert bool(references.any()) == (client in came)
        moved = any(not torch.equal(tensor, shared[twin(name)]) for name, tensor in own.items())
        assert moved == (client in came)


def test_the_global_lora_of_feddpa_is_that_of_fedit(builder: Builder) -> None:
    """The local one has no part in it: the same steps, rows and first factors."""
    options = ("num_clients=3", "num_rounds=2", "eval.every=2", "local.lr=0.05", "method.optimizer=sgd")
    dual, fedit = builder("dual", "method=feddpa", *options), builder("fedit", "method=fedit", *options)
    named = {name: name.replace(f".{SHARED}.", ".default.") for name in dual.server.shared}
    # Both draw their first factors, one more of them than the other.
    for name, other in named.items():
        fedit.server.shared[other].copy_(dual.server.shared[name])
    for federation in (dual, fedit):
        federation.run()
    for name, other in named.items():
        torch.testing.assert_close(dual.server.shared[name], fedit.server.shared[other], rtol=0, atol=1e-6)
    assert any(tensor.abs().max() > 1e-3 for name, tensor in dual.server.shared.items() if ".lora_B." in name)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("method=fedalt", "method.rule=fedavg"), "do not fit"),
        (("method=fedit", "method.rule=fedalt"), "do not fit"),
        (("method=fedalt", "method.rule=flexlora"), "needs LoRA factors A and B that travel"),
        (("method=fedalt", "run.export=merged"), "weighs two LoRAs by what they see; give run.export=adapter"),
        (("method=feddpa", "run.export=merged"), "weighs two LoRAs by what they see; give run.export=adapter"),
        (("method=feddpa", "model.gradient_checkpointing=true"), "takes two different ones in a step; leave it out"),
        (("method=fedalt", "local.prox_mu=0.1"), "no client starts from them; leave it out"),
        (
            ("method=fedalt", "privacy.unit=client", "privacy.clip_norm=1", "privacy.noise_multiplier=1"),
            "no client could take its own part out of the mean",
        ),
        (
            ("method=feddpa", "privacy.unit=example", "privacy.clip_norm=1", "privacy.noise_multiplier=1"),
            "has steps of its own",
        ),
        (("method=feddpa", "method.target_modules=[q_proj,lm_head]"), "names the output projection"),
    ],
)
def test_what_does_not_go_with_two_loras_is_one_line(builder: Builder, options: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        builder("refused", *options)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_gate_and_the_local_lora_stay(builder: Builder) -> None:
    """Nothing but the LoRA that is shared is in the server's state."""
    for method in ("fedalt", "feddpa"):
        federation = builder(method, f"method={method}")
        travels = set(federation.server.shared)
        assert travels == set(factors(federation.host.model, SHARED))
        assert all(is_factor(name) for name in travels)
        private = federation.host.private()
        assert math.prod(len(each) for each in (travels, private)) > 0
        assert not travels & private.keys()
