"""Gradient checkpointing: less memory and nothing else, gradients and dropout included."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_encoders import losses_of, purpose_of, write_folder
from torch import Tensor, nn
from transformers import AlbertConfig, AlbertForSequenceClassification

from fedlit.adapters import Adapter, trainable
from fedlit.adapters.dense import Dense
from fedlit.adapters.lora import Lora
from fedlit.adapters.lora_core import LoraCore
from fedlit.adapters.scl import Scl
from fedlit.config import ModelConfig
from fedlit.errors import UserError
from fedlit.models import Purpose, load_backbone
from fedlit.seeding import torch_stream

TOKENS = torch.arange(3, 43).view(2, 20)
ADAPTERS: dict[str, Callable[[], Adapter]] = {
    "lora": lambda: Lora(lora_rank=2, lora_dropout=0.3, target_modules="all"),
    "core": lambda: LoraCore(lora_rank=2, init="random"),
    "scl": lambda: Scl(compression_dim=3),
    "up": Dense,
    "model": lambda: Dense(target_modules="model"),
}


def gradients(
    config: ModelConfig, adapter: Adapter, purpose: Purpose, loss_of: Callable[[Any], Tensor], *, checkpoints: bool
) -> tuple[dict[str, Tensor], int, Tensor]:
    """Return the gradients of one step, how many values autograd saved, and the next random number."""
    config = ModelConfig(**{**vars(config), "gradient_checkpointing": checkpoints})
    backbone = load_backbone(config, purpose)
    model = backbone.model
    with torch_stream(0, "adapter"):
        adapter.attach(model, backbone.projections)
        for parameter in trainable(model).values():
            nn.init.normal_(parameter, std=0.1)
    model.train()
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += 0 if isinstance(tensor, nn.Parameter) else tensor.numel()
        return tensor

    with torch_stream(0, "dropout"):
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = loss_of(model)
        kept, saved = saved, 0
        loss.backward()
        after = torch.rand(1)
    found = {name: parameter.grad for name, parameter in trainable(model).items() if parameter.grad is not None}
    return found, kept, after


def same_with_less_memory(
    config: ModelConfig, adapter: Adapter, purpose: Purpose, loss_of: Callable[[Any], Tensor]
) -> None:
    plain, much, number = gradients(config, adapter, purpose, loss_of, checkpoints=False)
    again, little, same_number = gradients(config, adapter, purpose, loss_of, checkpoints=True)
    assert again.keys() == plain.keys() != set()
    assert all(torch.equal(again[name], gradient) for name, gradient in plain.items())
    assert torch.equal(number, same_number), "the stream goes on where it would have"
    assert little < 0.7 * much


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_language_model_has_the_same_gradients(name: str) -> None:
    config = ModelConfig()
    same_with_less_memory(
        config,
        ADAPTERS[name](),
        Purpose(),
        lambda model: model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss,
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["roberta", "vit", "siglip"])
def test_an_encoder_has_the_same_gradients(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    """With the dropout of its own, drawn twice alike; RoBERTa's is 0.1 by default."""
    given = {"hidden_dropout_prob": 0.2} if kind == "vit" else {}
    folder = write_folder(kind, tmp_path / kind, tokenizer, **given)
    config = ModelConfig(path=str(folder), max_length_tokens=32)
    same_with_less_memory(
        config,
        ADAPTERS["lora"](),
        purpose_of(kind),
        lambda model: next(losses_of(model, kind)()),
    )


def test_an_architecture_that_cannot_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    config = AlbertConfig(
        vocab_size=2048, hidden_size=16, num_attention_heads=2, intermediate_size=24, embedding_size=8
    )
    AlbertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    given = ModelConfig(path=str(tmp_path), gradient_checkpointing=True)
    with pytest.raises(UserError, match=r"gradient_checkpointing=true is not possible with architecture albert"):
        load_backbone(given, purpose_of("bert"))
