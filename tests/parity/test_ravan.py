"""Ravan against dense sums over heads (arXiv 2506.05568), in float64: the layer, its gradients, and the exact mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from factor_rounds import SHAPES, WEIGHTS, aggregated, close, forward_weight, make_plan, seeded
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fedlit.adapters.lora_heads import HeadsLayer, LoraHeads
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.tensors import TensorDict
from fedlit.client.host import ModelHost
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.config import LocalConfig, MethodConfig, RunConfig
from fedlit.data.prompts import Row
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS
from fedlit.round.cohort import Cohort
from fedlit.round.jobs import ClientJob, ClientState, Start
from fedlit.round.payload import MODEL
from fedlit.round.private_sums import Release
from fedlit.round.rules.fedavg import FedAvg
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transforms
from fedlit.round.transforms.scaled_heads import ScaledHeads

HEADS, RANK, ALPHA = 3, 2, 7.0
SCALING = ALPHA / RANK


def by_heads(a: Tensor, b: Tensor, cores: Tensor, scales: Tensor) -> Tensor:
    """Return alpha / r * sum_h s_h B_h H_h A_h, (out, in), head by head."""
    total = torch.zeros(b.shape[0], a.shape[1], dtype=torch.float64)
    for head in range(HEADS):
        rows = slice(head * RANK, (head + 1) * RANK)
        total = total + scales[head] * b[:, rows] @ cores[rows] @ a[rows]
    return SCALING * total


def make_layers() -> tuple[LoraLayer, ...]:
    return tuple(
        LoraLayer(
            name=f"m{index}",
            a=f"m{index}.A",
            b=f"m{index}.B",
            core=f"m{index}.H",
            scale=f"m{index}.s",
            weight=f"m{index}.W",
            rank=HEADS * RANK,
            alpha=HEADS * ALPHA,
        )
        for index in range(len(SHAPES))
    )


def heads(layers: Sequence[LoraLayer], generator: torch.Generator, *, fresh: bool = False) -> TensorDict:
    """Return cores and scales: at random, or as a federation begins."""
    tensors: TensorDict = {}
    for layer in layers:
        assert layer.core and layer.scale
        cores = torch.randn(HEADS * RANK, RANK, generator=generator, dtype=torch.float64)
        scales = torch.randn(HEADS, generator=generator, dtype=torch.float64)
        tensors[layer.core] = torch.zeros_like(cores) if fresh else cores
        tensors[layer.scale] = torch.ones_like(scales) if fresh else scales
    return tensors


def frozen_factors(layers: Sequence[LoraLayer]) -> TensorDict:
    generator = seeded(9)
    found: TensorDict = {}
    for layer, (num_out, num_in) in zip(layers, SHAPES, strict=True):
        found[layer.a] = torch.randn(HEADS * RANK, num_in, generator=generator, dtype=torch.float64)
        found[layer.b] = torch.randn(num_out, HEADS * RANK, generator=generator, dtype=torch.float64)
    return found


def dense(layer: LoraLayer, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the layer's change with these heads."""
    assert layer.core and layer.scale
    frozen = frozen_factors(make_layers())
    return by_heads(frozen[layer.a], frozen[layer.b], tensors[layer.core], tensors[layer.scale])


# The layer


def made_layer(transposed: bool = False) -> HeadsLayer:
    torch.manual_seed(3)
    base: nn.Module = Conv1D(9, 13) if transposed else nn.Linear(13, 9)
    layer = HeadsLayer(base.requires_grad_(False), HEADS, RANK, SCALING, transposed=transposed).double()
    for parameter in (layer.heads_A, layer.heads_B, layer.heads_H, layer.heads_s):
        nn.init.normal_(parameter)
    return layer


@pytest.mark.parametrize("transposed", [False, True])
def test_the_layer_and_its_gradients_are_the_sum_over_heads(transposed: bool) -> None:
    layer = made_layer(transposed)
    x = torch.randn(4, 5, 13, dtype=torch.float64, requires_grad=True)
    target = torch.randn(4, 5, 9, dtype=torch.float64)
    weight: Any = layer.base_layer.weight
    plain = weight.T if transposed else weight
    cores, scales = (part.detach().clone().requires_grad_() for part in (layer.heads_H, layer.heads_s))
    effective = plain + by_heads(layer.heads_A, layer.heads_B, cores, scales)
    expected = nn.functional.linear(x, effective, layer.base_layer.bias)  # type: ignore[arg-type]
    found = layer(x)
    assert close(found, expected, 1e-13)
    wanted = torch.autograd.grad((expected - target).square().sum(), (cores, scales, x))
    given = torch.autograd.grad((found - target).square().sum(), (layer.heads_H, layer.heads_s, x))
    for one, other in zip(given, wanted, strict=True):
        assert close(one, other, 1e-12)


def test_the_change_of_a_layer_is_the_sum_over_heads() -> None:
    layers = make_layers()
    tensors = heads(layers, seeded(2))
    for layer in layers:
        change = layer.change({**frozen_factors(layers), **tensors})
        assert close(change.dense(), dense(layer, tensors), 1e-13)
        assert layer.factors == (layer.a, layer.b, layer.core, layer.scale)


# The mean


@pytest.mark.parametrize("num_clients", sorted(WEIGHTS))
def test_the_aggregate_is_exact_in_every_round(num_clients: int) -> None:
    """W + alpha / r sum_h B_h (sum_i p_i s_ih H_ih) A_h over four rounds, unequal weights; scales are 1 after each."""
    layers, generator, weights = make_layers(), seeded(), WEIGHTS[num_clients]
    server = ServerState(shared=heads(layers, generator, fresh=True), layers=layers)
    for _ in range(4):
        trained = {}
        for client_id in range(num_clients):
            move = heads(layers, generator)
            trained[client_id] = {name: server.shared[name] + 0.5 * tensor for name, tensor in move.items()}
        ideal = {
            layer.name: sum(weight * dense(layer, trained[client]) for client, weight in enumerate(weights))
            for layer in layers
        }
        after = aggregated(FedAvg(), server, trained, weights, ScaledHeads())
        apart = aggregated(FedAvg(), server, trained, weights)
        for layer in layers:
            wanted = torch.as_tensor(ideal[layer.name])
            assert close(dense(layer, after.shared), wanted, 1e-12)
            assert layer.scale is not None
            assert torch.equal(after.shared[layer.scale], torch.ones(HEADS, dtype=torch.float64))
            if num_clients > 1:
                assert not close(dense(layer, apart.shared), wanted, 1e-2), "scales and cores averaged apart miss it"
        server = after


def test_nothing_of_the_scales_travels_and_noise_does_not_move_them() -> None:
    layers = make_layers()
    server = ServerState(shared=heads(layers, seeded(), fresh=True), layers=layers)
    transforms = Transforms([ScaledHeads()])
    assert transforms.unsent(server) == {layer.scale for layer in layers}
    plan = replace(make_plan([0], (0.01,)), expected=100, trains=frozenset(server.shared))
    release = Release(seed=0, round_idx=0, expected=100, clip_norm=1.0, noise_multiplier=1.0)
    cohort = Cohort(
        plan,
        {MODEL: server.shared},
        release=release,
        on_server=lambda mean: dict(transforms.on_server(mean, server, plan)),
    )
    cohort.add(0, transforms.on_client({MODEL: heads(layers, seeded(1))}, server, plan, 0))
    cohort.close([0])
    mean = cohort.mean()
    for layer in layers:
        assert layer.core and layer.scale
        assert bool((mean[layer.scale] == 1).all())
        assert bool(mean[layer.core].all()), "the cores have noise"


def test_a_client_s_norm_is_that_of_what_it_sends() -> None:
    """Clipping bounds s H, not s and H."""
    layers = make_layers()[:1]
    server = ServerState(shared=heads(layers, seeded(), fresh=True), layers=layers)
    trained = heads(layers, seeded(1))
    sent = ScaledHeads().on_client({MODEL: trained}, server, make_plan([0], (1.0,)), 0)[MODEL]
    cores, scales = trained["m0.H"], trained["m0.s"]
    for head in range(HEADS):
        rows = slice(head * RANK, (head + 1) * RANK)
        assert torch.equal(sent["m0.H"][rows], scales[head] * cores[rows])
    assert torch.equal(trained["m0.s"], scales), "what the client trained is left as it was"


# Whole rounds on a model


def row(word: str, number: int) -> Row:
    return {"prompt": f"def {word}{number}():", "response": f"{word} {number}."}


def test_rounds_of_local_steps_are_those_of_the_dense_weights(
    make_trainer: Callable[..., SerialTrainer], small_llama: Callable[..., Any]
) -> None:
    """Two rounds of three clients: what each trains, with W + alpha / r sum_h s_h B_h H_h A_h and autograd."""
    options = {"lora_rank": RANK, "num_heads": HEADS, "lora_alpha": ALPHA, "target_modules": ["q_proj", "v_proj"]}
    trainer = make_trainer("ravan", options, optimizer="sgd", lr=0.3, steps=2)
    host = trainer.host
    host.model.double()
    server = host.first_server((), 3)
    transforms = host.method.transforms
    plain = small_llama(dtype=torch.float64)
    weights = WEIGHTS[3]
    for round_idx in range(2):
        plan = replace(make_plan(range(3), weights, round_idx), trains=host.trains(round_idx))
        cohort = Cohort(
            plan,
            {MODEL: server.shared},
            on_server=lambda mean, s=server, p=plan: dict(transforms.on_server(mean, s, p)),
        )
        means: TensorDict = {}
        for client_id in range(3):
            job = ClientJob(
                client_id=client_id,
                rows=[row(word, client_id) for word in ("open", "close", "read", "write")],
                start=Start(groups={MODEL: server.shared}),
                state=ClientState(),
                plan=plan,
            )
            (result,) = trainer.train([job])
            assert result.payload is not None
            cohort.add(client_id, transforms.on_client(result.payload, server, plan, client_id))
            for name, weight in trained_densely(trainer, plain, job).items():
                means[name] = means.get(name, torch.zeros(())) + weights[client_id] * weight
        cohort.close(range(3))
        server = replace(FedAvg()(cohort, server), round_idx=round_idx + 1)
        host.load_server(server)
        for layer in host.layers:
            held = forward_weight(host.model, layer)
            assert close(held, means[layer.name], 1e-11)
            moved = held - plain.get_parameter(f"{layer.name}.weight")
            assert float(moved.norm()) > 1e-3


def trained_densely(trainer: SerialTrainer, plain: nn.Module, job: ClientJob) -> TensorDict:
    """Return a client's dense weights after its steps on a plain model, its weights made of the heads each time."""
    host = trainer.host
    tensors = {
        name: tensor.clone().requires_grad_() for name, tensor in job.start.groups[MODEL].items()
    }  # the server's heads
    frozen = dict(host.model.named_parameters())

    def effective() -> TensorDict:
        return {
            layer.name: plain.get_parameter(f"{layer.name}.weight")
            + by_heads(frozen[layer.a], frozen[layer.b], tensors[str(layer.core)], tensors[str(layer.scale)])
            for layer in host.layers
        }

    of_weights = Loss(trainer.module.task, plain)
    for (batch,) in trainer.batches(trainer.prepared(job)):
        weights = {f"model.{name}.weight": weight for name, weight in effective().items()}
        loss = torch.func.functional_call(of_weights, weights, (batch,))
        gradients = torch.autograd.grad(loss, list(tensors.values()))
        with torch.no_grad():
            for name, gradient in zip(list(tensors), gradients, strict=True):
                tensors[name].sub_(trainer.local.lr * gradient)
    return {name: weight.detach() for name, weight in effective().items()}


class Loss(nn.Module):
    """A task's loss of a model, as a function of the model's weights."""

    def __init__(self, task: Any, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any) -> Tensor:
        loss: Tensor = self.task.loss(self.model, batch)
        return loss


def test_the_recipe_takes_its_parts_from_the_table(small_llama: Callable[..., Any]) -> None:
    options = {"lora_rank": RANK, "num_heads": HEADS, "lora_alpha": ALPHA}
    method = build_method(RunConfig(method=MethodConfig(name="ravan", options=options), local=LocalConfig()))
    assert isinstance(method.adapter, LoraHeads)
    assert [type(part) for part in method.transforms.parts] == [ScaledHeads]
    model = small_llama()
    method.attach(model, PROJECTIONS["llama"])
    host = ModelHost(model, method, method.adapter.layers(model))
    assert not host.has_private
    assert all(layer.scaling() == SCALING for layer in host.layers)
