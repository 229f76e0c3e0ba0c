"""Which modules a name stands for, in every architecture of the table and for every adapter."""

import re
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer as PeftLayer
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)
from transformers.pytorch_utils import Conv1D

from fedlit.adapters import trainable
from fedlit.adapters.dense import Dense
from fedlit.adapters.lora import Lora
from fedlit.adapters.lora_core import CoreLayer, LoraCore
from fedlit.adapters.scl import CompressedLinear, Scl
from fedlit.errors import UserError
from fedlit.models import PROJECTIONS, Projections, head_parameters

NUM_LAYERS = 2
SIZES = {"num_hidden_layers": NUM_LAYERS, "hidden_size": 64, "num_attention_heads": 4, "num_labels": 3}
SPECIAL = {"vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
VISION = ("vit", "dinov2", "siglip", "siglip2")
ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "deberta-v2")


def build(kind: str) -> Any:
    """Return a model of the task that its architecture is for, on the meta device, its name and its task's class."""
    if kind in VISION:
        given = {"vision_config": SIZES, "num_labels": 3} if kind.startswith("siglip") else SIZES
        auto: Any = AutoModelForImageClassification
    else:
        given = {**SIZES, **SPECIAL}
        auto = AutoModelForSequenceClassification if kind in ENCODERS else AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(AutoConfig.for_model(kind, **given)).requires_grad_(False)


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, Conv1D))


def linear_in_blocks(model: nn.Module) -> set[str]:
    """Return the paths of the linear layers inside the lists of blocks, told by their numbers."""
    paths = {path for path, module in model.named_modules() if is_linear(module)}
    return {path for path in paths if any(part.isdigit() for part in path.split("."))}


def paths_of(model: nn.Module, kind: type[nn.Module]) -> set[str]:
    return {path for path, module in model.named_modules() if isinstance(module, kind)}


def test_the_groups_of_projections() -> None:
    named = Projections(attention=("q", "k", "v", "o"), mlp=("gate", "up", "down"))
    assert named.select("qkv") == ("q", "k", "v")
    assert named.select("attention") == ("q", "k", "v", "o")
    assert named.select("mlp") == ("gate", "up", "down")
    assert named.select("all") == ("q", "k", "v", "o", "gate", "up", "down")
    assert named.select(["v", "lm_head"]) == ("v", "lm_head")
    assert PROJECTIONS["gpt2"].select("qkv") == ("attn.c_attn",)
    with pytest.raises(UserError, match=r"target_modules=qkvo is not known; valid are qkv, attention, mlp, all"):
        named.select("qkvo")


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_a_projection_is_there_once_in_every_block_and_nowhere_else(kind: str) -> None:
    model, projections = build(kind), PROJECTIONS[kind]
    found: set[str] = set()
    for names, is_attention in ((projections.attention, True), (projections.mlp, False)):
        for name in names:
            paths = projections.find(model, name)
            assert len(paths) == NUM_LAYERS, (name, paths)
            assert not found & paths.keys(), "no module has two names"
            assert {"att" in path for path in paths} == {is_attention}
            found |= paths.keys()
    assert found == linear_in_blocks(model), "`all` is every linear layer of the blocks"


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_all_adapters_find_the_same_layers(kind: str) -> None:
    everything, projections = linear_in_blocks(build(kind)), PROJECTIONS[kind]
    model = build(kind)
    Lora(lora_rank=2, target_modules="all").attach(model, projections)
    assert paths_of(model, PeftLayer) == everything
    model = build(kind)
    LoraCore(lora_rank=2, target_modules="all").attach(model, projections)
    assert paths_of(model, CoreLayer) == everything
    model = build(kind)
    Dense(target_modules="all").attach(model, projections)
    assert {name.rpartition(".")[0] for name in trainable(model)} == everything
    down = set(projections.find(model, projections.mlp[-1]))
    Scl(compression_dim=2).attach(model, projections)
    assert paths_of(model, CompressedLinear) == down


@pytest.mark.parametrize("kind", ["vit", "siglip", "roberta", "bert"])
def test_up_is_the_layer_after_attention(kind: str) -> None:
    """FedFTG on a plain MLP: its first layer, weight and bias."""
    model = build(kind)
    Dense().attach(model, PROJECTIONS[kind])
    name = {"vit": "mlp.fc1", "siglip": "mlp.fc1"}.get(kind, "intermediate.dense")
    trained = trainable(model)
    assert len(trained) == 2 * NUM_LAYERS
    assert all(f".{name}." in path for path in trained)
    assert not any(".head." in path for path in trained)


def test_the_longest_name_wins() -> None:
    model, roberta = build("roberta"), PROJECTIONS["roberta"]
    layer = "roberta.encoder.layer.1"
    assert f"{layer}.output.dense" in roberta.find(model, "output.dense")
    assert f"{layer}.attention.output.dense" not in roberta.find(model, "output.dense")
    assert len(roberta.find(model, "attention.output.dense")) == NUM_LAYERS


def test_names_of_ones_own_are_ends_of_paths_as_in_peft() -> None:
    """The released code of FedEx-LoRA on GPT-2 has [c_attn, c_proj], of which the latter is in the MLP as well."""
    gpt2, roberta = PROJECTIONS["gpt2"], PROJECTIONS["roberta"]
    assert len(gpt2.find(build("gpt2"), "c_proj")) == 2 * NUM_LAYERS
    assert len(gpt2.find(build("gpt2"), "attn.c_proj")) == NUM_LAYERS
    assert len(roberta.find(build("roberta"), "value")) == NUM_LAYERS
    assert len(roberta.find(build("roberta"), "dense")) == 3 * NUM_LAYERS, "and not the head's"
    assert set(roberta.find(build("roberta"), "layer.1.output.dense")) == {"roberta.encoder.layer.1.output.dense"}
    assert gpt2.find(build("gpt2"), "proj") == {}
    assert gpt2.find(build("gpt2"), "nowhere") == {}


def test_outside_the_blocks_a_name_must_be_that_of_no_block() -> None:
    siglip, llama, bert = build("siglip"), build("llama"), build("bert")
    assert not any("head" in path for path in PROJECTIONS["siglip"].find(siglip, "mlp.fc1"))
    assert not any("head" in path for path in PROJECTIONS["siglip"].find(siglip, "out_proj"))
    assert set(PROJECTIONS["siglip"].find(siglip, "head.mlp.fc1")) == {"vision_model.head.mlp.fc1"}
    assert set(PROJECTIONS["llama"].find(llama, "lm_head")) == {"lm_head"}
    assert set(PROJECTIONS["bert"].find(bert, "pooler.dense")) == {"bert.pooler.dense"}


@pytest.mark.parametrize("name", ["classifier", "classifier.out_proj", "out_proj"])
def test_the_head_is_no_target(name: str) -> None:
    with pytest.raises(UserError, match=rf"names {re.escape(name)}, a classification head, which is trained anyway"):
        PROJECTIONS["roberta"].find(build("roberta"), name)


@pytest.mark.parametrize("kind", [*ENCODERS, *VISION])
def test_the_head_is_what_the_pretrained_part_does_not_have(kind: str) -> None:
    model = build(kind)
    heads = {name.split(".", maxsplit=1)[0] for name in head_parameters(model)}
    pretrained = {name for name, _ in model.named_children() if name not in heads}
    assert len(pretrained - {"dropout"}) == 1, pretrained
    assert "classifier" in heads
