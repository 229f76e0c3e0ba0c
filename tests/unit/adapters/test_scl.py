"""Which layers SCL replaces, what it trains and sends, what it reports, and how it leaves the house."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    SiglipConfig,
    SiglipForImageClassification,
)

from fedlit.adapters import trainable
from fedlit.adapters.scl import INITS, CompressedLinear, Scl
from fedlit.algebra.tensors import checksum, num_parameters, snapshot
from fedlit.errors import UserError
from fedlit.models import PROJECTIONS, Projections
from fedlit.seeding import torch_stream

HIDDEN, INNER, DIM = 24, 40, 5
TOKENS = torch.arange(3, 33).view(3, 10)
PIXELS = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BERT = Projections(
    attention=("self.query", "self.key", "self.value", "attention.output.dense"),
    mlp=("intermediate.dense", "output.dense"),
)
VISION = Projections(attention=("q_proj", "k_proj", "v_proj", "out_proj"), mlp=("fc1", "fc2"))


def llama() -> Any:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


def gpt2() -> Any:
    config = GPT2Config(
        n_layer=2, n_embd=HIDDEN, n_inner=INNER, n_head=4, vocab_size=64, initializer_range=0.3, eos_token_id=2
    )
    return GPT2LMHeadModel(config)


def roberta() -> Any:
    config = RobertaConfig(
        vocab_size=64,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    return RobertaForMaskedLM(config)


def siglip() -> Any:
    vision = {
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 8,
        "patch_size": 4,
    }
    return SiglipForImageClassification(SiglipConfig(vision_config=vision, num_labels=3))


MODELS: dict[str, tuple[Callable[[], Any], Projections, str]] = {
    "llama": (llama, PROJECTIONS["llama"], "model.layers.{}.mlp.down_proj"),
    "gpt2": (gpt2, PROJECTIONS["gpt2"], "transformer.h.{}.mlp.c_proj"),
    "roberta": (roberta, BERT, "roberta.encoder.layer.{}.output.dense"),
    "siglip": (siglip, VISION, "vision_model.encoder.layers.{}.mlp.fc2"),
}


def build(kind: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Any:
    """Return a frozen random model whose biases are not zero."""
    with torch_stream(seed, "model"):
        model = MODELS[kind][0]().eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return model.to(dtype)


def attach(model: Any, kind: str, calibration: Any = None, seed: int = 0, **given: Any) -> dict[str, float]:
    with torch_stream(seed, "adapter"):
        return Scl(**{"compression_dim": DIM, **given}).attach(model, MODELS[kind][1], calibration)


def outputs(model: Any) -> Tensor:
    with torch.no_grad():
        if model.config.model_type == "siglip":
            return model(pixel_values=PIXELS.to(model.dtype)).logits
        return model(input_ids=TOKENS).logits


def batches_of(model: Any) -> Callable[[], Iterator[Tensor]]:
    """Return calibration batches of unequal sizes."""

    def calibration() -> Iterator[Tensor]:
        for batch in (TOKENS, TOKENS[:2, :7].flip(1)):
            yield model(input_ids=batch, labels=batch).loss

    return calibration


@torch.no_grad()
def mean_loss(model: Any) -> float:
    return sum(map(float, batches_of(model)())) / 2


def weight_of(layer: nn.Module) -> Tensor:
    """Return W (m, M) of a linear layer or of GPT-2's Conv1D."""
    assert isinstance(layer.weight, Tensor)
    return layer.weight if isinstance(layer, nn.Linear) else layer.weight.T


def paths(kind: str) -> list[str]:
    return [MODELS[kind][2].format(block) for block in range(2)]


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_replaced_trained_and_shared(kind: str) -> None:
    """The down projections and nothing of a like name: no attention output, no pooling head."""
    model = build(kind, torch.float32)
    before = snapshot(dict(model.named_parameters()))
    attach(model, kind)
    assert [name for name, module in model.named_modules() if isinstance(module, CompressedLinear)] == paths(kind)
    expected = {f"{path}.{part}.weight" for path in paths(kind) for part in ("compression", "projection")}
    scl = Scl(compression_dim=DIM)
    shared = scl.shared(model)
    assert trainable(model).keys() == shared.keys() == expected
    assert scl.private(model) == {}
    assert (scl.layers(model), scl.sends) == ((), frozenset())
    parameters = dict(model.named_parameters())
    assert all(value.data_ptr() == parameters[name].data_ptr() for name, value in shared.items())
    for path in paths(kind):
        assert shared[f"{path}.compression.weight"].shape == (DIM, INNER)
        assert shared[f"{path}.projection.weight"].shape == (HIDDEN, DIM)
        assert f"{path}.compression.bias" not in parameters
        has_bias = f"{path}.bias" in before
        assert has_bias == (kind != "llama")
        if has_bias:
            assert torch.equal(parameters[f"{path}.projection.bias"], before[f"{path}.bias"])
    untouched = {name for name in before if not name.startswith(tuple(paths(kind)))}
    assert untouched == {name for name in parameters if not name.startswith(tuple(paths(kind)))}
    assert all(torch.equal(before[name], parameters[name]) for name in untouched)


@pytest.mark.parametrize("init", ["gaussian", "svd"])
@pytest.mark.parametrize("kind", MODELS)
def test_at_first_the_model_is_the_one_with_projected_weights(kind: str, init: str) -> None:
    """The reference is the pretrained model with W W_c^+ W_c, by torch.linalg.pinv, in its layers' own layout."""
    model = build(kind)
    reference = copy.deepcopy(model)
    attach(model, kind, init=init)
    for path in paths(kind):
        w_c = model.get_submodule(path).compression.weight.detach()
        layer = reference.get_submodule(path)
        weight = weight_of(layer)
        product = weight @ torch.linalg.pinv(w_c) @ w_c
        layer.weight.copy_(product if isinstance(layer, nn.Linear) else product.T)
    torch.testing.assert_close(outputs(model), outputs(reference), rtol=1e-9, atol=1e-9)
    assert (outputs(model) - outputs(build(kind))).abs().max() > 1e-3


@pytest.mark.parametrize("kind", MODELS)
def test_as_many_as_the_inputs_lose_nothing(kind: str) -> None:
    model = build(kind)
    plain = outputs(model)
    facts = attach(model, kind, compression_dim=INNER)
    torch.testing.assert_close(outputs(model), plain, rtol=1e-7, atol=1e-7)
    assert facts == {"init/weight_error": pytest.approx(0, abs=1e-9)}


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_merged_loads_into_the_pretrained_architecture(kind: str) -> None:
    """After training, in float64: names, layout and type are the pretrained ones, and the outputs the same."""
    model, plain = build(kind), build(kind)
    attach(model, kind)
    with torch_stream(0, "training"), torch.no_grad():
        for value in Scl().shared(model).values():
            value.add_(0.1 * torch.randn_like(value))
    merged = Scl().merged(model)
    assert list(merged) == [f"{path}.weight" for path in paths(kind)]
    stored = dict(plain.named_parameters())
    assert all(value.shape == stored[name].shape for name, value in merged.items())
    assert all(value.is_contiguous() and not value.requires_grad for value in merged.values())
    incompatible = plain.load_state_dict(merged, strict=False)
    assert incompatible.unexpected_keys == []
    torch.testing.assert_close(outputs(plain), outputs(model), rtol=1e-9, atol=1e-9)
    assert (outputs(plain) - outputs(build(kind))).abs().max() > 1e-3


def test_both_layers_train_and_nothing_else() -> None:
    model = build("gpt2")
    attach(model, "gpt2")
    parameters = dict(model.named_parameters())
    before = {name: checksum({"": value}) for name, value in parameters.items()}
    optimizer = torch.optim.AdamW(list(parameters.values()), lr=0.01, weight_decay=0.5)  # even one that is given all
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    optimizer.step()
    changed = {name for name, value in parameters.items() if checksum({"": value}) != before[name]}
    assert changed == trainable(model).keys()


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_half_precision_backbone_gets_single_precision_layers(kind: str, init: str) -> None:
    model = build(kind, torch.bfloat16)
    weight = weight_of(model.get_submodule(paths(kind)[0])).clone()
    facts = attach(model, kind, batches_of(model), init=init)
    assert all(math.isfinite(value) for value in facts.values())
    layer = model.get_submodule(paths(kind)[0])
    assert {value.dtype for value in trainable(model).values()} == {torch.float32}
    assert outputs(model).dtype == torch.bfloat16
    x = torch.linspace(-2, 2, 4 * 2 * INNER, dtype=torch.bfloat16).view(4, 2, INNER).sin()
    exact = x.float() @ (layer.projection.weight @ layer.compression.weight).T
    exact = exact if layer.projection.bias is None else exact + layer.projection.bias
    torch.testing.assert_close(layer(x), exact.bfloat16())
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    assert {value.grad.dtype for value in trainable(model).values()} == {torch.float32}
    merged = Scl().merged(model)
    assert {value.dtype for value in merged.values()} == {torch.bfloat16}
    if init == "svd":
        lost = weight.float() - (layer.projection.weight @ layer.compression.weight).detach()
        assert float(lost.norm()) == pytest.approx(float(torch.linalg.svdvals(weight.double())[DIM:].norm()), rel=1e-5)


@pytest.mark.parametrize("init", INITS)
def test_the_report_is_that_of_the_pretrained_model_s_inputs(init: str) -> None:
    """Errors from all inputs side by side, losses from the two models run again."""
    model = build("gpt2")
    plain = copy.deepcopy(model)
    inputs: dict[str, list[Tensor]] = {path: [] for path in paths("gpt2")}
    for path, seen in inputs.items():
        plain.get_submodule(path).register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
    loss_before = mean_loss(plain)
    facts = attach(model, "gpt2", batches_of(model), init=init)
    lost: dict[str, list[float]] = {"weight": [], "output": []}
    for path, seen in inputs.items():
        w, layer = weight_of(plain.get_submodule(path)), model.get_submodule(path)
        change = (w - layer.projection.weight @ layer.compression.weight).detach()
        x = torch.cat([part.reshape(-1, INNER) for part in seen])
        assert len(x) == 30 + 14
        lost["weight"].append(float(change.norm() / w.norm()))
        lost["output"].append(float((x @ change.T).norm() / (x @ w.T).norm()))
    assert facts == {
        "init/weight_error": pytest.approx(sum(lost["weight"]) / 2, rel=1e-9),
        "init/output_error": pytest.approx(sum(lost["output"]) / 2, rel=1e-9),
        "init/loss_before": pytest.approx(loss_before, rel=1e-12),
        "init/loss_after": pytest.approx(mean_loss(model), rel=1e-12),
    }
    assert facts["init/loss_before"] != facts["init/loss_after"]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_calibration_leaves_no_gradient_and_draws_nothing() -> None:
    """The first W_c is the same with batches and without."""
    model, other = build("llama"), build("llama")
    attach(model, "llama", batches_of(model))
    attach(other, "llama")
    assert checksum(Scl().shared(model)) == checksum(Scl().shared(other))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_better_initialisations_lose_less() -> None:
    facts = {}
    for init in INITS:
        model = build("llama")
        facts[init] = attach(model, "llama", batches_of(model), init=init)
    weight_errors = {init: values["init/weight_error"] for init, values in facts.items()}
    output_errors = {init: values["init/output_error"] for init, values in facts.items()}
    assert min(weight_errors, key=lambda init: weight_errors[init]) == "svd"
    assert output_errors["whitened"] < 0.95 * output_errors["svd"] < output_errors["gaussian"]
    assert weight_errors["gaussian"] == pytest.approx(math.sqrt(1 - DIM / INNER), abs=0.05)


def test_the_same_stream_gives_the_same_layers_everywhere() -> None:
    def first(seed: int) -> dict[str, Tensor]:
        model = build("llama", torch.float32)
        attach(model, "llama", seed=seed)
        return Scl().shared(model)

    drawn = first(0)
    assert checksum(drawn) == checksum(first(0)) != checksum(first(1))
    assert len({checksum({"": value}) for value in drawn.values()}) == len(drawn), "every layer has its own"


@pytest.mark.parametrize("init", INITS)
def test_tinyllama_on_the_meta_device_has_the_parameters_of_lora(init: str) -> None:
    """22 * 9 * (5632 + 2048) = 1,520,640; LoRA of rank 8 on q, k and v has 1,531,904."""
    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=32000,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    scl = Scl(init=init)
    assert scl.attach(model, PROJECTIONS["llama"]) == {}
    assert num_parameters(trainable(model)) == num_parameters(scl.shared(model)) == 1_520_640
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert {value.dtype for value in scl.shared(model).values()} == {torch.float32}


@pytest.mark.parametrize("given", [{"compression_dim": 0}, {"compression_dim": -3}, {"init": "random"}])
def test_a_value_out_of_range(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"method\.{next(iter(given))}="):
        Scl(**given)


def one_line_of(caught: pytest.ExceptionInfo[UserError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_more_than_the_layer_s_inputs_is_an_error() -> None:
    model = build("llama")
    with pytest.raises(UserError) as caught:
        attach(model, "llama", compression_dim=INNER + 1)
    assert all(part in one_line_of(caught) for part in ("compression_dim=41", "40 inputs", paths("llama")[0]))
    assert not any(isinstance(module, CompressedLinear) for module in model.modules())


def test_whitened_without_batches_is_an_error() -> None:
    with pytest.raises(UserError) as caught:
        attach(build("llama"), "llama", init="whitened")
    assert "method.init=whitened" in one_line_of(caught)


@pytest.mark.parametrize("mlp", [("up_proj", "down_prjo"), ("up_prjo", "down_proj"), ("up_proj", "act_fn")])
def test_names_that_the_model_lacks_are_an_error(mlp: tuple[str, ...]) -> None:
    """Also one that exists and is no linear layer."""
    with pytest.raises(UserError) as caught:
        Scl().attach(build("llama"), Projections(attention=("q_proj",), mlp=mlp))
    assert all(name in one_line_of(caught) for name in mlp)
