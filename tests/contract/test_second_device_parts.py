"""What else a run does, on a device that is not the CPU: resuming, states that clients keep, corrections, bfloat16,
encoders. Each ends with the CPU's bits. And the benchmark of a GPU runs there.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest
import test_classifiers
import tiny_federations
from away_federations import AwayFabric, on_cpu, scores, second_device, waits_in_steps
from tiny_federations import Builder, assert_equal, results
from torch.nn import functional

from fedlit.config import ComputeConfig

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"
SMALL = ("num_clients=3", "num_rounds=2", "local.steps=2", "eval.every=2", "model.attention_implementation=eager")
PARTS = {
    "private, kept optimizer": ["method=fedsa_lora", "local.optimizer_state=keep"],
    "galore, kept projections": ["method=fedftg", "local.optimizer_state=keep"],
    "scaffold": ["method=fedit", "method.optimizer=sgd", "local.scaffold=true"],
    "prox, clipping, schedule, accumulation": [
        "method=fedit",
        "local.prox_mu=1",
        "local.max_grad_norm=0.1",
        "local.schedule=cosine",
        "local.accumulate=2",
    ],
    "autocast, bfloat16 backbone": ["method=fedex_lora", "compute.precision=bf16-mixed", "model.dtype=bfloat16"],
    "server optimizer, validation, own rows": [
        "method=ffa_lora",
        "server.optimizer=fedadam",
        "server.lr=0.01",
        "partition.validation_fraction=0.2",
        "eval.on=both",
    ],
}
GALORE = {"client/optimizers/savable_galore.py:step"}


@pytest.mark.parametrize("arguments", PARTS.values(), ids=PARTS.keys())
def test_a_stopped_run_goes_on_to_the_bits_of_the_cpu(
    arguments: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round 2 is trained by another process, as it were, from the checkpoint that the first one has written."""
    build = Builder(tmp_path, num_layers=1)
    with second_device(monkeypatch, tiny_federations) as device:
        in_steps = waits_in_steps(device, monkeypatch)
        first = build("away", *arguments, *SMALL)
        first.config.num_rounds = 1
        first.run()
        second = build("away", *arguments, *SMALL)
        assert second.server.round_idx == 1
        second.run()
    monkeypatch.undo()
    expected = build.run("cpu", *arguments, *SMALL)
    assert_equal(on_cpu(results(second)), results(expected))
    assert scores(second.folder.records()[2:]) == scores(expected.folder.records()[2:])
    assert in_steps.keys() <= GALORE


@pytest.mark.parametrize("method", ["fedit", "fedsa_lora"])
def test_clients_in_one_forward_pass_wait_once_together(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the losses of all their steps and what else is read of them: two groups in each of two rounds."""
    build = Builder(tmp_path, num_layers=1)
    words = (f"method={method}", "local.clients_per_batch=2", "local.max_grad_norm=0.1", *SMALL)
    with second_device(monkeypatch, tiny_federations) as device:
        away = build.run("away", *words)
    assert not [place for place in device.reads if place.startswith("client/")]
    assert device.reads["algebra/reads.py:_read"] == 2 * 2
    expected = build.run("cpu", *words)
    assert_equal(on_cpu(results(away)), results(expected))


def texts(folder: Path) -> list[str]:
    """Return the words for texts of two classes and of unequal length."""
    rows = [f'{{"text": "{"word " * (1 + i % 5)}{i}", "label": {i % 2}}}\n' for i in range(60)]
    path = folder / "texts.jsonl"
    path.write_text("".join(rows), encoding="utf-8")
    return ["data=texts", f"data.path={path}", "model.max_length_tokens=24"]


CLASSIFIERS = {
    "bert": ["model=bert-small", "method=fedsa_lora", "model.attention_implementation=eager"],
    "roberta, fused": ["model=roberta-small", "method=fedit", "model.attention_implementation=sdpa"],
    "siglip": ["model=siglip-small", "method=fedit", "model.attention_implementation=eager"],
    "vit, fused": ["model=vit-small", "method=full", "model.attention_implementation=sdpa"],
}


@pytest.mark.parametrize("arguments", CLASSIFIERS.values(), ids=CLASSIFIERS.keys())
def test_classifiers_wait_in_no_step(arguments: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = texts(tmp_path) if "bert" in arguments[0] else []
    words = [*data, *arguments]
    # A device has a generator of its own, and the encoders have dropout.
    monkeypatch.setattr(functional, "dropout", lambda values, *_options, **_named: values)
    with second_device(monkeypatch, test_classifiers) as device, monkeypatch.context() as patch:
        in_steps = waits_in_steps(device, patch)
        away = test_classifiers.federation(tmp_path, "away", *words)
        away.run()
    assert not in_steps
    expected = test_classifiers.federation(tmp_path, "cpu", *words)
    expected.run()
    if "sdpa" not in arguments[-1]:  # the fused kernel of the CPU is not that of another device
        assert_equal(on_cpu(results(away)), results(expected))
        assert scores(away.folder.records()) == scores(expected.folder.records())


def test_the_benchmark_of_a_gpu_runs_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_runs  # noqa: PLC0415  a script's own folder is its path

    def launch(compute: ComputeConfig) -> AwayFabric:
        return AwayFabric(accelerator="cpu", devices=1, precision=compute.precision)

    setting = gpu_runs.Setting(device="cpu", tiny=True, num_tokens=32, clients=2, steps=1, batch_size=2, rounds=1)
    with second_device(monkeypatch):
        monkeypatch.setattr(gpu_runs.communication, "launch", launch)
        found = gpu_runs.figures_of("gemma-2b", setting, "method=fedit", "model.attention_implementation=eager")
    assert found.num_tokens == 2 * 2 * 32
    assert found.flops > 0
