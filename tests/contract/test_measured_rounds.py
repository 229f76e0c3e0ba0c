"""What `analysis` measures inside real rounds: gradients and norms, pairs of SCL, GaLore's projectors, whole matrices,
and what a run that hides its clients leaves out.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from tiny_federations import Builder, assert_equal, results

from fedlit.algebra.tensors import norm
from fedlit.config import load_config
from fedlit.config.analysis import analysis_warnings
from fedlit.round.loop import Federation
from fedlit.round.observers import RoundView, dense
from fedlit.round.observers.dense import DenseObserver, looked_at
from fedlit.round.observers.factors import FactorObserver
from fedlit.round.observers.projectors import bases

SGD = ("method=full", "method.optimizer=sgd", "local.lr=0.01")
ONE_STEP = (*SGD, "local.steps=1", "num_rounds=1")


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    torch.set_num_threads(1)
    return Builder(tmp_path, num_layers=2)


def last(federation: Federation) -> dict[str, Any]:
    return federation.folder.records()[-1]


@pytest.mark.parametrize(
    "how",
    [
        (),
        ("local.accumulate=2",),
        ("local.clients_per_batch=3", "method=fedit", "method.optimizer=sgd"),
        ("local.clients_per_batch=3", "method=fedit", "method.optimizer=sgd", "local.prox_mu=1"),
        ("privacy.unit=example", "privacy.clip_norm=0.1", "privacy.noise_multiplier=1", "method=fedit"),
    ],
)
def test_a_step_of_sgd_goes_as_far_as_its_gradient(how: tuple[str, ...], builder: Builder) -> None:
    given = {option.split("=")[0] for option in how}
    options = [option for option in ONE_STEP if option.split("=")[0] not in given]
    record = last(builder.run("run", *options, "method.optimizer=sgd", *how))
    for client_id in range(3):
        moved = record[f"client/{client_id}/update_norm"]
        assert moved == pytest.approx(0.01 * record[f"client/{client_id}/grad_norm"], rel=1e-3)
    assert record["norms/gradient"] == max(record[f"client/{client_id}/grad_norm"] for client_id in range(3)) > 0
    assert record["norms/steps"] == 1


def test_the_gradient_is_that_before_clipping(builder: Builder) -> None:
    plain, clipped = (
        last(builder.run(name, *ONE_STEP, f"local.max_grad_norm={limit}"))
        for name, limit in (("a", "null"), ("b", 0.01))
    )
    assert plain["norms/gradient"] == clipped["norms/gradient"] > 0.01
    assert clipped["client/0/update_norm"] == pytest.approx(0.01 * 0.01, rel=1e-2)


@pytest.mark.parametrize("also", [(), ("local.prox_mu=1",), ("local.max_grad_norm=0.5",)])
def test_clients_in_one_pass_have_the_gradients_of_each_alone(also: tuple[str, ...], builder: Builder) -> None:
    """Of several steps the largest; clients of other lengths too."""
    options = (
        "method=fedit",
        "partition.name=quantity",
        "partition.min_test_rows=1",
        "local.steps=null",
        "local.epochs=1",
    )
    alone = last(builder.run("alone", *options, *also))
    together = last(builder.run("together", *options, *also, "local.clients_per_batch=3"))
    steps = {alone[f"client/{client_id}/num_steps"] for client_id in range(3)}
    assert len(steps) > 1 and together["norms/steps"] == max(steps)
    for client_id in range(3):
        key = f"client/{client_id}/grad_norm"
        assert together[key] == pytest.approx(alone[key], rel=1e-3)


@pytest.mark.parametrize("method", ["full", "fedit", "scl", "fedsa_lora"])
def test_norms_stay_below_the_lemmas_bound(method: str, builder: Builder) -> None:
    """SCL, equation 2, over all that travels together; with plain SGD, which is what the lemma is about."""
    federation = builder.run("run", f"method={method}", "method.optimizer=sgd", "local.lr=0.01", "num_rounds=3")
    first, *rounds = federation.folder.records()
    bound = first["norms/shared"]
    for record in rounds:
        bound += 0.01 * record["norms/steps"] * record["norms/gradient"]
        assert 0 < record["norms/shared"] <= bound
        assert record["aggregation/update_norm"] <= 0.01 * record["norms/steps"] * record["norms/gradient"] * (1 + 1e-5)
    dense_norm = float(sum(t.double().square().sum() for t in federation.server.shared.values()) ** 0.5)
    assert rounds[-1]["norms/shared"] == pytest.approx(dense_norm, rel=1e-12) == norm(federation.server.shared)


def test_pairs_of_scl_are_measured_as_products(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """FedAvg of W_2 and W_c is not the mean of W_2 W_c."""
    sent: list[dict[str, torch.Tensor]] = []
    see = FactorObserver.see

    def spied(self: FactorObserver, job: Any, result: Any, payload: Any) -> Any:
        sent.append({name: tensor.double() for name, tensor in payload["model"].items()})
        return see(self, job, result, payload)

    monkeypatch.setattr(FactorObserver, "see", spied)
    federation = builder.run(
        "run", "method=scl", "method.compression_dim=3", "num_rounds=1", "method.weighting=uniform"
    )
    record, after = last(federation), {name: t.double() for name, t in federation.server.shared.items()}
    assert not any(key.startswith("lora/") for key in record)
    deviations = []
    for name in sorted({name.rpartition(".projection")[0] for name in after if ".projection" in name}):
        products = [one[f"{name}.projection.weight"] @ one[f"{name}.compression.weight"] for one in sent]
        mean = torch.stack(products).mean(0)
        missed = after[f"{name}.projection.weight"] @ after[f"{name}.compression.weight"] - mean
        deviations.append(float(missed.square().mean().sqrt()))
        assert record[f"scl/deviation/{name}"] == pytest.approx(deviations[-1], rel=1e-6)
        assert record[f"rank/numerical/{name}"] == int(torch.linalg.matrix_rank(mean)) == 9
    assert record["scl/deviation"] == pytest.approx(sum(deviations) / len(deviations), rel=1e-6)
    assert min(deviations) > 1e-8
    assert record["scl/rank"] == 9 and record["rank/eta"] == 3


def test_galores_projector_stands_still_until_it_is_renewed(builder: Builder) -> None:
    """Two steps a round: a gap of 3 renews it in the second round and not in the third."""
    options = ("method=fedftg", "method.galore.rank=3", "method.galore.update_proj_gap=3", "local.optimizer_state=keep")
    federation = builder("run", *options, "num_rounds=4")
    before: list[dict[Any, torch.Tensor]] = []
    see = federation.trainer.train

    def train(jobs: Any) -> Any:
        assert federation.clients is not None
        before.append(bases(federation.clients[0].optimizer))
        yield from see(jobs)

    federation.trainer.train = train  # type: ignore[method-assign]
    federation.run()
    assert federation.clients is not None
    before.append(bases(federation.clients[0].optimizer))
    records = federation.folder.records()[1:]
    assert "subspaces/projector" not in records[0]
    angles = [record["subspaces/projector"] for record in records[1:]]
    # Steps 3 and 4, 5 and 6, 7 and 8: galore-torch renews before steps 1, 4 and 7.
    assert angles[0] > 1 and angles[1] < 1e-6 and angles[2] > 1
    of_client_0 = []
    for old, new in itertools.pairwise(before[1:]):
        assert all(one.shape[1] == 3 for one in new.values())
        found = [np.rad2deg(subspace_angles(old[key].numpy(), new[key].numpy())).mean() for key in new]
        of_client_0.append(float(np.mean(found)))
    assert of_client_0[0] > 1 and of_client_0[1] < 1e-6


def test_whole_matrices_are_measured_densely(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, torch.Tensor]] = []
    see, record_of = DenseObserver.see, DenseObserver.record
    views: list[RoundView] = []

    def seen(self: DenseObserver, job: Any, result: Any, payload: Any) -> Any:
        sent.append({name: payload["model"][name].double() for name in self.first})
        return see(self, job, result, payload)

    def recorded(self: DenseObserver, view: RoundView) -> Any:
        views.append(view)
        return record_of(self, view)

    monkeypatch.setattr(DenseObserver, "see", seen)
    monkeypatch.setattr(DenseObserver, "record", recorded)
    options = ("method=fedftg", "method.galore.rank=2", "analysis=[dense]", "partition.name=quantity")
    federation = builder.run("run", *options, "partition.min_test_rows=1")
    records = federation.folder.records()
    (observer,) = (each for each in federation.observers if isinstance(each, DenseObserver))
    assert len(observer.first) == 2
    for number, view in enumerate(views):
        for name in observer.first:
            start = view.before.shared[name].double()
            changes = [one[name] - start for one in sent[3 * number : 3 * number + 3]]
            mean = sum(share * change for share, change in zip(view.cohort.shares.values(), changes, strict=True))
            values = np.linalg.svd(mean.numpy(), compute_uv=False)
            kept = values[values > np.finfo(np.float32).eps * float(start.norm())]
            shares = kept / kept.sum()
            layer = name.removesuffix(".weight")
            record = records[number + 1]
            assert record[f"rank/numerical/{layer}"] == len(kept)
            assert record[f"rank/effective/{layer}"] == pytest.approx(
                np.exp(-(shares * np.log(shares)).sum()), rel=1e-6
            )
            # Every step of GaLore is of rank 2, in one projection for all steps of a round.
            assert len(kept) <= 3 * 2 * 2
            assert 1 <= record[f"rank/eta/{layer}"] <= 3 == record["rank/eta_bound"]
    assert "subspaces/server_out" not in records[1] and 0 < records[2]["subspaces/server_out"] < 90
    assert 0 < records[1]["subspaces/clients_in"] <= 90


def test_large_matrices_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {f"layer {i}": torch.Size((64, 32)) for i in range(8)} | {"bias": torch.Size((64,))}
    assert len(looked_at(shapes)) == 8
    monkeypatch.setattr(dense, "MOST_WORK", 3.5 * 64 * 32 * 32)
    assert looked_at(shapes) == ("layer 0", "layer 2", "layer 5")
    monkeypatch.setattr(dense, "MOST_WORK", 1.0)
    assert looked_at(shapes) == ("layer 0",)
    assert looked_at({"bias": torch.Size((64,))}) == ()


HIDDEN = {
    "client": (
        "privacy.unit=client",
        "privacy.clip_norm=0.1",
        "privacy.noise_multiplier=1",
        "method.weighting=uniform",
    ),
    "masked": ("privacy.secure_aggregation=true",),
}


@pytest.mark.parametrize("how", HIDDEN)
def test_a_run_that_hides_its_clients_shows_no_single_one(how: str, builder: Builder) -> None:
    federation = builder.run("run", "method=fedit", "num_rounds=1", *HIDDEN[how])
    record = last(federation)
    assert not [key for key in record if key.startswith(("lora/", "rank/", "subspaces/")) or "grad" in key]
    assert record["norms/shared"] > 0
    (line,) = analysis_warnings(federation.config)
    assert "deviation, rank, subspaces look at single clients" in line and "analysis=[norms] is the same" in line
    quiet = load_config(["analysis=[norms]", *HIDDEN[how]])
    assert analysis_warnings(quiet) == analysis_warnings(load_config([])) == []


@pytest.mark.parametrize("method", ["fedit", "fedsa_lora", "fedftg"])
def test_measuring_changes_no_bit(method: str, builder: Builder) -> None:
    every = "analysis=[deviation, rank, subspaces, norms, dense]"
    options = (f"method={method}", "local.optimizer_state=keep")
    measured, plain = builder.run("measured", *options, every), builder.run("plain", *options, "analysis=[]")
    assert_equal(results(measured), results(plain))
    bare = {key.split("/")[0] for key in last(plain)}
    assert not bare & {"lora", "rank", "subspaces", "norms"}
