"""The published models on the meta device: their parameters, their projections, and what each method trains of them.

Built from tests/published_configs under configs/model, whose keys stand but for the path.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedlit.adapters import Adapter, trainable
from fedlit.adapters.dense import Dense
from fedlit.adapters.lora import Lora
from fedlit.adapters.scl import Scl
from fedlit.algebra.tensors import num_parameters
from fedlit.config import ModelConfig, load_config
from fedlit.models import Backbone, Purpose, head_parameters, load_backbone

REPOSITORY = Path(__file__).parents[2]
PUBLISHED = Path(__file__).parents[1] / "published_configs"
TEXT = Purpose(task="sequence_classification", classes=("entailment", "not_entailment"))
IMAGES = Purpose(task="image_classification", classes=("glioma", "meningioma", "pituitary"))
PURPOSES = {"roberta-base": TEXT, "roberta-large": TEXT, "bert-base": TEXT, "siglip": IMAGES, "vit": IMAGES}

NUM_PARAMETERS = {
    "tinyllama": 1_100_048_384,
    "gemma-2b": 2_506_172_416,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "gemma-2-9b": 9_241_705_984,
    "gpt2": 124_439_808,
    # Published with a pooler of H * H + H, which the head's first layer replaces; then 2 * H + 2.
    "roberta-base": 124_645_632 + 2 * 768 + 2,
    "roberta-large": 355_359_744 + 2 * 1024 + 2,
    "bert-base": 109_482_240 + 2 * 768 + 2,
    "siglip": 92_884_224 + 3 * 768 + 3,
    "vit": 86_389_248 - (768 * 768 + 768) + 3 * 768 + 3,
}
"""Those of the published model (tied embeddings once), and a head over two or three classes."""


@cache
def untouched(name: str) -> Backbone:
    """Return a model that nobody changes."""
    return build(name)


def build(name: str) -> Backbone:
    """Return the model that configs/model/<name>.yaml describes, from its published configuration."""
    given = load_config([f"model={name}"]).model
    given.path, given.tokenizer = str(PUBLISHED / name), "tiny"
    return load_backbone(given, PURPOSES.get(name, Purpose()), weights=False)


@cache
def sides(name: str) -> dict[str, tuple[int, int]]:
    """Return the inputs and outputs of every projection of a block, worked out from the numbers of config.json."""
    config = json.loads((PUBLISHED / name / "config.json").read_text())
    config = {**config, **config.get("vision_config", {})}
    hidden = config.get("hidden_size") or config["n_embd"]
    width = config.get("intermediate_size") or 4 * hidden
    heads = config.get("num_attention_heads") or config["n_head"]
    head_dim = config.get("head_dim") or hidden // heads
    query, key = heads * head_dim, config.get("num_key_value_heads", heads) * head_dim
    if name == "gpt2":
        names = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        return dict(zip(names, ((hidden, 3 * hidden), (hidden, hidden), (hidden, width), (width, hidden)), strict=True))
    attention = ((hidden, query), (hidden, key), (hidden, key), (query, hidden))
    if "bert" in name:
        names = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
        return {**dict(zip(names, attention, strict=True)), "intermediate.dense": (hidden, width),
                "output.dense": (width, hidden)}  # fmt: skip
    if name in ("siglip", "vit"):
        prefix, out = ("self_attn", "out_proj") if name == "siglip" else ("attention", "o_proj")
        names = tuple(f"{prefix}.{part}" for part in ("q_proj", "k_proj", "v_proj", out))
        return {**dict(zip(names, attention, strict=True)), "mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    mlp = {"gate_proj": (hidden, width), "up_proj": (hidden, width), "down_proj": (width, hidden)}
    return {**dict(zip(names, attention, strict=True)), **mlp}


def yaml_of(name: str) -> str:
    return (REPOSITORY / "configs" / "model" / f"{name}.yaml").read_text()


def num_layers(name: str) -> int:
    config = json.loads((PUBLISHED / name / "config.json").read_text())
    config = {**config, **config.get("vision_config", {})}
    return config.get("num_hidden_layers") or config["n_layer"]


def trained_by(adapter: Adapter, backbone: Backbone) -> int:
    """Return the number of parameters that an adapter trains; none of them has memory."""
    with torch.device("meta"):
        adapter.attach(backbone.model, backbone.projections)
    return num_parameters(trainable(backbone.model))


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_the_number_of_parameters_is_the_published_one(name: str) -> None:
    backbone = untouched(name)
    assert sum(parameter.numel() for parameter in backbone.model.parameters()) == NUM_PARAMETERS[name]
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert bool(head_parameters(backbone.model)) == (name in PURPOSES)
    dtype = torch.float32 if name in (*PURPOSES, "gpt2") else torch.bfloat16
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {dtype}


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_every_projection_is_in_every_layer_in_its_shape_and_nowhere_else(name: str) -> None:
    backbone = untouched(name)
    assert (*backbone.projections.attention, *backbone.projections.mlp) == tuple(sides(name))
    for projection, shape in sides(name).items():
        found = backbone.projections.find(backbone.model, projection)
        assert len(found) == num_layers(name)
        stored = shape if name == "gpt2" else shape[::-1]
        assert {tuple(module.weight.shape) for module in found.values()} == {stored}
    linear = [
        path
        for path, module in backbone.model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    ]
    others = {path for path in linear if not any(path.endswith(f".{projection}") for projection in sides(name))}
    outside = {"siglip": {"vision_model.head.attention.out_proj", "classifier"}, "bert-base": {"bert.pooler.dense"}}
    heads = {path for path in linear if path.startswith("classifier")}
    assert others <= {"lm_head"} | outside.get(name, set()) | heads


LORA_ON_ALL = {"llama-3.2-3b": 48_627_712, "mistral-7b": 83_886_080, "gemma-2-9b": 108_036_096}
"""r = 32 on all projections, as in FedEx-LoRA."""


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_lora_has_r_times_in_plus_out(name: str) -> None:
    expected = num_layers(name) * 32 * sum(map(sum, sides(name).values()))
    assert trained_by(Lora(lora_rank=32, target_modules="all"), build(name)) == expected
    assert expected == LORA_ON_ALL.get(name, expected)
    assert name not in LORA_ON_ALL or f"{expected:,}" in yaml_of(name)


@pytest.mark.parametrize(
    ("name", "rank", "target", "expected"),
    [
        ("tinyllama", 8, "qkv", 1_531_904),
        ("gemma-2b", 8, "qkv", 1_253_376),
        ("gpt2", 4, "qkv", 147_456),
        ("gpt2", 4, "attention", 221_184),
        ("gpt2", 4, ["c_attn", "c_proj"], 405_504),
        ("roberta-base", 4, ["query", "value"], 147_456),
        ("roberta-large", 4, ["query", "value"], 393_216),
        ("bert-base", 4, ["query", "value"], 147_456),
        ("siglip", 8, "qkv", 442_368),
        ("vit", 8, "qkv", 442_368),
    ],
)
def test_lora_as_in_the_papers(name: str, rank: int, target: Any, expected: int) -> None:
    """The numbers are in the comments of configs/model too."""
    assert trained_by(Lora(lora_rank=rank, target_modules=target), build(name)) == expected
    assert f"{expected:,}" in yaml_of(name)


FEDFTG = {"tinyllama": 253_755_392, "gemma-2b": 603_979_776}
"""What the paper's models train."""


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_scl_and_fedftg_train_what_their_shapes_say(name: str) -> None:
    """SCL: d * (inputs + outputs) of the down projection. FedFTG: the up projection, with its bias if it has one."""
    *_, (_, up), (width, hidden) = sides(name).values()
    has_bias, backbone = name in PURPOSES or name == "gpt2", build(name)
    expected = num_layers(name) * (hidden * up + has_bias * up)
    assert trained_by(Dense(), backbone) == expected == FEDFTG.get(name, expected)
    assert trained_by(Scl(compression_dim=9), backbone) == num_layers(name) * 9 * (width + hidden)


def without_tied_weights(model: nn.Module) -> int:
    return sum(tensor.numel() for _, tensor in model.named_parameters(remove_duplicate=False))


@pytest.mark.parametrize(
    ("name", "vocabulary"), [("gemma-2b", 256_000 * 2048), ("llama-3.2-3b", 128_256 * 3072), ("gpt2", 50_257 * 768)]
)
def test_a_tied_embedding_is_counted_once(name: str, vocabulary: int) -> None:
    assert without_tied_weights(untouched(name).model) == NUM_PARAMETERS[name] + vocabulary


KNOWN: Mapping[str, Callable[[ModelConfig], bool]] = {
    "gemma-2-9b": lambda config: config.attention_implementation == "eager",
    "gpt2": lambda config: config.max_length_tokens == 128,
    "llama-3.2-3b": lambda config: config.max_length_tokens == 256,
    "tinyllama": lambda config: config.max_length_tokens == 512,
}


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_its_yaml_and_its_published_configuration_belong_together(name: str) -> None:
    config = load_config([f"model={name}"]).model
    assert config.name == name
    assert KNOWN.get(name, lambda _: True)(config)
    assert {path.name for path in PUBLISHED.iterdir() if path.is_dir()} == NUM_PARAMETERS.keys()
