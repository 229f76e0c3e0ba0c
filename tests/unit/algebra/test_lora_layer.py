"""A layer's factors as a change of its weight: ranks, scaling, layout, and what a server folds into its masters."""

import math

import pytest
import torch
from factor_rounds import close, dense_weight, make_layers, make_server, random_factors, seeded
from peft import LoraConfig, get_peft_model
from torch import nn

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.merging import added


def test_the_scaling_is_alpha_over_the_rank_of_whoever_uses_the_factors() -> None:
    (layer,) = make_layers(6, 7.0, shapes=[(5, 4)], client_ranks=(2, 6, 3))
    assert [layer.rank_of(client_id) for client_id in (0, 1, 2, None)] == [2, 6, 3, 6]
    assert [layer.scaling(client_id) for client_id in (0, 1, 2, None)] == [7 / 2, 7 / 6, 7 / 3, 7 / 6]
    (layer,) = make_layers(6, 7.0, shapes=[(5, 4)])
    assert layer.scaling(3) == layer.scaling() == 7 / 6
    (layer,) = make_layers(6, 7.0, shapes=[(5, 4)], client_ranks=(2, 6), use_rslora=True)
    assert layer.scaling(0) == 7 / math.sqrt(2)
    assert layer.scaling() == 7 / math.sqrt(6)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_the_change_is_what_peft_adds_to_the_weight(use_rslora: bool) -> None:
    """(out, in) = (7, 5) whether W is stored so (nn.Linear) or as (in, out) (transformers' Conv1D)."""
    base = nn.Sequential(nn.Linear(5, 7, bias=False)).double()
    config = LoraConfig(r=3, lora_alpha=7, use_rslora=use_rslora, target_modules=["0"], init_lora_weights=False)
    model = get_peft_model(base, config).double()
    module = model.base_model.model[0]
    (layer,) = make_layers(3, 7.0, shapes=[(7, 5)], use_rslora=use_rslora)
    tensors = {layer.a: module.lora_A["default"].weight.data, layer.b: module.lora_B["default"].weight.data}
    expected = module.get_delta_weight("default")
    assert close(layer.change(tensors).dense(), expected, 1e-14)
    assert torch.equal(layer.oriented(layer.change(tensors)).dense(), layer.change(tensors).dense())
    (conv1d,) = make_layers(3, 7.0, shapes=[(7, 5)], use_rslora=use_rslora, transposed=True)
    assert close(conv1d.oriented(conv1d.change(tensors)).dense(), expected.T, 1e-14)


def test_the_change_of_a_layer_with_a_core() -> None:
    layer = LoraLayer(name="m", a="A", b="B", core="C", weight="W", rank=3, alpha=7.0)
    assert layer.factors == ("A", "B", "C")
    generator = seeded()
    tensors = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in {"A": (3, 5), "B": (7, 3), "C": (3, 3)}.items()
    }
    assert close(layer.change(tensors).dense(), 7 / 3 * tensors["B"] @ tensors["C"] @ tensors["A"], 1e-14)


def test_single_precision_factors_are_multiplied_in_double() -> None:
    (layer,) = make_layers(3, 7.0, shapes=[(7, 5)])
    tensors = random_factors([layer], seeded(), shapes=[(7, 5)], dtype=torch.float32)
    change = layer.change(tensors)
    assert change.left.dtype == change.right.dtype == torch.float64
    exact = 7 / 3 * tensors[layer.b].double() @ tensors[layer.a].double()
    assert close(change.dense(), exact, 1e-14)


@pytest.mark.parametrize("transposed", [False, True])
def test_what_is_folded_lands_in_the_stored_layout(transposed: bool) -> None:
    layers = make_layers(transposed=transposed)
    server = make_server(layers, seeded())
    changes = {layer.name: layer.change(server.shared) for layer in layers[:2]}
    after = server.fold(changes)
    for layer in layers[:2]:
        assert close(dense_weight(layer, after), dense_weight(layer, server) + changes[layer.name].dense(), 1e-13)
    assert after.frozen[layers[2].weight] is server.frozen[layers[2].weight], "a layer without a change keeps its own"
    assert after.folded == changes
    assert after.shared is server.shared


def test_a_fold_leaves_the_server_before_it_as_it_was() -> None:
    layers = make_layers()
    server = make_server(layers, seeded())
    before = {name: weight.clone() for name, weight in server.frozen.items()}
    server.fold({layer.name: layer.change(server.shared) for layer in layers})
    assert all(torch.equal(server.frozen[name], weight) for name, weight in before.items())
    assert not server.folded


@pytest.mark.parametrize(("dtype", "holds"), [(torch.float32, True), (torch.bfloat16, False)])
def test_only_a_master_adds_up_small_changes(dtype: torch.dtype, holds: bool) -> None:
    """30 residuals of root mean square 1e-5 into weights of 0.05, against the sum in float64."""
    generator = seeded()
    start = (torch.randn(40, 24, generator=generator) * 0.05).bfloat16()
    weight, exact = start.to(dtype), start.double()
    for _ in range(30):
        left = torch.randn(40, 6, generator=generator, dtype=torch.float64)
        change = LowRank(left, torch.randn(6, 24, generator=generator, dtype=torch.float64) * 1e-5 / 6**0.5)
        weight = added(weight, change)
        exact = exact + change.dense()
    assert weight.dtype == dtype
    moved = (exact - start.double()).norm()
    lost = float((weight.double() - exact).norm() / moved)
    assert (lost < 1e-3) is holds, lost
    assert holds or lost > 0.5, "most of it is lost"
