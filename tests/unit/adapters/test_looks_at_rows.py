"""Which adapters make their first tensors from clients' rows: found by attaching them with calibration batches."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fedlit.config import load_config
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS
from fedlit.recipes import RECIPES
from fedlit.seeding import torch_stream

OPTIONS = [
    *([recipe] for recipe in sorted(RECIPES)),
    *(["fed_sb", f"method.init={init}"] for init in ("gradient", "weights", "random")),
    *(["scl", f"method.init={init}"] for init in ("svd", "whitened")),
]


@pytest.mark.parametrize("words", OPTIONS, ids=" ".join)
def test_an_adapter_says_whether_rows_make_its_first_tensors(words: list[str]) -> None:
    small = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    method = build_method(
        load_config(
            [f"method={words[0]}", *words[1:], *(["method.lora_rank=2"] if "lora" in _adapter(words[0]) else [])]
        )
    )

    def attached(tokens: Any) -> dict[str, Any]:
        with torch_stream(0, "model"):
            model = LlamaForCausalLM(small)
        with torch_stream(0, "adapter"):
            method.adapter.attach(
                model, PROJECTIONS["llama"], lambda: iter([model(input_ids=tokens, labels=tokens).loss])
            )
        return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    one, other = (attached((torch.arange(20).view(2, 10) * step) % 32) for step in (1, 7))
    differ = any(not torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert method.adapter.looks_at_rows == differ


def _adapter(recipe: str) -> str:
    return RECIPES[recipe].adapter
