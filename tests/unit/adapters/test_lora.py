"""Which tensors a LoRA variant adds, trains, shares and keeps, and what it refuses."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import LlamaConfig

from fedlit.adapters import trainable
from fedlit.adapters.lora import Lora
from fedlit.algebra.tensors import checksum, num_parameters, snapshot
from fedlit.config import ModelConfig
from fedlit.errors import UserError
from fedlit.models import PROJECTIONS, load_backbone
from fedlit.seeding import torch_stream
from fedlit.tasks.causal_lm.task import CausalLM

Llama = Callable[..., Any]
VARIANTS = {"FedIT": ("AB", "AB"), "FFA-LoRA": ("B", "B"), "FedSA-LoRA": ("AB", "A")}


def attached(model: Any, seed: int = 0, **given: Any) -> Any:
    with torch_stream(seed, "adapter"):
        Lora(**{"lora_rank": 2, **given}).attach(model, PROJECTIONS["llama"])
    return model


def factors(names: Any) -> set[str]:
    return {name.split(".lora_")[1][0] for name in names}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_variant_trains_shares_and_keeps(variant: str, small_llama: Llama) -> None:
    trains, shares = VARIANTS[variant]
    lora = Lora(lora_rank=2, trains=trains, shares=shares)
    model = small_llama()
    backbone = set(dict(model.named_parameters()))
    lora.attach(model, PROJECTIONS["llama"])
    shared, private = lora.shared(model), lora.private(model)
    assert factors(trainable(model)) == set(trains)
    assert factors(shared) == set(shares)
    assert factors(private) == set(trains) - set(shares)
    assert shared.keys() | private.keys() == trainable(model).keys()
    assert not shared.keys() & private.keys()
    assert len(shared) == 2 * 3 * len(shares)
    frozen = {name.replace(".base_layer", "") for name, value in model.named_parameters() if not value.requires_grad}
    assert backbone <= frozen
    parameters = dict(model.named_parameters())
    assert all(value.data_ptr() == parameters[name].data_ptr() for name, value in {**shared, **private}.items())


def test_shapes_and_initial_values(small_llama: Llama) -> None:
    """A (r, in) is uniform within 1 / sqrt(in), B (out, r) zero: the adapted model is the backbone at first."""
    plain, model = small_llama(), attached(small_llama(), lora_rank=6, target_modules="attention")
    linear = dict(plain.named_modules())
    for name, tensor in Lora().shared(model).items():
        module, factor = name.split(".lora_")
        out, within = linear[module].weight.shape
        assert out != within
        assert tensor.shape == ((6, within) if factor.startswith("A") else (out, 6))
        if factor.startswith("A"):
            bound = 1 / math.sqrt(within)
            assert 0.8 * bound < float(tensor.abs().max()) <= bound
        else:
            assert not tensor.any()
    tokens = torch.arange(12).view(2, 6)
    assert torch.equal(model(tokens).logits, plain(tokens).logits)


def test_the_same_stream_gives_the_same_a_everywhere(small_llama: Llama) -> None:
    first, again, other = (Lora().shared(attached(small_llama(), seed)) for seed in (0, 0, 1))
    assert checksum(first) == checksum(again)
    assert checksum(first) != checksum(other)
    drawn = {name: tensor for name, tensor in first.items() if ".lora_A." in name}
    assert len({checksum({"": tensor}) for tensor in drawn.values()}) == len(drawn), "every layer has its own"


def test_a_factor_that_is_not_trained_keeps_every_bit(
    small_llama: Llama, make_task: Callable[..., CausalLM], examples: list[Any]
) -> None:
    model, task = attached(small_llama(), trains="B", shares="B"), make_task()
    parameters = dict(model.named_parameters())
    before = {name: checksum({"": value}) for name, value in parameters.items()}
    optimizer = torch.optim.AdamW(list(parameters.values()), lr=0.1, weight_decay=0.5)  # even one that is given them
    for _ in range(3):
        task.loss(model, task.collate(examples[:4])).backward()
        assert {name for name, value in parameters.items() if value.grad is not None} == trainable(model).keys()
        optimizer.step()
    changed = {name for name, value in parameters.items() if checksum({"": value}) != before[name]}
    assert factors(changed) == {"B"}
    assert changed == trainable(model).keys()


def test_tinyllama_has_the_published_number_of_parameters(tokenizer: Any, tmp_path: Path) -> None:
    """22 layers of q (2048, 2048), k and v (256, 2048): 22 * 8 * (4096 + 2 * 2304) = 1,531,904."""
    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=32000,
        max_position_embeddings=2048,
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    backbone = load_backbone(ModelConfig(path=str(tmp_path), dtype="bfloat16", max_length_tokens=512), weights=False)
    assert sum(parameter.numel() for parameter in backbone.model.parameters()) == 1_100_048_384
    Lora(lora_rank=8, target_modules="qkv").attach(backbone.model, backbone.projections)
    assert num_parameters(trainable(backbone.model)) == 1_531_904
    assert {parameter.device.type for parameter in backbone.model.parameters()} == {"meta"}
    for variant, expected in (("B", 22 * 8 * (2048 + 2 * 256)), ("A", 22 * 8 * 3 * 2048)):
        assert num_parameters(Lora(trains="AB", shares=variant).shared(backbone.model)) == expected


def test_the_adapter_is_in_single_precision_on_a_half_precision_backbone(small_llama: Llama) -> None:
    model = attached(small_llama(dtype=torch.bfloat16))
    assert {value.dtype for value in trainable(model).values()} == {torch.float32}
    assert model.model.layers[0].self_attn.q_proj.base_layer.weight.dtype == torch.bfloat16
    assert model(torch.arange(6).view(1, 6)).logits.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("qkv", {"q_proj", "k_proj", "v_proj"}),
        ("mlp", {"gate_proj", "up_proj", "down_proj"}),
        (["down_proj"], {"down_proj"}),
        (("q_proj", "v_proj"), {"q_proj", "v_proj"}),
    ],
)
def test_the_targets_are_the_ones_asked_for(target: Any, expected: set[str], small_llama: Llama) -> None:
    model = attached(small_llama(), target_modules=target)
    adapted = [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    assert {name.rsplit(".", 1)[-1] for name in adapted} == expected
    assert len(adapted) == 2 * len(expected)


@pytest.mark.parametrize(
    "target", [["q_porj"], ["q_proj", "v_porj"], ["input_layernorm"], ["q_proj", "input_layernorm"]]
)
def test_a_target_that_the_model_lacks_is_an_error(target: list[str], small_llama: Llama) -> None:
    """Also one among others, which would quietly go untrained."""
    with pytest.raises(UserError) as caught:
        attached(small_llama(), target_modules=target)
    message = str(caught.value)
    assert "method.target_modules" in message
    assert target[-1] in message
    assert "\n" not in message


def test_a_snapshot_of_the_factors_outlives_training(small_llama: Llama) -> None:
    model = attached(small_llama())
    kept = snapshot(Lora().shared(model))
    before = checksum(kept)
    with torch.no_grad():
        for value in trainable(model).values():
            value.add_(1)
    assert checksum(kept) == before
    assert checksum(Lora().shared(model)) != before


def test_dropout_and_scale_are_those_asked_for(small_llama: Llama) -> None:
    plain = attached(small_llama(), lora_alpha=3.0, lora_dropout=0.25)
    stabilised = attached(small_llama(), lora_alpha=3.0, use_rslora=True)
    layer, other = (model.model.layers[0].self_attn.q_proj for model in (plain, stabilised))
    assert layer.scaling["default"] == 3.0 / 2
    assert other.scaling["default"] == pytest.approx(3.0 / math.sqrt(2))
    assert layer.lora_dropout["default"].p == 0.25
    assert isinstance(other.lora_dropout["default"], nn.Identity)


@pytest.mark.parametrize(
    "given",
    [{"lora_rank": 0}, {"lora_alpha": 0.0}, {"lora_alpha": -1.0}, {"lora_dropout": -0.1}, {"lora_dropout": 1.0}],
)
def test_a_value_out_of_range(given: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"method\.{next(iter(given))}="):
        Lora(**given)  # type: ignore[arg-type]
