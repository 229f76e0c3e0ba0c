"""Which weights a dense adapter trains, in which type, and what it refuses."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from fedlit.adapters import trainable
from fedlit.adapters.dense import Dense
from fedlit.algebra.tensors import snapshot
from fedlit.client.optimizers.galore import GaLore, Projection
from fedlit.errors import UserError
from fedlit.models import PROJECTIONS, Projections

Llama = Callable[..., Any]
TOKENS = torch.arange(3, 27).view(2, 12)
GALORE: dict[str, Any] = {"rank": 4, "update_proj_gap": 2, "scale": 0.25, "proj_type": "std"}


def gpt2(dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=24, n_head=4, vocab_size=2048, eos_token_id=2, bos_token_id=1)
    return GPT2LMHeadModel(config).to(dtype).eval().requires_grad_(False)


@pytest.fixture(params=["llama", "gpt2"])
def backbone(request: pytest.FixtureRequest, small_llama: Llama) -> Any:
    return gpt2() if request.param == "gpt2" else small_llama()


def attach(model: Any, target: Any) -> Dense:
    dense = Dense(target_modules=target)
    assert dense.attach(model, PROJECTIONS[model.config.model_type]) == {}
    return dense


def train(model: Any, num_steps: int = 3) -> set[str]:
    """Step with GaLore and return the names of the parameters that moved."""
    before = snapshot(dict(model.named_parameters()))
    optimizer = GaLore(lr=0.01, galore=Projection(**GALORE)).build(trainable(model))
    for _ in range(num_steps):
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def test_only_the_up_projection_moves(backbone: Any) -> None:
    dense = attach(backbone, "up")
    expected = {
        "llama": {f"model.layers.{i}.mlp.up_proj.weight" for i in range(2)},
        "gpt2": {f"transformer.h.{i}.mlp.c_fc.{kind}" for i in range(2) for kind in ("weight", "bias")},
    }[backbone.config.model_type]
    assert dense.shared(backbone).keys() == dense.merged(backbone).keys() == expected
    assert dense.private(backbone) == {}
    assert dense.layers(backbone) == ()
    assert train(backbone) == expected


def test_the_whole_model_moves_and_tied_weights_are_one(backbone: Any) -> None:
    dense = attach(backbone, "model")
    everything = set(dict(backbone.named_parameters()))
    assert dense.shared(backbone).keys() == everything
    assert ("lm_head.weight" in everything) == (backbone.config.model_type == "llama")
    assert train(backbone) == everything


@pytest.mark.parametrize(
    ("target", "modules"),
    [
        ("qkv", {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}),
        ("attention", {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"}),
        ("mlp", {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}),
        (["down_proj", "self_attn.q_proj"], {"mlp.down_proj", "self_attn.q_proj"}),
        (["input_layernorm"], {"input_layernorm"}),
        (["mlp"], {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}),
    ],
)
def test_the_words_that_choose_modules(target: Any, modules: set[str], small_llama: Llama) -> None:
    model = small_llama()
    names = attach(model, target).shared(model).keys()
    assert names == {f"model.layers.{i}.{module}.weight" for i in range(2) for module in modules}


def test_all_is_every_linear_projection_of_the_blocks(small_llama: Llama) -> None:
    model = small_llama()
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)} - {"lm_head"}
    assert attach(model, "all").shared(model).keys() == {f"{name}.weight" for name in linear}


def test_the_tensors_are_the_live_ones(backbone: Any) -> None:
    dense = attach(backbone, "up")
    places = {name: parameter.data_ptr() for name, parameter in backbone.named_parameters()}
    for tensors in (dense.shared(backbone), dense.merged(backbone)):
        assert all(tensor.data_ptr() == places[name] and not tensor.requires_grad for name, tensor in tensors.items())


def test_what_was_trainable_before_is_frozen(small_llama: Llama) -> None:
    model = small_llama().requires_grad_(True)
    attach(model, "up")
    assert set(trainable(model)) == {f"model.layers.{i}.mlp.up_proj.weight" for i in range(2)}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("target", ["up", "model"])
def test_trained_weights_are_float32_in_a_bfloat16_backbone(kind: str, target: str, small_llama: Llama) -> None:
    """With their values; the others stay bfloat16."""
    model = gpt2(torch.bfloat16) if kind == "gpt2" else small_llama(dtype=torch.bfloat16)
    before = snapshot(dict(model.named_parameters()))
    shared = attach(model, target).shared(model)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if name in shared else torch.bfloat16)
        assert torch.equal(parameter.to(torch.bfloat16), before[name])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    gradients = [parameter.grad for parameter in trainable(model).values()]
    assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in gradients)
    if target == "model":
        model(input_ids=TOKENS)  # one type throughout: needs no autocast


def test_float64_stays(small_llama: Llama) -> None:
    model = small_llama(dtype=torch.float64)
    assert {tensor.dtype for tensor in attach(model, "up").shared(model).values()} == {torch.float64}


def test_it_attaches_on_the_meta_device(small_llama: Llama) -> None:
    """As for dry_run=true: names and shapes, no memory."""
    model = small_llama(dtype=torch.bfloat16).to("meta")
    shared = attach(model, "up").shared(model)
    assert {(tuple(tensor.shape), tensor.dtype, tensor.device.type) for tensor in shared.values()} == {
        ((40, 24), torch.float32, "meta")
    }


def test_up_is_the_projection_beside_or_before_the_down_projection() -> None:
    words = {kind: Dense()._targets(projections) for kind, projections in PROJECTIONS.items()}
    assert words["llama"] == ("up_proj",)
    assert words["gpt2"] == ("mlp.c_fc",)
    assert words["opt"] == ("fc1",)
    assert words["phi3"] == ("gate_up_proj",)
    assert words["gpt_neox"] == ("dense_h_to_4h",)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("upp", "method.target_modules=upp is not known; valid are qkv, attention, mlp, all or a list of names; "
                "a dense adapter also knows up and model"),
        (["q_proj", "up_porj"], "method.target_modules=['q_proj', 'up_porj']: this model has no module up_porj"),
        (["act_fn"], "this model has no module act_fn with parameters"),
        (["proj"], "this model has no module proj with parameters"),
        (["up_proj.weight"], "this model has no module up_proj.weight"),
    ],
)  # fmt: skip
def test_a_misspelt_target_is_refused(target: Any, message: str, small_llama: Llama) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        attach(small_llama(), target)
    assert "\n" not in str(raised.value)


def test_an_mlp_without_an_up_projection_is_refused(small_llama: Llama) -> None:
    with pytest.raises(UserError, match=re.escape("method.target_modules=up, but the MLP is ['fc']; name it with")):
        Dense().attach(small_llama(), Projections(attention=("q", "o"), mlp=("fc",)))
