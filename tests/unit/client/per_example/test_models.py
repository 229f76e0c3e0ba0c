"""Whole models, as the tasks train them: the sum of clipped gradients of a padded batch is that of a loop over rows."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from single_rows import assert_the_same, at_once, in_a_loop
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from fedlit.adapters import trainable
from fedlit.client.per_example.recording import Rows
from fedlit.config import DataConfig, MethodConfig, RunConfig
from fedlit.data.collation import Example
from fedlit.method import Method
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS
from fedlit.tasks import Task
from fedlit.tasks.causal_lm.task import CausalLM
from fedlit.tasks.image_classification.task import ImageBatch, ImageClassification
from fedlit.tasks.sequence_classification.task import SequenceClassification, TextExample

TIGHT = 1e-10
LLAMA = 1e-6
"""Its norms compute in float32 whatever the model's type, in which a last bit may fall either way."""
PUBLISHED = Path(__file__).parents[3] / "published_configs"
SMALL = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 120,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
GPT2 = {"n_embd": 24, "n_layer": 2, "n_head": 4, "vocab_size": 120, "n_positions": 64, "initializer_range": 0.3}
STILL = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout_prob", "attention_probs_dropout_prob")


def small(kind: str, given: Mapping[str, Any], auto: Any = AutoModelForCausalLM) -> Any:
    """Return a random model of an architecture in float64, without dropout."""
    settings = {**given, **dict.fromkeys(STILL, 0.0)}
    torch.manual_seed(3)
    model = auto.from_config(AutoConfig.for_model(kind, **settings)).double().train()
    with torch.no_grad():
        for parameter in model.parameters():  # biases are zero and norms one in a new model
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def built(method: str, **options: Any) -> Method:
    whole = {"target_modules": "model"} if method == "full" else {}
    return build_method(RunConfig(method=MethodConfig(name=method, options={**whole, **options})))


def attach(model: Any, kind: str, method: str, **options: Any) -> None:
    """Put a method's adapter into a model and give each of its zeros a value, all in float64."""
    parts = built(method, **options)
    torch.manual_seed(4)
    parts.attach(model, PROJECTIONS[kind])
    for parameter in trainable(model).values():
        parameter.data = parameter.data.double() + 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
    model.double()


def assert_a_loop(
    model: nn.Module, task: Task[Any, Any], examples: Sequence[Any], clip_norm: float, tolerance: float = TIGHT
) -> None:
    """Compare one pass over all rows with a pass for each."""
    trained = trainable(model)
    joined = task.join([task.collate([each]) for each in examples])
    rows = Rows(num_rows=len(joined.rows), width=max(joined.widths, default=0), labels=tuple(joined.labels))
    expected, norms = in_a_loop(
        lambda row: task.loss(model, task.collate([examples[row]])), len(examples), trained, clip_norm
    )
    found = at_once(model, lambda: task.losses(model, joined), rows, trained, clip_norm)
    assert_the_same(found, expected, norms, tolerance, may_be_unused=True)
    low, high = float(norms.min()), float(norms.max())
    assert high > 1.01 * low or len(examples) == 1, "rows of unlike norms"


@pytest.fixture
def examples() -> list[Example]:
    """Return rows of 5 to 15 tokens with 2 to 7 labels, one of them without padding, two of as many labels."""
    draw = torch.Generator().manual_seed(1)
    found = []
    for row, (length, prompt) in enumerate([(9, 5), (15, 8), (5, 3), (12, 8)]):
        tokens = torch.randint(1, 120, (length,), generator=draw).tolist()
        found.append(
            Example(token_ids=tuple(tokens), num_prompt_tokens=prompt, prompt="", response="", truncated=row == 0)
        )
    return found


@pytest.fixture
def language(make_task: Callable[..., CausalLM]) -> CausalLM:
    return replace(make_task(), label_smoothing=0.1)


METHODS: list[tuple[str, str, dict[str, Any]]] = [
    ("fedit", "llama", {"target_modules": "all"}),
    ("fedit", "llama", {"target_modules": ["q_proj", "lm_head"], "lora_rank": 3, "lora_alpha": 5.0}),
    ("ffa_lora", "llama", {"target_modules": "qkv"}),
    ("fedit", "gpt2", {"target_modules": "all"}),
    ("fedit", "gpt2", {"target_modules": ["c_attn", "lm_head"]}),
    ("full", "llama", {}),
    ("full", "gpt2", {}),
    ("fedftg", "llama", {}),
    ("full", "llama", {"target_modules": ["embed_tokens", "norm"]}),
    ("full", "gpt2", {"target_modules": ["wpe"]}),
    ("scl", "llama", {"compression_dim": 12, "init": "gaussian"}),
    ("fed_sb", "llama", {"init": "random", "lora_rank": 4}),
    ("fed_sb", "gpt2", {"init": "random", "lora_rank": 4}),
    ("ravan", "llama", {"lora_rank": 3, "num_heads": 2}),
    ("ravan", "gpt2", {"lora_rank": 3, "num_heads": 2}),
]


@pytest.mark.parametrize("clip_norm", [1e6, 0.5])
@pytest.mark.parametrize(("method", "kind", "options"), METHODS)
def test_language_models(
    language: CausalLM, examples: list[Example], method: str, kind: str, options: dict[str, Any], clip_norm: float
) -> None:
    model = small(kind, {**SMALL, "num_key_value_heads": 2} if kind == "llama" else GPT2)
    attach(model, kind, method, **options)
    assert_a_loop(model, language, examples, clip_norm, TIGHT if kind == "gpt2" else LLAMA)


def test_tied_embeddings_have_a_cross_term(language: CausalLM, examples: list[Example]) -> None:
    """GPT-2's wte is read at the bottom and at the top; without the product of both a norm is another."""
    model = small("gpt2", GPT2)
    attach(model, "gpt2", "full", target_modules=["wte"])
    assert model.lm_head.weight is model.transformer.wte.weight
    assert_a_loop(model, language, examples, 0.5)


def test_one_row(language: CausalLM, examples: list[Example]) -> None:
    model = small("gpt2", GPT2)
    attach(model, "gpt2", "full")
    assert_a_loop(model, language, examples[:1], 0.5)


def test_labels_that_fill_a_width(language: CausalLM, examples: list[Example]) -> None:
    """As many labels in all rows together as a row has tokens: positions are still positions, and labels labels."""
    rows = [
        replace(each, token_ids=each.token_ids[:5], num_prompt_tokens=p)
        for each, p in zip(examples, (3, 4, 3), strict=False)
    ]
    assert sum(len(each.token_ids) - each.num_prompt_tokens for each in rows) == 5
    model = small("gpt2", GPT2)
    attach(model, "gpt2", "full")
    assert_a_loop(model, language, rows, 0.5)


def test_blocks_that_are_computed_twice(language: CausalLM, examples: list[Example]) -> None:
    for method, options in (("fedit", {"target_modules": "all"}), ("full", {})):
        model = small("llama", SMALL)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        attach(model, "llama", method, **options)
        assert model.is_gradient_checkpointing
        assert_a_loop(model, language, examples, 0.5, LLAMA)


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("qwen2", "model"),
        ("qwen3", "model"),
        ("mistral", "model"),
        ("gemma2", ["q_proj", "input_layernorm", "norm", "down_proj"]),
    ],
)
def test_other_architectures(language: CausalLM, examples: list[Example], kind: str, targets: Any) -> None:
    """Biases of q, k and v (Qwen2), norms of heads (Qwen3), norms around 1 (Gemma 2)."""
    model = small(kind, {**SMALL, "num_key_value_heads": 2, "head_dim": 6, "pad_token_id": 0})
    attach(model, kind, "full", target_modules=targets)
    assert_a_loop(model, language, examples, 0.5, LLAMA)


@pytest.mark.parametrize("method", ["fedit", "full"])
def test_in_bfloat16(make_task: Callable[..., CausalLM], examples: list[Example], method: str) -> None:
    model = small("llama", SMALL).to(torch.bfloat16)
    parts = built(method)
    parts.attach(model, PROJECTIONS["llama"])
    for parameter in trainable(model).values():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_a_loop(model, make_task(), examples, 0.5, tolerance=0.05)


def texts(num: int, has_segments: bool) -> list[TextExample]:
    draw = torch.Generator().manual_seed(2)
    found = []
    for row in range(num):
        length = 4 + 3 * row
        tokens = tuple(torch.randint(5, 120, (length,), generator=draw).tolist())
        segments = tuple(int(place > 2) for place in range(length)) if has_segments else ()
        found.append(TextExample(token_ids=tokens, segment_ids=segments, target=row % 2, text="", truncated=False))
    return found


@pytest.mark.parametrize("method", ["fedit", "full", "fed_sb"])
@pytest.mark.parametrize("kind", ["roberta", "bert", "gpt2", "llama"])
def test_classifiers_of_texts(tokenizer: Any, kind: str, method: str) -> None:
    settings = {**(GPT2 if kind == "gpt2" else SMALL), "pad_token_id": 1, "num_labels": 2}
    model = small(kind, settings, AutoModelForSequenceClassification)
    attach(model, kind, method, **({"init": "random", "lora_rank": 4} if method == "fed_sb" else {}))
    has_segments = kind == "bert"
    task = SequenceClassification(
        tokenizer=tokenizer,
        data=DataConfig(),
        classes=("a", "b"),
        max_length_tokens=32,
        pad_id=1,
        has_segments=has_segments,
        label_smoothing=0.1,
    )
    assert_a_loop(model, task, texts(4, has_segments), 0.5, LLAMA if kind == "llama" else TIGHT)


class Pixels(ImageClassification):
    """Images that are there as the model takes them."""

    def collate(self, examples: Sequence[Any]) -> ImageBatch:
        pixel_values, targets = zip(*examples, strict=True)
        return ImageBatch(pixel_values=torch.stack(pixel_values), targets=torch.tensor(targets))


OF_SIGLIP = ["patch_embedding", "position_embedding", "fc1", "layer_norm1", "post_layernorm"]


@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [("siglip", "fedit", {}), ("siglip", "full", {"target_modules": OF_SIGLIP}), ("vit", "fedit", {})],
)
def test_classifiers_of_images(kind: str, method: str, options: dict[str, Any]) -> None:
    """SigLIP's patches are a convolution, its positions a table."""
    settings = json.loads((PUBLISHED / kind / "config.json").read_text())
    config = AutoConfig.for_model(settings.pop("model_type"))
    vision = getattr(config, "vision_config", config)
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    for name, value in {**sizes, "image_size": 16, "patch_size": 4, "hidden_dropout_prob": 0.0}.items():
        setattr(vision, name, value)
    config.num_labels = 3
    torch.manual_seed(3)
    model = AutoModelForImageClassification.from_config(config).double().train()
    attach(model, "siglip" if kind == "siglip" else "vit", method, **options)
    task = Pixels(preparation=copy, data=DataConfig(), classes=("a", "b", "c"), label_smoothing=0.1)  # type: ignore[arg-type]
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64) * torch.tensor([0.2, 1.0, 2.0, 4.0]).view(4, 1, 1, 1)
    assert_a_loop(model, task, [(image, row % 3) for row, image in enumerate(images)], 0.5)
