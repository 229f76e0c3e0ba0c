"""Weights that modules share are told, and become their own with the same values, in the files too."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

from fedlit.models import any_tied, untie

HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}
LLAMA = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 24, "vocab_size": 64, **HEADS}
CONFIGS = {
    "llama": LlamaConfig(**LLAMA, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**LLAMA, tie_word_embeddings=True),
    "gpt2": GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=64, n_positions=32),
}
TOKENS = torch.arange(20).view(2, 10)


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_untied_model_is_the_same_function_with_weights_of_its_own(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(CONFIGS[kind]).eval().requires_grad_(False)
    before = model(input_ids=TOKENS).logits
    embedding = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
    assert any_tied(model, ["lm_head"])
    assert any_tied(model, [embedding])
    untie(model)
    assert not any_tied(model, ["lm_head"])
    assert torch.equal(model(input_ids=TOKENS).logits, before)
    assert not model.lm_head.weight.requires_grad
    model.lm_head.weight.data *= 2
    model.tie_weights()
    after = model(input_ids=TOKENS).logits
    assert torch.equal(after, 2 * before), "nothing ties them again"
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(loaded.eval()(input_ids=TOKENS).logits, after)


def test_what_is_not_tied_stays_as_it_is() -> None:
    model: Any = AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA))
    parameters = {name: id(parameter) for name, parameter in model.named_parameters()}
    assert not any_tied(model, ["lm_head"])
    untie(model)
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == parameters
