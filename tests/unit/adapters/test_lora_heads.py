"""Ravan's adapter: what it trains and sends, where its factors come from, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fedlit.adapters import trainable
from fedlit.adapters.lora_heads import HeadsLayer, LoraHeads
from fedlit.algebra.tensors import checksum
from fedlit.config import load_config
from fedlit.errors import UserError
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS
from fedlit.seeding import torch_stream

TOKENS = torch.arange(3, 33).view(3, 10)


def attached(model: Any, **given: Any) -> LoraHeads:
    adapter = LoraHeads(**{"num_heads": 3, "lora_rank": 2, "lora_alpha": 7.0, "target_modules": "all", **given})
    with torch_stream(0, "adapter"):
        assert adapter.attach(model, PROJECTIONS[model.config.model_type]) == {}
    return adapter


def layers_of(model: Any) -> dict[str, HeadsLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, HeadsLayer)}


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(input_ids=TOKENS).logits
    return result


def test_only_the_cores_and_their_scales_train_and_travel(small_llama: Callable[..., Any]) -> None:
    model = small_llama()
    before = logits(model)
    adapter = attached(model)
    assert torch.equal(logits(model), before), "cores of zero change nothing"
    shared, parameters = adapter.shared(model), dict(model.named_parameters())
    assert shared.keys() == trainable(model).keys()
    assert {tuple(tensor.shape) for tensor in shared.values()} == {(6, 2), (3,)}
    assert all(tensor.data_ptr() == parameters[name].data_ptr() for name, tensor in shared.items())
    assert (adapter.private(model), adapter.sends, adapter.shares_backbone) == ({}, {"H"}, True)
    for layer in adapter.layers(model):
        assert {*layer.factors, layer.weight} <= parameters.keys()
        assert layer.scaling() == 3.5
        assert (parameters[str(layer.scale)] == 1).all()
        assert not parameters[str(layer.core)].any()


def test_orthogonal_heads_do_not_overlap(small_llama: Callable[..., Any]) -> None:
    """The rows of all A_h together, and the columns of all B_h, are orthonormal; layers have factors of their own."""
    model = small_llama().double()
    attached(model)
    eye = torch.eye(6, dtype=torch.float64)
    for layer in layers_of(model).values():
        torch.testing.assert_close(layer.heads_A @ layer.heads_A.T, eye, rtol=0, atol=1e-12)
        torch.testing.assert_close(layer.heads_B.T @ layer.heads_B, eye, rtol=0, atol=1e-12)
    factors = [checksum({"A": layer.heads_A, "B": layer.heads_B}) for layer in layers_of(model).values()]
    assert len(set(factors)) == len(factors)


def test_normal_heads_have_rows_of_length_one_in_the_mean(small_llama: Callable[..., Any]) -> None:
    model = small_llama()
    attached(model, init="normal", lora_rank=40, num_heads=8)
    for layer in layers_of(model).values():
        for factor in (layer.heads_A, layer.heads_B.T):
            assert float(factor.square().sum(1).mean()) == pytest.approx(1.0, abs=0.1)
            assert float(factor.mean()) == pytest.approx(0.0, abs=0.02)


def test_the_rank_of_a_change_is_that_of_all_heads(small_llama: Callable[..., Any]) -> None:
    """h r, where one core of as many numbers has sqrt(h) r."""
    model = small_llama().double()
    adapter = attached(model, num_heads=4, lora_rank=2)
    tensors = dict(model.named_parameters())
    for layer in adapter.layers(model):
        torch.nn.init.normal_(tensors[str(layer.core)])
        assert tensors[str(layer.core)].numel() == 16
        assert layer.change(tensors).rank() == 8


def test_a_coarse_backbone_has_fine_heads(small_llama: Callable[..., Any]) -> None:
    model = small_llama(dtype=torch.bfloat16)
    adapter = attached(model)
    assert {tensor.dtype for tensor in adapter.shared(model).values()} == {torch.float32}
    assert {weight.dtype for weight in adapter.merged(model).values()} == {torch.float32}
    assert logits(model).dtype == torch.bfloat16


def test_on_the_meta_device_there_are_shapes(small_llama: Callable[..., Any]) -> None:
    model = small_llama().to("meta")
    adapter = attached(model)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert {tuple(tensor.shape) for tensor in adapter.shared(model).values()} == {(6, 2), (3,)}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_heads": 0}, r"method\.num_heads=0 must be 1 or more"),
        ({"lora_rank": 0}, r"method\.lora_rank=0 must be 1 or more"),
        ({"lora_rank": [2, 3]}, r"method\.lora_rank=\[2, 3\]: heads are averaged as they are; give one number"),
        ({"lora_alpha": 0.0}, r"method\.lora_alpha=0.0 must be above 0"),
        ({"init": "constant"}, r"method\.init=constant is not known; valid are orthogonal, normal"),
        ({"num_heads": 64, "lora_rank": 9}, r"is 576, and .* orthogonal directions; lower one of them, or give"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], told: str, small_llama: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=told) as caught:
        attached(small_llama(), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["method=ravan", "method.rule=flora"],
            "needs LoRA factors A and B that travel, but method.adapter=lora_heads",
        ),
        (
            ["method=fedit", "method.transforms=[scaled_heads]"],
            "needs LoRA factors H that travel, which method.adapter=lora does not send; give method.transforms=.., or "
            "an adapter such as lora_heads",
        ),
        (["method=ravan", "method.transforms=[rotation]"], "A and B that travel, .*an adapter such as lora$"),
        (
            ["method=ravan", "local.scaffold=true", "method.optimizer=sgd"],
            "ScaledHeads changes them; give method.transforms=",
        ),
        (["method=fedask", "method.adapter=lora_train_b"], "but method.adapter=lora_train_b does not send A; "),
        (["method=fedask", "method.adapter=lora_share_a"], "does not send B; "),
        (["method=fedask", "method.lora_rank=[2,4,3]"], "has several ranks, which method.rule=fedask cannot combine"),
    ],
)
def test_parts_that_do_not_fit_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        build_method(load_config(words))
    assert "\n" not in str(caught.value)


def test_fedask_takes_the_adapter_that_trains_b_alone() -> None:
    method = build_method(load_config(["method=fedask", "method.adapter=lora_train_b_receive_a"]))
    assert (method.adapter.sends, method.adapter.receives) == ({"B"}, {"A", "B"})
