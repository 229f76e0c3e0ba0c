"""A backbone loads frozen from a folder, on the meta device without memory, and its projections have names."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig, BloomForCausalLM
from transformers.pytorch_utils import Conv1D

from fedlit.adapters.lora import Lora
from fedlit.config import ModelConfig
from fedlit.errors import UserError
from fedlit.models import PACKAGED, PROJECTIONS, Projections, load_backbone, load_tokenizer

SIZES = {"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 96}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture
def folder(small_llama: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> Path:
    small_llama().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


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


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False but the target module is `Conv1D`")
@pytest.mark.parametrize("kind", PROJECTIONS)
def test_the_projections_are_those_of_transformers(kind: str) -> None:
    """`all` is every linear layer inside the blocks, each name is there, and the first ones are attention's."""
    config = AutoConfig.for_model(kind, **SIZES, **SPECIAL)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = {
        name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D)) and module is not head
    }
    projections = PROJECTIONS[kind]
    for names, part in ((projections.attention, "attn|attention"), (projections.mlp, "mlp|fc")):
        for projection in names:
            found = [name for name in linear if name.endswith(f".{projection}")]
            assert found, projection
            assert all(any(word in name for word in part.split("|")) for name in found), found
    Lora(lora_rank=2, target_modules="all").attach(model, projections)
    assert {name for name, module in model.named_modules() if isinstance(module, LoraLayer)} == linear


def test_the_packaged_model_is_frozen() -> None:
    backbone = load_backbone(ModelConfig())
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert backbone.projections == PROJECTIONS["llama"]
    assert backbone.tokenizer.eos_token_id == 2
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.float32}


def test_a_folder_gives_its_weights(folder: Path, small_llama: Callable[..., nn.Module]) -> None:
    loaded = load_backbone(ModelConfig(path=str(folder))).model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in small_llama().state_dict().items())
    half = load_backbone(ModelConfig(path=str(folder), dtype="bfloat16")).model
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_attention_kernel_is_the_one_asked_for(kernel: str) -> None:
    model = load_backbone(ModelConfig(attention_implementation=kernel), weights=False).model
    assert model.config._attn_implementation == kernel  # type: ignore[union-attr]


def test_without_weights_there_is_no_memory() -> None:
    with_weights, without = load_backbone(ModelConfig()).model, load_backbone(ModelConfig(), weights=False).model
    assert {parameter.device.type for parameter in without.parameters()} == {"meta"}
    shapes = [{name: tensor.shape for name, tensor in model.named_parameters()} for model in (with_weights, without)]
    assert shapes[0] == shapes[1]
    assert not any(parameter.requires_grad for parameter in without.parameters())


def message_of(**given: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_backbone(ModelConfig(**given))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("path", ["./no/such", "/no/such", "../no", "~/no/such"])
def test_a_folder_that_is_not_there(path: str) -> None:
    assert f"model.path={path} is not a folder" in message_of(path=path)


def test_what_cannot_be_loaded_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "tokenizer of model.path=" in message_of(path=str(tmp_path / "empty"))
    (folder / "model.safetensors").write_bytes(b"no tensors")
    message = message_of(path=str(folder))
    assert "the model of model.path=" in message
    assert "download it first" in message


def test_a_text_longer_than_the_model_reads(folder: Path) -> None:
    load_backbone(ModelConfig(path=str(folder), max_length_tokens=256))
    assert "max_length_tokens=257" in message_of(path=str(folder), max_length_tokens=257)
    assert "reads 256 tokens" in message_of(path=str(folder), max_length_tokens=257)


def test_a_tokenizer_without_an_end(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    config = ModelConfig(path=str(folder))
    assert load_tokenizer(config).eos_token == "</s>"
    endless = load_tokenizer(config)
    endless.eos_token = None
    endless.save_pretrained(folder)
    with pytest.raises(UserError, match="no end-of-text token"):
        load_tokenizer(config)


@pytest.fixture
def unknown(tokenizer: Any, tmp_path: Path) -> Path:
    """A BLOOM, whose names the table does not hold."""
    config = AutoConfig.for_model("bloom", n_layer=1, hidden_size=16, n_head=2, vocab_size=2048)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "bloom")
    tokenizer.save_pretrained(tmp_path / "bloom")
    return tmp_path / "bloom"


def test_an_unknown_architecture_needs_its_names(unknown: Path) -> None:
    given: dict[str, Any] = {"path": str(unknown), "attention_implementation": "eager"}
    message = message_of(**given)
    assert "architecture bloom are not known" in message
    assert "model.attention=" in message
    assert "model.mlp=" in message
    given["attention"] = ["query_key_value", "dense"]
    assert "model.mlp=" in message_of(**given)
    backbone = load_backbone(ModelConfig(**given, mlp=["dense_h_to_4h", "dense_4h_to_h"]))
    assert backbone.projections.select("qkv") == ("query_key_value",)
    assert backbone.projections.mlp == ("dense_h_to_4h", "dense_4h_to_h")


def test_given_names_win_over_the_table() -> None:
    backbone = load_backbone(ModelConfig(mlp=["up_proj", "down_proj"]), weights=False)
    assert backbone.projections == Projections(attention=PROJECTIONS["llama"].attention, mlp=("up_proj", "down_proj"))


def test_an_architecture_without_the_fused_attention_is_told_of_the_other(tmp_path: Path) -> None:
    config = BloomConfig(vocab_size=2048, hidden_size=16, n_layer=1, n_head=2)
    BloomForCausalLM(config).save_pretrained(tmp_path)
    for file in PACKAGED["tiny"].glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    with pytest.raises(UserError, match=r"give model\.attention_implementation=eager$"):
        load_backbone(ModelConfig(path=str(tmp_path), max_length_tokens=64))
