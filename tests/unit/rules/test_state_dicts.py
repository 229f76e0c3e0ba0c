"""Adapters in and out of peft's own state dicts, with the logits of the model for a judge."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft_folders import GPT2, LLAMA, gpt2, llama
from torch import Tensor

from fedlit import rules
from fedlit.errors import UserError

MODELS: dict[str, tuple[Callable[[], Any], list[str]]] = {"llama": (llama, LLAMA), "gpt2": (gpt2, GPT2)}
OPTIONS = [
    {"r": 4, "lora_alpha": 16},
    {"r": 8, "lora_alpha": 16, "use_rslora": True, "rank_pattern": {"0.*(v_proj|c_attn)": 3}},
    {"r": 16, "lora_alpha": 16, "alpha_pattern": {"1.*(down_proj|c_proj)": 5}},
]
WEIGHTS = [3, 2, 1]
pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")


def wrapped(model: Any, options: dict[str, Any], seed: int) -> Any:
    wrapped = get_peft_model(copy.deepcopy(model), LoraConfig(**options), autocast_adapter_dtype=False)
    torch.manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if ".lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
    return wrapped.eval()


def adapter(model: Any) -> dict[str, rules.Factors]:
    return rules.from_state_dict(get_peft_model_state_dict(model), model.peft_config["default"].to_dict())


def weights(model: Any) -> dict[str, Tensor]:
    return {name: weight.data for name, weight in copy.deepcopy(model).merge_and_unload().named_parameters()}


@pytest.mark.parametrize("kind", MODELS)
def test_the_mean_through_state_dicts_has_the_logits_of_the_mean_weights(kind: str) -> None:
    build, targets = MODELS[kind]
    model = build()
    clients = [wrapped(model, {**each, "target_modules": targets}, seed) for seed, each in enumerate(OPTIONS)]
    mean = rules.flora([adapter(client) for client in clients], WEIGHTS)
    server = wrapped(model, rules.lora_options(mean), 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = set_peft_model_state_dict(server, rules.to_state_dict(mean, dtype=torch.float64))
    assert told.unexpected_keys == []
    assert not [key for key in told.missing_keys if ".lora_" in key]
    every = [weights(client) for client in clients]
    dense = build()
    for name, parameter in dense.named_parameters():
        parameter.data = sum(w * each[name] for w, each in zip(WEIGHTS, every, strict=True)) / 6
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(server(tokens).logits, dense.eval()(tokens).logits, rtol=1e-9, atol=1e-10)
        assert float((server(tokens).logits - model.eval()(tokens).logits).abs().max()) > 0.01


def test_an_embedding_keeps_its_name() -> None:
    model = llama()
    client = wrapped(model, {"r": 4, "lora_alpha": 12, "target_modules": ["embed_tokens", "q_proj"]}, 0)
    state = get_peft_model_state_dict(client, save_embedding_layers=False)
    factors = rules.from_state_dict(state, client.peft_config["default"].to_dict())
    mean = rules.flexlora([factors, factors], [1, 2])
    again = rules.to_state_dict(mean, state, dtype=torch.float64)
    assert again.keys() == state.keys()
    server = wrapped(model, rules.lora_options(mean), 9)
    set_peft_model_state_dict(server, again)
    tokens = torch.arange(12)[None]
    torch.testing.assert_close(server(tokens).logits, client(tokens).logits, rtol=1e-9, atol=1e-10)


def test_what_is_no_factor_is_refused() -> None:
    model = wrapped(llama(), {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, 0)
    with pytest.raises(UserError, match=r"lm_head\.weight, which is no factor \(1 such\)"):
        adapter(model)
    model = wrapped(llama(), {"r": 4, "target_modules": ["embed_tokens"]}, 0)
    with pytest.raises(UserError, match=r"the backbone's own; save with .*save_embedding_layers"):
        adapter(model)
    state = get_peft_model_state_dict(wrapped(llama(), {"r": 4, "target_modules": ["q_proj"]}, 0))
    with pytest.raises(UserError, match=r"has rank 4 and adapter_config\.json says 5"):
        rules.from_state_dict(state, {"peft_type": "LORA", "r": 5, "lora_alpha": 8})
