"""A layer's factors as a change of its weight: ranks, scaling, layout, and what a server folds beside its weights."""

import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from factor_rounds import SHAPES, close, dense_weight, make_layers, make_server, random_factors, seeded
from peft import LoraConfig, get_peft_model
from torch import nn

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.merging import added
from fedlit.round.server import ServerState


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
def test_what_is_folded_stands_beside_the_weight_as_out_by_in(transposed: bool) -> None:
    layers = make_layers(transposed=transposed)
    server = make_server(layers, seeded())
    changes = {layer.name: layer.change(server.shared) for layer in layers[:2]}
    after = server.fold(changes)
    for layer in layers[:2]:
        assert close(dense_weight(layer, after), dense_weight(layer, server) + changes[layer.name].dense(), 1e-13)
        held = after.change(layer)
        assert held is not None
        assert close(held.dense(), dense_weight(layer, after), 1e-13)
    last = layers[2]
    name = f"{last.weight}/left"
    assert after.frozen[name] is server.frozen[name], "a layer without a change keeps its own"
    assert after.changes().keys() == {layer.name for layer in layers}
    assert after.folded.keys() == changes.keys()
    assert after.shared is server.shared


def test_a_fold_leaves_the_server_before_it_as_it_was() -> None:
    layers = make_layers()
    server = make_server(layers, seeded())
    before = {name: weight.clone() for name, weight in server.frozen.items()}
    server.fold({layer.name: layer.change(server.shared) for layer in layers})
    assert all(torch.equal(server.frozen[name], weight) for name, weight in before.items())
    assert not server.folded


def small_changes(
    layers: Sequence[LoraLayer], shapes: Sequence[tuple[int, int]] = SHAPES, size: float = 1e-5
) -> Iterator[dict[str, LowRank]]:
    """Yield 30 changes of rank 2 of every layer, of root mean square `size`."""
    generator = seeded()
    for _ in range(30):
        yield {
            layer.name: LowRank(
                torch.randn(num_out, 2, generator=generator, dtype=torch.float64),
                torch.randn(2, num_in, generator=generator, dtype=torch.float64) * size / 2**0.5,
            )
            for layer, (num_out, num_in) in zip(layers, shapes, strict=True)
        }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_changes_add_up_beside_the_weight(dtype: torch.dtype) -> None:
    """30 of them against the sum in float64: as factors first, dense later; what a round changed is told to the bit."""
    layers = make_layers()
    server = ServerState(shared=random_factors(layers, seeded(), dtype=dtype), layers=layers)
    exact = {layer.name: torch.zeros(shape, dtype=torch.float64) for layer, shape in zip(layers, SHAPES, strict=True)}
    shapes_seen = set()
    for changes in small_changes(layers):
        before, server = server, server.fold(changes)
        for layer in layers:
            exact[layer.name] += changes[layer.name].dense()
            held, told = server.change(layer), server.folded[layer.name].dense()
            assert held is not None
            assert {part.dtype for part in held.parts.values()} == {dtype}
            shapes_seen |= {(layer.name, tuple(held.parts))}
            assert held.num_bytes <= exact[layer.name].numel() * dtype.itemsize, "never more than a dense matrix"
            old = before.change(layer)
            difference = held.to(torch.float64).dense() - (0 if old is None else old.to(torch.float64).dense())
            assert close(told, difference, 1e-16)
            missed = float((held.to(torch.float64).dense() - exact[layer.name]).norm() / exact[layer.name].norm())
            assert missed < 2 * torch.finfo(dtype).eps
    assert shapes_seen >= {("m1", ("left", "right")), ("m1", ("rest",))}


def test_a_weight_in_bfloat16_does_not_add_them_up() -> None:
    """Why they stand beside it: of 30 changes of 1e-5 to weights of 0.05, more than half is lost."""
    (layer,) = make_layers(shapes=SHAPES[1:2])
    weight = (torch.randn(SHAPES[1], generator=seeded()) * 0.05).bfloat16()
    start, exact = weight.double(), weight.double()
    for changes in small_changes([layer], SHAPES[1:2]):
        weight, exact = added(weight, changes["m0"]), exact + changes["m0"].dense()
    assert (weight.double() - exact).norm() > 0.5 * (exact - start).norm()


def test_what_cancels_takes_no_room() -> None:
    """Products that are folded in one round and taken out in the next, as FedEx's `keep` does."""
    (layer,) = make_layers(3, shapes=[(40, 30)])
    server = ServerState(shared=random_factors([layer], seeded(), shapes=[(40, 30)]), layers=(layer,))
    generator = seeded(4)
    last: LowRank | None = None
    for _ in range(40):
        factors = random_factors([layer], generator, shapes=[(40, 30)])
        new = layer.change(factors)
        server, last = server.fold({layer.name: new if last is None else new - last}), new
        held = server.change(layer)
        assert held is not None
        assert "rest" not in held.parts
        assert close(held.dense(), new.dense(), 1e-9)
    assert held.width * (40 + 30) <= 40 * 30
