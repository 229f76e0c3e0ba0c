"""Clients of several ranks in one model of the largest: each trains as a model of its own rank would."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from factor_rounds import make_plan
from peft import LoraConfig, get_peft_model
from torch import Tensor

from fedlit.adapters import trainable
from fedlit.adapters.lora import Lora
from fedlit.algebra.tensors import TensorDict, copy_into, snapshot
from fedlit.errors import UserError
from fedlit.models import PROJECTIONS
from fedlit.round.payload import MODEL
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transform
from fedlit.round.transforms.rank_scaling import RankScaling

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

RANKS = [2, 5, 3, 1]
ALPHA = 7.0
SHARES_OF_A = (0.0, 0.5)
"""of RankScaling: FlexLoRA's and FLoRA's, HetLoRA's"""
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
}
Llama = Callable[..., Any]


def batch(step: int) -> Tensor:
    return (torch.arange(3, 39).view(3, 12) * (step + 7)) % 2000


def train(model: Any, optimizer: torch.optim.Optimizer, num_steps: int = 4) -> list[float]:
    losses = []
    for step in range(num_steps):
        loss = model(input_ids=batch(step), labels=batch(step)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def federated(model: Any, **options: Any) -> tuple[Lora, ServerState]:
    """Return the adapter on `model` and a server whose B is not zero, so that A has a gradient from the first step."""
    lora = Lora(**{"lora_rank": RANKS, "lora_alpha": ALPHA, "target_modules": "all", **options})
    torch.manual_seed(0)
    lora.attach(model, PROJECTIONS["llama"])
    model.double()
    server = ServerState(shared=snapshot(lora.shared(model)), layers=lora.layers(model))
    for layer in server.layers:
        server.shared[layer.b].normal_().mul_(0.1)
    return lora, server


def start(lora: Lora, model: Any, server: ServerState, scaling: Transform, client_id: int) -> TensorDict:
    shared = scaling.start(server.shared, server, client_id)
    copy_into(lora.shared(model), shared)
    lora.set_rank(model, client_id=client_id)
    return shared


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("share_of_a", SHARES_OF_A)
def test_a_client_trains_as_a_model_of_its_rank(
    share_of_a: float, optimizer: str, use_rslora: bool, small_llama: Llama
) -> None:
    """The same losses and factors as peft's own model of that rank, scaled by alpha / r; what is beyond stays zero."""
    model = small_llama().double()
    lora, server = federated(model, use_rslora=use_rslora)
    for client_id in (0, 3, 1):
        rank = RANKS[client_id]
        shared = start(lora, model, server, RankScaling(share_of_a=share_of_a), client_id)
        losses = train(model, OPTIMIZERS[optimizer](list(trainable(model).values())))
        trained = lora.shared(model)
        config = LoraConfig(
            r=rank,
            lora_alpha=ALPHA,
            use_rslora=use_rslora,
            target_modules=list(PROJECTIONS["llama"].select("all")),
            task_type="CAUSAL_LM",
        )
        alone = get_peft_model(small_llama().double(), config).double()
        own = {
            name.removeprefix("base_model.model."): parameter
            for name, parameter in alone.named_parameters()
            if parameter.requires_grad
        }
        copy_into(
            {name: parameter.data for name, parameter in own.items()},
            {name: value[:rank] if ".lora_A." in name else value[:, :rank] for name, value in shared.items()},
        )
        expected = train(alone, OPTIMIZERS[optimizer](list(own.values())))
        assert losses == pytest.approx(expected, rel=1e-9)
        assert abs(losses[-1] - losses[0]) > 1e-3
        for name, tensor in trained.items():
            rows = tensor if ".lora_A." in name else tensor.T
            alone_rows = own[name].data if ".lora_A." in name else own[name].data.T
            torch.testing.assert_close(rows[:rank], alone_rows, rtol=1e-6, atol=1e-8)
            assert not rows[rank:].any(), "zeros beyond the rank, to the bit"
            assert not torch.equal(rows[:rank], (shared[name] if ".lora_A." in name else shared[name].T)[:rank])


def test_the_model_is_scaled_by_the_rank_of_whoever_it_stands_for(small_llama: Llama) -> None:
    model = small_llama()
    lora, _ = federated(model)
    layer = model.model.layers[1].mlp.up_proj
    for client_id, expected in [(0, ALPHA / 2), (1, ALPHA / 5), (3, ALPHA), (None, ALPHA / 5)]:
        lora.set_rank(model, client_id=client_id)
        assert layer.scaling["default"] == pytest.approx(expected)


def test_what_a_client_sends_has_its_effect_in_the_servers_scaling(small_llama: Llama) -> None:
    """The logits of a client are those of the server with what the client sent."""
    model = small_llama().double()
    lora, server = federated(model)
    plan = make_plan(range(len(RANKS)), [0.25] * len(RANKS))
    for share_of_a in SHARES_OF_A:
        scaling = RankScaling(share_of_a=share_of_a)
        for client_id in range(len(RANKS)):
            start(lora, model, server, scaling, client_id)
            train(model, OPTIMIZERS["sgd"](list(trainable(model).values())), num_steps=1)
            with torch.no_grad():
                own = model(input_ids=batch(0)).logits
                trained = {MODEL: snapshot(lora.shared(model))}
                copy_into(lora.shared(model), scaling.on_client(trained, server, plan, client_id)[MODEL])
                lora.set_rank(model, client_id=None)
                torch.testing.assert_close(model(input_ids=batch(0)).logits, own, rtol=1e-9, atol=1e-9)


def test_layers_name_what_the_model_has(small_llama: Llama) -> None:
    model = small_llama()
    lora, server = federated(model)
    parameters = dict(model.named_parameters())
    assert len(server.layers) == 2 * 7
    for layer in server.layers:
        num_out, num_in = parameters[layer.weight].shape
        assert parameters[layer.a].shape == (5, num_in)
        assert parameters[layer.b].shape == (num_out, 5)
        assert layer.rank == 5
        assert layer.client_ranks == tuple(RANKS)
        assert not layer.transposed
        assert layer.name == layer.weight.removesuffix(".base_layer.weight")
    merged = lora.merged(model)
    assert merged.keys() == {f"{layer.name}.weight" for layer in server.layers}


def test_one_rank_for_all_leaves_the_scaling_to_peft(small_llama: Llama) -> None:
    model = small_llama()
    lora, server = federated(model, lora_rank=3)
    assert server.layers[0].client_ranks == ()
    module = model.model.layers[0].self_attn.q_proj
    module.scaling["default"] = 123.0
    lora.set_rank(model, client_id=1)
    assert module.scaling["default"] == 123.0


@pytest.mark.parametrize("lora_rank", [[], [3, 0], [2, -1]])
def test_ranks_that_are_none(lora_rank: list[int]) -> None:
    with pytest.raises(UserError, match=r"method\.lora_rank=\["):
        Lora(lora_rank=lora_rank)
