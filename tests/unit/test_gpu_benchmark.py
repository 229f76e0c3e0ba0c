"""The benchmark of a GPU, where there is none: its models are those it names, its counts are right, and it runs."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from fedlit.config import ModelConfig
from fedlit.models import Purpose

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"
PUBLISHED = Path(__file__).parents[1] / "published_configs"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import gpu  # noqa: PLC0415  a script's own folder is its path

    return gpu


@pytest.mark.parametrize(
    ("name", "num_parameters", "num_block"),
    [
        # 22 blocks of q and o (2048 x 2048), k and v (256 x 2048), three of 5632 x 2048
        ("tinyllama", 1_100_048_384, 22 * (2 * 2048**2 + 2 * 256 * 2048 + 3 * 5632 * 2048)),
        ("gemma-2b", 2_506_172_416, 18 * (2 * 2048**2 + 2 * 256 * 2048 + 3 * 16384 * 2048)),
        ("llama-3.1-8b", 8_030_261_248, 32 * (2 * 4096**2 + 2 * 1024 * 4096 + 3 * 14336 * 4096)),
    ],
)
def test_the_models_are_those_that_are_named(gpu: ModuleType, name: str, num_parameters: int, num_block: int) -> None:
    import gpu_models  # noqa: PLC0415  as above

    backbone = gpu_models.RandomBackbone(
        architecture=gpu_models.architecture(name, tiny=False), device=torch.device("cpu")
    ).load(ModelConfig(), Purpose(), weights=False)
    assert backbone.model.num_parameters() == num_parameters  # type: ignore[operator]
    work = gpu_models.work_of(backbone.model, 128)
    assert work.num_block == num_block
    if (published := PUBLISHED / name).is_dir():
        with torch.device("meta"):
            theirs = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(published))
        assert {k: v.shape for k, v in theirs.state_dict().items()} == {
            k: v.shape for k, v in backbone.model.state_dict().items()
        }


def test_operations_of_a_step(gpu: ModuleType) -> None:
    """Against torch's own count of a step with frozen weights, whose attention is a full square."""
    import gpu_models  # noqa: PLC0415  as above
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  a second of import

    backbone = gpu_models.RandomBackbone(
        architecture=gpu_models.architecture("tinyllama", tiny=True), device=torch.device("cpu")
    ).load(ModelConfig(attention_implementation="eager"), Purpose())
    model: Any = backbone.model
    model.requires_grad_(False)
    embedded = model.get_input_embeddings()(torch.arange(64).view(2, 32)).requires_grad_()
    with FlopCounterMode(display=False) as count:
        model(inputs_embeds=embedded, use_cache=False).logits.sum().backward()
    work = gpu_models.work_of(model, 32)
    other_half = 3 * 64 * work.attention
    assert count.get_total_flops() == work.flops(64, 64) + other_half


def test_cards(gpu: ModuleType) -> None:
    import gpu_models  # noqa: PLC0415  as above

    assert gpu_models.peak_flops("NVIDIA H100 PCIe", None) == 756e12
    assert gpu_models.peak_flops("NVIDIA H100 80GB HBM3", None) == 989e12
    assert gpu_models.peak_flops("NVIDIA RTX A6000", None) == 155e12
    assert gpu_models.peak_flops("CPU", None) is None
    assert gpu_models.peak_flops("CPU", 2) == 2e12


def test_without_a_device_it_says_so(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert gpu.main([]) == 2
    assert "--device cpu --tiny" in capsys.readouterr().err


def test_it_runs_and_goes_on_after_what_does_not_fit(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--device", "cpu", "--tiny", "--quick", "--peak-tflops", "1", "--json", str(tmp_path / "found.json")]
    figures_of = gpu.figures_of

    def short_of_memory(model: str, setting: Any, *arguments: str) -> Any:
        if "method=fedftg" in arguments:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return figures_of(model, setting, *arguments)

    monkeypatch.setattr(gpu, "figures_of", short_of_memory)
    gpu.main([*words, "--only", "recipes", "bare", "--recipes", "fedftg", "fedit"])
    lines = json.loads((tmp_path / "found.json").read_text())["lines"]
    found = {line["what"]: line for line in lines}
    assert found["tinyllama, fedftg"]["note"] == "out of memory"
    assert found["tinyllama, fedit: training"]["value"] > 0
    assert 0 < found["tinyllama, fedit: model FLOP utilisation"]["value"] < 100
    ratio = found["tinyllama, batch 1 x 32: throughput over a bare loop"]
    assert ratio["value"] > 0
    assert "the same losses" in ratio["note"]
    assert gpu.main([*words, "--only", "memory", "--minutes", "0"]) == 0
    lines = json.loads((tmp_path / "found.json").read_text())["lines"]
    assert all(line["note"].startswith("not begun") for line in lines)
