"""Backbones in 4 bits: the error where there is no CUDA, what is refused, and bitsandbytes itself, on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn

from fedlit.adapters import trainable
from fedlit.adapters.lora import Lora
from fedlit.adapters.peft_files import write_peft_adapter
from fedlit.client.folded import FoldedChanges
from fedlit.config import ModelConfig, RunConfig, load_config
from fedlit.errors import UserError
from fedlit.models import Backbone, load_backbone, loading, quantization
from fedlit.models.quantization import (
    quantizable_weights,
    quantization_options,
    quantized_bytes,
    require_quantization_fits,
)
from fedlit.round.server import ServerState
from fedlit.store.export import replacing, write_weights

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
TOKENS = torch.arange(3, 33).view(3, 10)


def test_without_cuda_it_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = ModelConfig(path=str(tmp_path), tokenizer="tiny", quantization="nf4")
    with pytest.raises(UserError, match=r"^model.quantization=nf4 needs a CUDA device and there is none"):
        load_backbone(config)
    load_backbone(ModelConfig(quantization="nf4"), weights=False)


@pytest.mark.parametrize("library", ["bitsandbytes", "accelerate"])
def test_a_missing_library_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(quantization, "find_spec", lambda name: None if name == library else object())
    with pytest.raises(UserError, match=f"nf4 needs {library}; install it"):
        quantization_options()


def test_the_options_are_qloras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    options = quantization_options()
    given = options["quantization_config"]
    assert options["device_map"] == {"": 1}
    assert (given.load_in_4bit, given.bnb_4bit_quant_type, given.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert given.bnb_4bit_compute_dtype == torch.bfloat16


@pytest.fixture
def quantized(monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """The packaged model in 4 bits, by bitsandbytes' kernels for the CPU."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "current_device", lambda: "cpu")
        options = quantization_options()
    monkeypatch.setattr(loading, "quantization_options", lambda: options)
    return load_backbone(ModelConfig(quantization="nf4", dtype="bfloat16"))


def loss_of(model: Any) -> torch.Tensor:
    return model(input_ids=TOKENS, labels=TOKENS).loss


def test_a_run_in_4_bits_starts_from_an_adapter(quantized: Backbone, tmp_path: Path) -> None:
    """Each layer adds to its packed base what peft's layer with the stored factors adds."""
    lora = Lora(lora_rank=4, lora_alpha=6.0, target_modules="all")
    lora.attach(quantized.model, quantized.projections)
    for parameter in trainable(quantized.model).values():
        torch.nn.init.normal_(parameter, std=0.1)
    layers, tensors = lora.layers(quantized.model), dict(quantized.model.named_parameters())
    write_peft_adapter(tmp_path, layers, tensors, {}, backbone_path="tiny")
    again = load_backbone(ModelConfig(path=str(tmp_path), quantization="nf4", dtype="bfloat16"))
    lora.attach(again.model, again.projections)
    assert again.start is not None
    before = loss_of(again.model).item()
    lora.start_from(again.model, again.start)
    assert loss_of(again.model).item() == loss_of(quantized.model).item() != before


def test_lora_trains_beside_weights_in_4_bits_and_leaves_as_an_adapter(quantized: Backbone, tmp_path: Path) -> None:
    model, plain = quantized.model, load_backbone(ModelConfig(dtype="bfloat16")).model
    assert float(loss_of(model)) == pytest.approx(float(loss_of(plain)), abs=0.1)
    frozen = {name: parameter.clone() for name, parameter in model.named_parameters()}
    lora = Lora(lora_rank=4, target_modules="all")
    lora.attach(model, quantized.projections)
    assert len(lora.layers(model)) == 35
    assert {parameter.dtype for parameter in trainable(model).values()} == {torch.float32}
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    parameters = dict(model.named_parameters())
    for name, before in frozen.items():
        now = parameters.get(name, parameters.get(name.replace(".weight", ".base_layer.weight")))
        assert now is not None
        assert torch.equal(now, before)
    server = ServerState(shared=lora.shared(model), layers=lora.layers(model))
    # As FedEx-LoRA and FLoRA do: twice what the factors add, beside the packed weights.
    unfolded = loss_of(model).item()
    server = server.fold({layer.name: layer.change(server.shared) * 2.0 for layer in server.layers})
    FoldedChanges(model, server.layers).set(server.changes())
    assert abs(loss_of(model).item() - unfolded) > 0.01

    def reload() -> Backbone:
        raise AssertionError("the backbone is not needed")

    with replacing(tmp_path / "adapter") as partial:
        write_weights(adapter=lora, model=model, server=server, folder=partial, form="adapter", reload=reload)
    expected = loss_of(model).item()
    again = load_backbone(ModelConfig(quantization="nf4", dtype="bfloat16")).model
    assert float(loss_of(PeftModel.from_pretrained(again, tmp_path / "adapter"))) == pytest.approx(expected, abs=5e-3)


def test_its_bytes_are_those_that_sizes_count(quantized: Backbone) -> None:
    """The packed weights and the two levels of constants, which a small matrix has relatively more of."""
    weights = quantizable_weights(load_backbone(ModelConfig(), weights=False).model)
    packed = [module.weight for module in quantized.model.modules() if type(module).__name__ == "Linear4bit"]
    assert len(packed) == len(weights) == 35
    stored = sum(weight.numel() for weight in packed)
    for weight in packed:
        state = weight.quant_state
        stored += state.absmax.numel() + state.state2.absmax.numel() * 4
    assert quantized_bytes(sum(weight.numel() for weight in weights)) == pytest.approx(stored, rel=2e-3)


def test_what_is_quantised_is_every_linear_layer_but_the_output() -> None:
    model: Any = load_backbone(ModelConfig(), weights=False).model
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    weights = quantizable_weights(model)
    assert len(linear) == len(weights) + 1
    assert all(weight is not model.lm_head.weight for weight in weights)


def refusal(*options: str, keeps_weights: bool = True) -> str:
    config: RunConfig = load_config(["model.quantization=nf4", *options])
    with pytest.raises(UserError) as caught:
        require_quantization_fits(config, keeps_weights=keeps_weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_would_write_to_weights_in_4_bits_is_refused() -> None:
    assert "the adapter of method=full trains, reads or replaces them" in refusal("method=full", keeps_weights=False)
    assert "run.export=merged adds to them" in refusal("run.export=merged")
    assert "model.weights=random draws them" in refusal("model.weights=random")
    config = load_config(["model.quantization=nf4"])
    config.data.task = "sequence_classification"
    with pytest.raises(UserError, match=r"the result of data.task=sequence_classification is a whole model"):
        require_quantization_fits(config, keeps_weights=True)
    require_quantization_fits(load_config(["model.quantization=nf4"]), keeps_weights=True)
    require_quantization_fits(load_config(["method=full"]), keeps_weights=False)
