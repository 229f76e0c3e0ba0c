"""Fed-SB's adapter: what it trains and sends, where its factors come from, and that the mean of cores is exact."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from fedlit.adapters import lora_core, trainable
from fedlit.adapters.lora_core import CoreLayer, LoraCore
from fedlit.algebra.tensors import checksum, snapshot
from fedlit.errors import UserError
from fedlit.models import PROJECTIONS
from fedlit.seeding import torch_stream

RANK, ALPHA, LR = 3, 7.0, 0.01
TOKENS = torch.arange(3, 33).view(3, 10)
OTHERS = ("gradient", "weights", "random")


def gpt2(**_given: Any) -> Any:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=24, n_head=4, vocab_size=2048, initializer_range=0.3, eos_token_id=2)
    return GPT2LMHeadModel(config).requires_grad_(False)


@pytest.fixture(params=["llama", "gpt2"])
def backbone(request: pytest.FixtureRequest, small_llama: Callable[..., Any]) -> Any:
    return (gpt2() if request.param == "gpt2" else small_llama()).double().eval()


def calibration(model: Any, batches: int = 2) -> Callable[[], Iterator[Tensor]]:
    def losses() -> Iterator[Tensor]:
        for batch in range(batches):
            tokens = TOKENS + 40 * batch
            yield model(input_ids=tokens, labels=tokens).loss

    return losses


def attached(model: Any, **given: Any) -> tuple[LoraCore, dict[str, float]]:
    adapter = LoraCore(**{"lora_rank": RANK, "lora_alpha": ALPHA, "target_modules": "all", "lr": LR, **given})
    with torch_stream(0, "adapter"):
        return adapter, adapter.attach(model, PROJECTIONS[model.config.model_type], calibration(model))


def mean_gradients(model: Any) -> dict[str, Tensor]:
    """By torch.autograd on a copy of its own."""
    model = copy.deepcopy(model).requires_grad_(True)
    weights = dict(model.named_parameters())
    loss = sum(calibration(model)()) / 2
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(input_ids=TOKENS).logits


def randomise(model: Any, seed: int = 1) -> None:
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("sb_C"):
            parameter.data = torch.randn_like(parameter) * 0.2


def test_only_the_cores_train_and_travel(backbone: Any) -> None:
    plain = dict(backbone.named_parameters())
    shapes = {name: weight.shape for name, weight in plain.items()}
    adapter, _ = attached(backbone)
    parameters = dict(backbone.named_parameters())
    shared = adapter.shared(backbone)
    assert shared.keys() == trainable(backbone).keys()
    assert all(name.endswith(".sb_C") and core.shape == (RANK, RANK) for name, core in shared.items())
    assert all(core.data_ptr() == parameters[name].data_ptr() for name, core in shared.items())
    assert adapter.private(backbone) == {}
    assert adapter.sends == frozenset()
    layers = adapter.layers(backbone)
    assert len(layers) == len(shared) == 2 * (4 if _is_gpt2(backbone) else 7)
    for layer in layers:
        assert {layer.a, layer.b, layer.core, layer.weight} <= parameters.keys()
        assert parameters[layer.weight] is plain[f"{layer.name}.weight"]
        assert layer.scaling() == ALPHA / RANK
        assert layer.transposed == _is_gpt2(backbone)
    restored = {name.replace(".base_layer", "") for name in parameters if ".sb_" not in name}
    assert restored == shapes.keys()


def _is_gpt2(model: Any) -> bool:
    return bool(model.config.model_type == "gpt2")


def test_the_adapted_model_is_w_plus_scaled_b_c_a(backbone: Any) -> None:
    plain = copy.deepcopy(backbone)
    adapter, _ = attached(backbone, init="random")
    torch.testing.assert_close(logits(backbone), logits(plain), rtol=0, atol=0)
    randomise(backbone)
    tensors, merged = dict(backbone.named_parameters()), adapter.merged(backbone)
    weights = dict(plain.named_parameters())
    assert len(merged) == len(adapter.layers(backbone))
    for layer in adapter.layers(backbone):
        b, c, a = (tensors[f"{layer.name}.sb_{factor}"].data for factor in "BCA")
        change = ALPHA / RANK * b @ c @ a
        expected = weights[f"{layer.name}.weight"] + (change.T if _is_gpt2(backbone) else change)
        torch.testing.assert_close(merged[f"{layer.name}.weight"], expected, rtol=1e-12, atol=1e-12)
        weights[f"{layer.name}.weight"].data = expected
    torch.testing.assert_close(logits(backbone), logits(plain), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("init", ["update", *OTHERS])
def test_the_frozen_factors_are_orthonormal(backbone: Any, init: str) -> None:
    attached(backbone, init=init)
    eye = torch.eye(RANK, dtype=torch.float64)
    for _, layer in _cores(backbone):
        torch.testing.assert_close(layer.sb_A @ layer.sb_A.T, eye)
        torch.testing.assert_close(layer.sb_B.T @ layer.sb_B, eye)


def test_update_starts_at_the_best_approximation_of_the_first_step(backbone: Any) -> None:
    """The published start: scaling * B @ C @ A is the truncated SVD of -lr * sign(G), whatever the scaling."""
    gradients = mean_gradients(backbone)
    _, report = attached(backbone, init="update")
    captured = total = 0.0
    for name, layer in _cores(backbone):
        step = -LR * gradients[f"{name}.weight"].sign()
        step = step.T if layer.transposed else step
        u, s, vh = torch.linalg.svd(step, full_matrices=False)
        expected = u[:, :RANK] @ s[:RANK].diag() @ vh[:RANK]
        torch.testing.assert_close(layer.scaling * layer.sb_B @ layer.sb_C @ layer.sb_A, expected)
        captured, total = captured + float(s[:RANK].square().sum()), total + float(s.square().sum())
    assert report["init/captured_energy"] == pytest.approx(captured / total)
    assert report["init/change_norm"] == pytest.approx(captured**0.5)


def test_the_first_step_may_have_a_rate_of_its_own(small_llama: Callable[..., Any]) -> None:
    norms = [attached(small_llama(), **rates)[1]["init/change_norm"] for rates in ({}, {"init_lr": LR / 4})]
    assert norms[1] == pytest.approx(norms[0] / 4)


def test_the_first_step_lowers_the_loss(small_llama: Callable[..., Any]) -> None:
    model = small_llama().double()
    before = sum(float(loss.detach()) for loss in calibration(model)())
    attached(model, init="update", lr=1e-4)
    assert sum(float(loss.detach()) for loss in calibration(model)()) < before


@pytest.mark.parametrize("init", OTHERS)
def test_the_others_start_at_the_pretrained_function(backbone: Any, init: str) -> None:
    plain = copy.deepcopy(backbone)
    gradients = mean_gradients(backbone)
    _, report = attached(backbone, init=init)
    assert torch.equal(logits(backbone), logits(plain))
    assert report["init/change_norm"] == 0
    weights = dict(plain.named_parameters())
    for name, layer in _cores(backbone):
        if init == "random":
            continue
        matrix = (weights if init == "weights" else gradients)[f"{name}.weight"]
        matrix = matrix.T if layer.transposed else matrix
        # The core that holds the singular values rebuilds the top of the matrix.
        core = layer.sb_B.T @ matrix @ layer.sb_A.T
        singular = torch.linalg.svdvals(matrix)[:RANK]
        torch.testing.assert_close(core.data, singular.diag(), rtol=1e-9, atol=1e-9)


def test_calibration_leaves_no_trace(backbone: Any) -> None:
    before = snapshot(dict(backbone.named_parameters()))
    adapter, _ = attached(backbone)
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is None
        assert parameter.requires_grad == name.endswith(".sb_C")
        if ".sb_" not in name:
            assert torch.equal(parameter, before[name.replace(".base_layer", "")])
            assert not parameter._post_accumulate_grad_hooks
    for loss in calibration(backbone)():
        loss.backward()
    assert {name for name, value in backbone.named_parameters() if value.grad is not None} == adapter.shared(
        backbone
    ).keys()


def test_training_moves_the_cores_alone(small_llama: Callable[..., Any]) -> None:
    model = small_llama()
    attached(model)
    before = {name: checksum({"": value}) for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)  # even one that is given all of them
    for loss in calibration(model)():
        loss.backward()
        optimizer.step()
    changed = {name for name, value in model.named_parameters() if checksum({"": value}) != before[name]}
    assert changed == trainable(model).keys()


def test_the_mean_of_the_cores_is_the_mean_of_the_clients_weights(backbone: Any) -> None:
    """Unequal weights; this is what makes FedAvg of cores exact."""
    weights = (0.5, 0.3, 0.2)
    adapter, _ = attached(backbone)
    cores, merged = [], []
    for seed in range(3):
        randomise(backbone, seed)
        cores.append(snapshot(adapter.shared(backbone)))
        merged.append(adapter.merged(backbone))
    for name, core in adapter.shared(backbone).items():
        core.copy_(sum(p * one[name] for p, one in zip(weights, cores, strict=True)))
    for name, weight in adapter.merged(backbone).items():
        ideal = sum(p * one[name] for p, one in zip(weights, merged, strict=True))
        torch.testing.assert_close(weight, ideal, rtol=1e-12, atol=1e-12)


def test_single_precision_over_a_half_precision_backbone(small_llama: Callable[..., Any]) -> None:
    model = small_llama(dtype=torch.bfloat16)
    adapter, _ = attached(model)
    added = {name: value.dtype for name, value in model.named_parameters() if ".sb_" in name}
    assert set(added.values()) == {torch.float32}
    assert model.model.layers[0].self_attn.q_proj.base_layer.weight.dtype == torch.bfloat16
    assert model(TOKENS).logits.dtype == torch.bfloat16
    assert {weight.dtype for weight in adapter.merged(model).values()} == {torch.float32}


def test_half_precision_gradients_are_summed_in_single(small_llama: Callable[..., Any]) -> None:
    """A small gradient after a large one would vanish in a bfloat16 sum."""
    model = small_llama(dtype=torch.bfloat16)
    weight = model.model.layers[0].self_attn.q_proj.weight

    def losses() -> Iterator[Tensor]:
        yield weight.sum()
        for _ in range(64):
            yield weight.sum() / 512

    gradients = lora_core._mean_gradients(model, {"q": weight}, losses)
    torch.testing.assert_close(gradients["q"], torch.full(weight.shape, (1 + 64 / 512) / 65))


def test_on_the_meta_device_only_shapes_are_made(small_llama: Callable[..., Any]) -> None:
    with torch.device("meta"):
        model = small_llama()
    adapter = LoraCore(lora_rank=RANK, target_modules="all")
    assert adapter.attach(model, PROJECTIONS["llama"]) == {}
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert sum(core.numel() for core in adapter.shared(model).values()) == 2 * 7 * RANK**2


def test_the_same_batches_give_the_same_bits(small_llama: Callable[..., Any]) -> None:
    """Every process and every resumed run builds A and B by itself."""
    for init in ("update", "random"):
        first, again = small_llama(), small_llama()
        attached(first, init=init)
        torch.manual_seed(99)
        attached(again, init=init)
        assert checksum(dict(first.named_parameters())) == checksum(dict(again.named_parameters()))


def test_signs_do_not_depend_on_the_library() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(9, 6, dtype=torch.float64)
    u, s, vh = lora_core._top_singular(matrix, 4)
    assert (u.gather(0, u.abs().argmax(0, keepdim=True)) > 0).all()
    best = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(u @ s.diag() @ vh, best.U[:, :4] @ best.S[:4].diag() @ best.Vh[:4])


@pytest.mark.parametrize("shape", [(70, 40), (40, 70)])
def test_a_large_matrix_has_the_same_directions(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    exact = lora_core._top_singular(matrix, 4)
    monkeypatch.setattr(lora_core, "EXACT_SIDE", 10)
    for given, expected in zip(lora_core._top_singular(matrix, 4), exact, strict=True):
        torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"lora_rank": 0}, "method.lora_rank=0"),
        ({"lora_rank": [2, 3]}, "method.lora_rank=[2, 3]"),
        ({"lora_rank": 17}, "method.lora_rank=17"),
        ({"lora_alpha": 0.0}, "method.lora_alpha=0"),
        ({"init_lr": 0.0}, "method.init_lr=0"),
        ({"init": "svd"}, "method.init=svd"),
        ({"target_modules": ["q_porj"]}, "q_porj"),
        ({"target_modules": ["q_proj", "input_layernorm"]}, "input_layernorm"),
    ],
)
def test_what_it_refuses(options: dict[str, Any], word: str, small_llama: Callable[..., Any]) -> None:
    with pytest.raises(UserError) as caught:
        attached(small_llama(), **options)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gradients_need_batches_and_finite_ones(small_llama: Callable[..., Any]) -> None:
    for init in ("update", "gradient"):
        with pytest.raises(UserError, match=f"method.init={init} needs"):
            LoraCore(init=init, lora_rank=RANK).attach(small_llama(), PROJECTIONS["llama"])
    LoraCore(init="weights", lora_rank=RANK).attach(small_llama(), PROJECTIONS["llama"])
    model = small_llama()
    losses = calibration(model)
    with pytest.raises(UserError, match="not finite"):
        LoraCore(lora_rank=RANK).attach(model, PROJECTIONS["llama"], lambda: (loss * float("nan") for loss in losses()))


def _cores(model: Any) -> list[tuple[str, CoreLayer]]:
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, CoreLayer)]
    assert found
    return found
