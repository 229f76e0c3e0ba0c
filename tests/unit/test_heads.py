"""A classification head is trained and travels, or stays with its client; a language model has none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import RobertaConfig, RobertaForSequenceClassification

from fedlit.adapters import trainable
from fedlit.algebra.tensors import snapshot
from fedlit.config import load_config
from fedlit.methods import Method, build_method
from fedlit.models import Projections, head_parameters
from fedlit.recipes import RECIPES

PROJECTIONS = Projections(
    attention=("query", "key", "value", "attention.output.dense"), mlp=("intermediate.dense", "output.dense")
)
TOKENS = torch.arange(5, 29).view(4, 6)


def classifier(dtype: torch.dtype = torch.float32) -> nn.Module:
    config = RobertaConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        num_labels=3,
    )
    torch.manual_seed(0)
    return RobertaForSequenceClassification(config).to(dtype).requires_grad_(False)


def attached(recipe: str, *options: str, dtype: torch.dtype = torch.float32) -> tuple[Method, Any]:
    small = ["method.galore.rank=2"] if RECIPES[recipe].optimizer.startswith("galore") else []
    small += {"lora_heads": ["method.num_heads=2"]}.get(RECIPES[recipe].adapter, [])
    method = build_method(load_config([f"method={recipe}", *small, *options]))
    model = classifier(dtype)

    def losses() -> Any:
        yield loss_of(model)

    method.attach(model, PROJECTIONS, losses)
    return method, model


def loss_of(model: nn.Module) -> Tensor:
    logits = model(input_ids=TOKENS).logits.float()
    return nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 1]))


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("private", [False, True])
def test_it_is_trained_and_travels_or_stays(recipe: str, private: bool) -> None:
    method, model = attached(recipe, f"method.private_head={str(private).lower()}")
    head = set(head_parameters(model))
    assert head == {f"classifier.{layer}.{part}" for layer in ("dense", "out_proj") for part in ("weight", "bias")}
    shared, kept = set(method.shared(model)), set(method.private(model))
    assert not shared & kept
    assert head <= (kept if private or not method.communicates else shared)
    assert shared | kept >= set(trainable(model))
    before = snapshot({name: parameter.data for name, parameter in head_parameters(model).items()})
    optimizer = method.optimizer.build(trainable(model))
    loss_of(model).backward()
    optimizer.step()
    assert all(not torch.equal(parameter, before[name]) for name, parameter in head_parameters(model).items())


def test_it_is_float32_in_a_bfloat16_backbone() -> None:
    _, model = attached("fedit", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in head_parameters(model).values()} == {torch.float32}


def test_a_language_model_has_none(small_llama: Callable[..., nn.Module]) -> None:
    assert head_parameters(small_llama()) == {}
