"""The adapted model is W + scaling * B @ A, as peft merges it and as peft loads what was exported."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft.utils.save_and_load
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from fedlit.adapters import trainable
from fedlit.adapters.lora import Lora
from fedlit.adapters.peft_files import write_peft_adapter
from fedlit.algebra.tensors import copy_into, snapshot
from fedlit.models import PROJECTIONS

pytestmark = [
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False but the target module is `Conv1D`"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

RANK, ALPHA = 3, 7.0
TOKENS = torch.arange(3, 33).view(3, 10)
SCALES = {False: ALPHA / RANK, True: ALPHA / math.sqrt(RANK)}


def write(lora: Lora, model: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: parameter.data for name, parameter in model.named_parameters()}
    write_peft_adapter(folder, lora.layers(model), tensors, {}, backbone_path=model.name_or_path)


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=24, n_head=4, vocab_size=2048, initializer_range=0.3, eos_token_id=2)
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


@pytest.fixture(params=["llama", "gpt2"])
def backbone(request: pytest.FixtureRequest, small_llama: Callable[..., Any]) -> Any:
    """A float64 backbone; GPT-2's layers are Conv1D, whose weights lie the other way round."""
    model = gpt2() if request.param == "gpt2" else small_llama()
    return model.double().eval()


def adapt(model: Any, lora: Lora) -> None:
    """Attach and fill both factors: B is zero at first."""
    torch.manual_seed(1)
    lora.attach(model, PROJECTIONS[model.config.model_type])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.data = torch.randn(parameter.shape, dtype=torch.float64) * 0.2


def own_formula(plain: Any, adapted: Any, scaling: float) -> Any:
    """Return the plain model with scaling * B @ A added to its weights, (out, in) or, for Conv1D, transposed."""
    merged = copy.deepcopy(plain)
    weights = dict(merged.named_parameters())
    tensors = dict(adapted.named_parameters())
    with torch.no_grad():
        for name, b in tensors.items():
            if ".lora_B." in name:
                module = name.split(".lora_B.")[0]
                change = scaling * b @ tensors[name.replace(".lora_B.", ".lora_A.")]
                weight = weights[f"{module}.weight"]
                weight += change.T if plain.config.model_type == "gpt2" else change
    return merged


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=TOKENS).logits


@pytest.mark.parametrize("use_rslora", SCALES)
def test_the_adapted_model_is_w_plus_scaled_b_a(backbone: Any, use_rslora: bool) -> None:
    plain = copy.deepcopy(backbone)
    lora = Lora(lora_rank=RANK, lora_alpha=ALPHA, use_rslora=use_rslora, target_modules="all")
    adapt(backbone, lora)
    merged = own_formula(plain, backbone, SCALES[use_rslora])
    torch.testing.assert_close(logits(backbone), logits(merged), rtol=1e-10, atol=1e-10)
    assert (logits(plain) - logits(merged)).abs().max() > 0.1
    unscaled = own_formula(plain, backbone, 1.0)
    assert (logits(unscaled) - logits(merged)).abs().max() > 0.1


@pytest.mark.parametrize("use_rslora", SCALES)
def test_peft_s_own_model_merges_to_the_same_weights(backbone: Any, use_rslora: bool) -> None:
    """peft's public way, from a LoraConfig written here, with this adapter's tensors in it."""
    plain = copy.deepcopy(backbone)
    lora = Lora(lora_rank=RANK, lora_alpha=ALPHA, use_rslora=use_rslora, target_modules="all")
    adapt(backbone, lora)
    kind = plain.config.model_type
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        use_rslora=use_rslora,
        target_modules=[*PROJECTIONS[kind].attention, *PROJECTIONS[kind].mlp],
        fan_in_fan_out=kind == "gpt2",
    )
    published = get_peft_model(copy.deepcopy(plain), config).double()
    values = {f"base_model.model.{name}": value for name, value in lora.shared(backbone).items()}
    copy_into({name: value for name, value in published.named_parameters() if ".lora_" in name}, values)
    torch.testing.assert_close(logits(published), logits(backbone), rtol=1e-12, atol=1e-12)
    merged = published.merge_and_unload()
    expected = dict(own_formula(plain, backbone, SCALES[use_rslora]).named_parameters())
    for name, weight in merged.named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("trains", "shares"), [("AB", "AB"), ("B", "B"), ("AB", "A")])
def test_what_is_exported_loads_without_this_library(backbone: Any, trains: str, shares: str, tmp_path: Path) -> None:
    """Both factors are in the file whatever of them is trained: neither is known where it is loaded."""
    plain = copy.deepcopy(backbone)
    lora = Lora(lora_rank=RANK, lora_alpha=ALPHA, target_modules="attention", trains=trains, shares=shares)
    adapt(backbone, lora)
    write(lora, backbone, tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path / "adapter", autocast_adapter_dtype=False)
    torch.testing.assert_close(logits(loaded.double()), logits(backbone), rtol=1e-12, atol=1e-12)
    assert (logits(plain) - logits(backbone)).abs().max() > 0.1
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(stored) == 2 * sum(".lora_A." in name for name, _ in backbone.named_parameters())
    assert all(name.startswith("base_model.model.") and ".default" not in name for name in stored)
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"], written["peft_type"]) == (RANK, ALPHA, "LORA")


def test_the_exported_bits_are_the_model_s(small_llama: Callable[..., Any], tmp_path: Path) -> None:
    model = small_llama()
    lora = Lora(lora_rank=RANK)
    adapt(model, lora)
    before = snapshot(dict(model.named_parameters()))
    write(lora, model, tmp_path / "new" / "adapter")
    stored = load_file(tmp_path / "new" / "adapter" / "adapter_model.safetensors")
    for name, value in trainable(model).items():
        assert torch.equal(stored[f"base_model.model.{name.replace('.default', '')}"], value)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters()), "nothing is merged"
    write(lora, model, tmp_path / "new" / "adapter")  # a resumed run writes it again


def test_exporting_asks_the_hub_nothing(
    small_llama: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compute node has no internet, and a model's name is not a folder there."""
    asked: list[str] = []
    monkeypatch.setattr(
        peft.utils.save_and_load, "check_file_exists_on_hf_hub", lambda name, *_others, **_more: asked.append(name)
    )
    model = small_llama()
    model.name_or_path = "TinyLlama/TinyLlama_v1.1"
    lora = Lora(lora_rank=RANK)
    adapt(model, lora)
    write(lora, model, tmp_path)
    assert asked == []
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == model.name_or_path
