"""What lies in a model folder is told in one line before anything is loaded, and code in it is never run."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_child import printed
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from small_encoders import purpose_of, write_folder
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    BertForMaskedLM,
    LlamaForSequenceClassification,
    T5Config,
    XLNetConfig,
    XLNetForSequenceClassification,
    dynamic_module_utils,
)
from transformers.utils import hub

from fedlit.config import ModelConfig
from fedlit.errors import UserError
from fedlit.models import Backbone, Purpose, load_backbone

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146{0:056d}\nsize 12345\n"


@pytest.fixture
def folder(small_llama: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> Path:
    small_llama().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def configure(folder: Path, name: str = "config.json", **values: Any) -> None:
    """Change entries of a file; None takes one out."""
    path = folder / name
    content = json.loads(path.read_text()) if path.is_file() else {}
    content = {key: value for key, value in {**content, **values}.items() if value is not None}
    path.write_text(json.dumps(content))


def load(folder: Path, *, weights: bool, purpose: Purpose | None = None, **given: Any) -> Backbone:
    config = ModelConfig(path=str(folder), max_length_tokens=32, **given)
    return load_backbone(config, purpose or Purpose(), weights=weights)


def messages(folder: Path, purpose: Purpose | None = None, **given: Any) -> set[str]:
    """Return what a run and a dry run say, each a line of at most 400 characters."""
    told = set()
    for weights in (True, False):
        with pytest.raises(UserError) as caught:
            load(folder, weights=weights, purpose=purpose, **given)
        told.add(str(caught.value))
    assert all("\n" not in message and len(message) <= 400 for message in told)
    return told


def message(folder: Path, purpose: Purpose | None = None, **given: Any) -> str:
    (told,) = messages(folder, purpose, **given)
    return told


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"])
def test_a_pointer_of_git_lfs(name: str, folder: Path) -> None:
    (folder / name).write_text(POINTER)
    assert f"{name} is a pointer of Git LFS, not the file itself; run `git lfs pull`" in message(folder)


def test_a_pointer_that_nobody_reads_stops_nobody(folder: Path) -> None:
    (folder / "model.safetensors").write_text(POINTER)
    load_backbone(ModelConfig(path=str(folder), weights="random", max_length_tokens=32))
    (folder / "tokenizer.json").write_text(POINTER)
    load_backbone(ModelConfig(path=str(folder), tokenizer="tiny", weights="random", max_length_tokens=32))


def test_a_pointer_beside_a_tokenizer_of_its_own(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "words")
    (tmp_path / "words" / "tokenizer.json").write_text(POINTER)
    told = message(folder, tokenizer=str(tmp_path / "words"))
    assert told.startswith(f"model.tokenizer={tmp_path}/words: tokenizer.json is a pointer")


QUANTIZED: Mapping[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "fp8": {"quant_method": "fp8"},
    "unknown": {"bits": 4},
}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_weights_that_were_quantised_before(kind: str, folder: Path) -> None:
    configure(folder, quantization_config=QUANTIZED[kind])
    told = message(folder)
    assert f"is quantised ({kind}, quantization_config in config.json) and cannot be trained" in told
    assert "model.quantization=nf4" in told
    load_backbone(ModelConfig(path=str(folder), weights="random", max_length_tokens=32))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def dry_message(folder: Path, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, weights=False, **given)
    assert len(str(caught.value)) <= 400
    return str(caught.value)


def test_integers_in_place_of_weights(folder: Path) -> None:
    """transformers would take their values for those of the weights."""
    name = "model.layers.0.self_attn.q_proj.weight"
    change_weights(folder, lambda tensors: tensors.update({name: (100 * tensors[name]).to(torch.int8)}))
    assert f"{name} in model.safetensors is stored as I8, quantised" in dry_message(folder)


def test_buffers_may_be_integers(folder: Path) -> None:
    """Old checkpoints hold positions and masks."""
    change_weights(folder, lambda tensors: tensors.update({"model.position_ids": torch.arange(9)}))
    load(folder, weights=False)


@pytest.mark.parametrize("vocabulary", [2049, 4096])
def test_another_vocabulary_in_config_json_than_in_the_weights(vocabulary: int, folder: Path) -> None:
    configure(folder, vocab_size=vocabulary)
    told = dry_message(folder)
    assert f"model.embed_tokens.weight in model.safetensors is 2048x24, but config.json says {vocabulary}x24" in told


def test_a_bare_model_has_shorter_names(folder: Path) -> None:
    def shorten(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    change_weights(folder, shorten)
    load(folder, weights=False)
    configure(folder, vocab_size=2049)
    assert "embed_tokens.weight in model.safetensors is 2048x24" in dry_message(folder)


def test_a_file_that_was_not_loaded_to_its_end(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-64])
    assert "model.safetensors is damaged or incomplete" in dry_message(folder)


def test_a_missing_shard(folder: Path, small_llama: Callable[..., Any]) -> None:
    (folder / "model.safetensors").unlink()
    small_llama().save_pretrained(folder, max_shard_size="100KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    load(folder, weights=True)
    load(folder, weights=False)
    shards[1].unlink()
    assert f"model.safetensors.index.json names {shards[1].name}, which is not there" in message(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "names no files" in message(folder)


TINY = {"vocab_size": 2048, "d_model": 16}
ENCODER_DECODERS: Mapping[str, Callable[[], Any]] = {
    "t5": lambda: T5Config(**TINY, d_kv=4, d_ff=32, num_layers=1, num_heads=2),
    "bart": lambda: BartConfig(
        **TINY,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
    ),
}


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_an_encoder_with_a_decoder_is_no_causal_model(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    AutoModelForSeq2SeqLM.from_config(ENCODER_DECODERS[kind]()).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert f"is an encoder-decoder ({kind}), and data.task=causal_lm trains decoders only; give" in message(tmp_path)


def test_an_encoder_is_no_causal_model(tokenizer: Any, tmp_path: Path) -> None:
    """It would load, see what it is to predict, and reach a loss of zero."""
    config = BertConfig(
        vocab_size=2048, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertForMaskedLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "is an encoder (bert), whose words see those that come after them" in message(tmp_path)
    configure(tmp_path, is_decoder=True)
    model: Any = load(tmp_path, weights=True).model
    words = torch.arange(5, 15).view(1, 10)
    other = words.clone()
    other[0, -1] = 99
    assert torch.equal(model(input_ids=words).logits[0, :-1], model(input_ids=other).logits[0, :-1])


def test_images_are_no_texts(tokenizer: Any, tmp_path: Path) -> None:
    folder = write_folder("vit", tmp_path / "vit", tokenizer)
    tokenizer.save_pretrained(folder)
    told = message(folder)
    assert "its architecture does not do this data.task" in told
    assert "GPT2Config" not in told


def test_a_head_of_another_name_would_not_be_trained(tokenizer: Any, tmp_path: Path) -> None:
    config = XLNetConfig(vocab_size=2048, d_model=16, n_layer=1, n_head=2, d_inner=16, num_labels=3)
    XLNetForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    told = messages(tmp_path, purpose_of("bert"), attention_implementation="eager")
    assert all("the head of architecture xlnet" in message and "is not known" in message for message in told)


def test_a_classifier_given_for_a_language_model_is_told(
    folder: Path, small_llama: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    assert load(folder, weights=True).notices == ()
    config = small_llama().config
    config.tie_word_embeddings = True
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    for weights in (True, False):
        (notice,) = load(tmp_path / "classifier", weights=weights).notices
        assert "was stored as LlamaForSequenceClassification: its head is left out" in notice
    config.tie_word_embeddings = False
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "classifier")
    with pytest.raises(UserError, match=r"lack lm_head\.weight"):
        load(tmp_path / "classifier", weights=True)


SPY = "from pathlib import Path\nPath(__file__).with_name('it_ran').touch()\nPath({marker!r}).touch()\n"
CODE = {
    "configuration_spy": "from transformers import PreTrainedConfig\nclass SpyConfig(PreTrainedConfig):\n"
    "    model_type = 'spy'\n",
    "modeling_spy": "class SpyModel: pass\n",
    "tokenization_spy": "class SpyTokenizer: pass\n",
    "processing_spy": "class SpyProcessor: pass\n",
    "custom_generate/generate": "def generate(model, **given): return None\n",
}


def plant(folder: Path, marker: Path) -> None:
    """Put harmless code into a model folder that leaves a marker when it is run."""
    for name, code in CODE.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(SPY.format(marker=str(marker)) + code)


AUTO = {"AutoConfig": "configuration_spy.SpyConfig", "AutoModelForCausalLM": "modeling_spy.SpyModel"}
OWN_CODE: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "model": ("config.json", {"model_type": "spy", "auto_map": AUTO}, "configuration_spy.SpyConfig"),
    "upstream": (
        "config.json",
        {"model_type": "spy", "auto_map": {"AutoConfig": "some/where--configuration_spy.SpyConfig"}},
        "some/where--configuration_spy.SpyConfig",
    ),
    "tokenizer": (
        "tokenizer_config.json",
        {"tokenizer_class": "SpyTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_spy.SpyTokenizer", None]}},
        "tokenization_spy.SpyTokenizer",
    ),
}


def load_with_a_yes(folder: Path, task: str = "causal_lm") -> list[str]:
    """Load a folder in a process that would answer yes to every question, and return what it prints."""

    def say() -> None:
        modules = str(folder.parent / "modules")
        # These are read from the environment when transformers is imported.
        hub.HF_MODULES_CACHE = dynamic_module_utils.HF_MODULES_CACHE = modules
        constants.HF_HUB_OFFLINE = True
        classes = () if task == "causal_lm" else ("a", "b")
        for weights in (False, True):
            try:
                backbone = load(folder, weights=weights, purpose=Purpose(task=task, classes=classes))
                print("loaded", *backbone.notices, sep="\n")
            except UserError as error:
                print("told", error)

    out, err = printed(say, answers="y\n" * 20)
    assert "[y/N]" not in out + err, "nobody is asked"
    return out.splitlines()


@pytest.mark.parametrize("case", OWN_CODE)
def test_code_that_comes_with_a_model_is_not_run(case: str, folder: Path) -> None:
    name, values, code = OWN_CODE[case]
    marker = folder.parent / "it_ran"
    plant(folder, marker)
    configure(folder, name, **values)
    if case == "tokenizer":
        configure(folder, model_type="bloom")  # an architecture without a tokenizer class of its own
    lines = load_with_a_yes(folder)
    assert len(lines) == 2
    for line in lines:
        assert re.search(rf"needs code of its own, which is never run: {name} names .*{re.escape(code)}", line), line
        assert len(line) <= 405
    assert not marker.exists()
    assert not list(folder.rglob("it_ran"))


def test_code_beside_what_transformers_knows_is_told_and_not_run(folder: Path) -> None:
    marker = folder.parent / "it_ran"
    plant(folder, marker)
    configure(folder, auto_map=AUTO)
    configure(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "tokenization_spy.SpyTokenizer"]})
    lines = load_with_a_yes(folder)
    assert lines.count("loaded") == 2
    notices = sorted(set(lines) - {"loaded"})
    assert [line.split(" of ")[0] for line in notices] == [
        "config.json", "custom_generate/generate.py", "tokenizer_config.json"
    ]  # fmt: skip
    assert all("which is never run" in line for line in notices)
    assert not marker.exists()


def test_code_of_an_image_processor_is_not_run(tokenizer: Any, tmp_path: Path) -> None:
    folder = write_folder("vit", tmp_path / "vit", tokenizer)
    marker = tmp_path / "it_ran"
    plant(folder, marker)
    values = {"image_processor_type": "SpyProcessor", "auto_map": {"AutoImageProcessor": "processing_spy.SpyProcessor"}}
    configure(folder, "preprocessor_config.json", **values)
    lines = load_with_a_yes(folder, "image_classification")
    assert not marker.exists()
    assert all("preprocessor_config.json" in line and "processing_spy" in line for line in lines if line != "loaded")
    assert lines != ["loaded", "loaded"]


def test_there_is_nothing_to_tell_of_the_packaged_model() -> None:
    assert load_backbone(ModelConfig()).notices == load_backbone(ModelConfig(), weights=False).notices == ()
