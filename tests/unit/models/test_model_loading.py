"""A backbone loads frozen from a folder, on the meta device without memory, and its projections have names."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_encoders import purpose_of, write_folder
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig, BloomForCausalLM

from fedlit.algebra.tensors import checksum, snapshot
from fedlit.config import ModelConfig
from fedlit.errors import UserError
from fedlit.models import PACKAGED, PROJECTIONS, Projections, Purpose, load_backbone, load_tokenizer, loading

SIZES = {"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 96}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture
def folder(small_llama: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> Path:
    small_llama().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


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
        load_backbone(config)


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


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("kind", ["roberta", "siglip"])
def test_weights_that_lack_more_than_a_head_are_refused(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    """What is frozen would stay random; also where a shape is another."""
    folder = write_folder(kind, tmp_path / kind, tokenizer)
    config = ModelConfig(path=str(folder), max_length_tokens=32)
    change_weights(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "classifier" in name])
    load_backbone(config, purpose_of(kind))
    name = next(name for name in load_file(folder / "model.safetensors") if name.endswith("0.mlp.fc1.weight")
                or name.endswith("0.intermediate.dense.weight"))  # fmt: skip
    whole = (folder / "model.safetensors").read_bytes()
    for change in (
        lambda tensors: tensors.pop(name),
        lambda tensors: tensors.update({name: tensors[name][:-1].clone()}),
    ):
        (folder / "model.safetensors").write_bytes(whole)
        change_weights(folder, change)
        with pytest.raises(UserError, match=rf"lack {re.escape(name)} of architecture {kind}.*\(1 tensors\)") as caught:
            load_backbone(config, purpose_of(kind))
        assert "\n" not in str(caught.value)


def test_weights_of_a_language_model_in_another_shape_are_refused(folder: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    change_weights(folder, lambda tensors: tensors.update({name: tensors[name][:-1].clone()}))
    assert "the model of model.path=" in message_of(path=str(folder))


@pytest.mark.parametrize("kind", ["bert", "siglip"])
def test_a_new_head_is_drawn_without_a_word(
    kind: str, tokenizer: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_folder(kind, tmp_path / kind, tokenizer)
    change_weights(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "classifier" in name])
    capfd.readouterr()
    caplog.clear()
    transformers.utils.logging.disable_progress_bar()  # as fedlit.launch does
    try:
        load_backbone(ModelConfig(path=str(folder), max_length_tokens=32), purpose_of(kind))
    finally:
        transformers.utils.logging.enable_progress_bar()
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert transformers.utils.logging.get_verbosity() == transformers.utils.logging.WARNING


@pytest.mark.parametrize(("kind", "longest"), [("roberta", 62), ("bert", 64)])
def test_roberta_reads_two_tokens_less_than_it_has_positions(
    kind: str, longest: int, tokenizer: Any, tmp_path: Path
) -> None:
    folder = write_folder(kind, tmp_path / kind, tokenizer)
    model = load_backbone(ModelConfig(path=str(folder), max_length_tokens=longest), purpose_of(kind)).model
    model(input_ids=torch.full((1, longest), 5))
    with pytest.raises(UserError, match=f"max_length_tokens={longest + 1} but .* reads {longest} tokens"):
        load_backbone(ModelConfig(path=str(folder), max_length_tokens=longest + 1), purpose_of(kind))


def test_images_have_no_length_in_tokens(tokenizer: Any, tmp_path: Path) -> None:
    folder = write_folder("vit", tmp_path / "vit", tokenizer)
    backbone = load_backbone(ModelConfig(path=str(folder), max_length_tokens=10_000), purpose_of("vit"))
    assert backbone.tokenizer is None
    assert backbone.image_processor.size["height"] == 12


def test_regression_has_one_output(tokenizer: Any, tmp_path: Path) -> None:
    folder = write_folder("bert", tmp_path / "bert", tokenizer)
    purpose = Purpose(task="sequence_classification", regression=True)
    model: Any = load_backbone(ModelConfig(path=str(folder), max_length_tokens=32), purpose).model
    assert model(input_ids=torch.full((2, 4), 5)).logits.shape == (2, 1)
    assert model.config.problem_type == "regression"


@pytest.mark.parametrize("kind", ["roberta", "siglip"])
def test_random_weights_are_those_of_the_seed(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    folder = write_folder(kind, tmp_path / kind, tokenizer, with_weights=False)
    config = ModelConfig(path=str(folder), weights="random", max_length_tokens=32)
    sums = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(sums))
        model = load_backbone(config, purpose_of(kind, seed)).model
        sums.append(checksum(snapshot(dict(model.named_parameters()))))
    assert sums[0] == sums[1] != sums[2]
    with pytest.raises(UserError, match=r"the model of model\.path=.* cannot be loaded"):
        load_backbone(ModelConfig(path=str(folder), max_length_tokens=32), purpose_of(kind))


def test_flash_attention_says_what_it_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the weights are read; without weights it is not needed."""
    given: dict[str, Any] = {"path": str(folder), "attention_implementation": "flash_attention_2"}
    (folder / "model.safetensors").rename(folder / "model.gone")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert message_of(**given).endswith("flash_attention_2 needs a CUDA device and there is none; choose sdpa")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert message_of(**given).endswith("needs model.dtype=bfloat16, which is float32; choose sdpa")
    monkeypatch.setattr(loading, "is_flash_attn_2_available", lambda: False)
    assert "needs the package flash-attn" in message_of(**given, dtype="bfloat16")
    load_backbone(ModelConfig(**given), weights=False)
