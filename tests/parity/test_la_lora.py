"""LA-LoRA (arXiv 2602.19926) against a plain loop in torch: whose turn a step is, the filter by its matrix, and AdamW
by its equations with a count of steps for each factor.

Shapes: A (r, in), B (out, r); float64 throughout.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from client_rounds import make_job, train_client
from lightning.fabric import Fabric
from single_rows import in_a_loop
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.client.corrections import smoothed
from fedlit.client.host import ModelHost
from fedlit.client.row_order import poisson_order
from fedlit.client.steps import ClientModule, LocalSteps
from fedlit.client.trainers.example import ExampleTrainer
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.config import LocalConfig, MethodConfig, RunConfig
from fedlit.data.collation import Batch, Example, collate
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS
from fedlit.round.jobs import ClientState
from fedlit.round.payload import MODEL
from fedlit.tasks.likelihood import project_only

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False but the target module is `Conv1D`")

LR, DECAY = 0.02, 0.3
Make = Callable[..., SerialTrainer]


class DoubleLoss:
    """A task of rows that are examples, with the loss in float64 throughout."""

    def encode(self, rows: Sequence[Example]) -> list[Example]:
        return list(rows)

    def collate(self, examples: Sequence[Example]) -> Batch:
        return collate(examples, 0, loss_on="response")

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        with project_only(model, batch.label_positions):
            output = model(input_ids=batch.token_ids)
        return functional.cross_entropy(output.logits.squeeze(0), batch.label_ids)


def gpt2() -> GPT2LMHeadModel:
    """A random model whose layers are not square, float64 throughout: Llama's norms pass through float32."""
    config = GPT2Config(
        n_layer=2,
        n_embd=24,
        n_head=4,
        n_inner=40,
        vocab_size=2048,
        initializer_range=0.2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    return GPT2LMHeadModel(config).double().requires_grad_(False)


@pytest.fixture
def make() -> Make:
    """Return a function that builds a float64 trainer of la_lora with alpha / r = 5 / 2; other names are local.*."""

    def build(optimizer: str = "adamw", low_pass: bool = True, **local: Any) -> SerialTrainer:
        settings = LocalConfig(**{"batch_size": 3, "lr": LR, "steps": 5, "optimizer_state": "keep", **local})
        options = {"lora_rank": 2, "lora_alpha": 5.0, "target_modules": "all", "low_pass": low_pass}
        method = MethodConfig(name="la_lora", optimizer=optimizer, options=options)
        parts = build_method(RunConfig(method=method, local=settings))
        model = gpt2()
        torch.manual_seed(1)
        parts.adapter.attach(model, PROJECTIONS["gpt2"])
        for name, parameter in model.named_parameters():
            if ".lora_A." in name:  # peft's are float32
                parameter.data = parameter.data.double()
            if ".lora_B." in name:
                parameter.data = 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
        task: Any = DoubleLoss()
        host = ModelHost(model, parts, parts.adapter.layers(model))
        module = ClientModule(model, task, parts, host.trained)
        steps = LocalSteps(fabric=Fabric(accelerator="cpu", devices=1), module=module, local=settings)
        return SerialTrainer(
            host=host, module=module, steps=steps, local=settings, seed=0, num_rounds=3, parts=parts.parts
        )

    return build


def filter_matrix(size: int) -> Tensor:
    """The convolution with [1, 4, 6, 4, 1] / 16 and zeros beyond the ends, as a matrix (size, size)."""
    kernel = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    columns = [np.convolve(unit, kernel)[2:-2] for unit in np.eye(size)]
    return torch.from_numpy(np.stack(columns, axis=1))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_the_filter_is_its_matrix(size: int) -> None:
    """Along the outputs of B (size, 3) and the inputs of A (3, size)."""
    generator = torch.Generator().manual_seed(size)
    b = torch.randn(size, 3, generator=generator, dtype=torch.float64)
    a = torch.randn(3, size, generator=generator, dtype=torch.float64)
    matrix = filter_matrix(size)
    torch.testing.assert_close(smoothed(b, 0), matrix @ b, rtol=0, atol=1e-15)
    torch.testing.assert_close(smoothed(a, 1), a @ matrix.T, rtol=0, atol=1e-15)
    assert torch.equal(matrix, matrix.T)
    assert float(torch.linalg.matrix_norm(matrix, 2)) <= 1


def filtered(name: str, gradient: Tensor) -> Tensor:
    """A's gradient along its inputs, B's along its outputs."""
    if ".lora_A." in name:
        return gradient @ filter_matrix(gradient.shape[1]).T
    return filter_matrix(gradient.shape[0]) @ gradient


def turn(names: Sequence[str], step: int) -> list[str]:
    """B in the steps 0, 2, 4, ... of a round, A in the others."""
    return [name for name in names if (".lora_B." in name) == (step % 2 == 0)]


class ByHand:
    """AdamW's equations (Loshchilov and Hutter, arXiv 1711.05101), each tensor with moments and a count of its own."""

    def __init__(self, tensors: TensorDict) -> None:
        self.first = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        self.second = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        self.count = dict.fromkeys(tensors, 0)

    def step(self, name: str, parameter: Tensor, gradient: Tensor) -> None:
        self.count[name] += 1
        self.first[name] = 0.9 * self.first[name] + 0.1 * gradient
        self.second[name] = 0.999 * self.second[name] + 0.001 * gradient**2
        mean = self.first[name] / (1 - 0.9 ** self.count[name])
        deviation = (self.second[name] / (1 - 0.999 ** self.count[name])).sqrt()
        parameter.mul_(1 - LR * DECAY).sub_(LR * mean / (deviation + 1e-8))


def by_hand(
    trainer: SerialTrainer, start: TensorDict, rows: Sequence[Example], adam: ByHand, round_idx: int, low_pass: bool
) -> TensorDict:
    """Return what a round's steps make of the factors, in a loop of its own."""
    model, trained = trainer.host.model, trainer.host.trained
    for name, parameter in trained.items():
        parameter.requires_grad_(True)
        parameter.data.copy_(start[name])
    mine = trainer.prepared(make_job(trainer, 0, rows, start, ClientState(), round_idx))
    for step, batches in enumerate(trainer.batches(mine)):
        (batch,) = batches
        names = turn(list(trained), step)
        gradients = torch.autograd.grad(
            trainer.module.task.loss(model, batch), [trained[name] for name in names], allow_unused=False
        )
        for name, gradient in zip(names, gradients, strict=True):
            adam.step(name, trained[name].data, filtered(name, gradient) if low_pass else gradient)
    return snapshot({name: parameter.data for name, parameter in trained.items()})


@pytest.mark.parametrize("low_pass", [True, False])
def test_a_client_s_rounds_are_the_loop_s(make: Make, examples: list[Example], low_pass: bool) -> None:
    """Three rounds of five steps with moments that are kept: B has three steps in each, A two."""
    trainer, plain = (make(low_pass=low_pass, weight_decay=DECAY) for _ in range(2))
    start = snapshot(trainer.host.method.shared(trainer.host.model))
    shared, expected, state, adam = start, start, ClientState(), ByHand(start)
    for round_idx in range(3):
        result = train_client(trainer, make_job(trainer, 0, examples, shared, state, round_idx))
        assert result.payload is not None
        assert result.state is not None
        shared, state = result.payload[MODEL], result.state
        expected = by_hand(plain, expected, examples, adam, round_idx, low_pass)
        for name, tensor in expected.items():
            torch.testing.assert_close(shared[name], tensor, rtol=0, atol=1e-11, msg=name)
    moved = {name: float((shared[name] - start[name]).abs().max()) for name in start}
    assert min(moved.values()) > 1e-2
    kept = state.optimizer
    assert kept is not None
    counts = [int(kept["state"][index]["step"]) for index in range(len(start))]
    assert counts == [6 if ".lora_A." in name else 9 for name in trainer.host.trained]


def test_a_factor_whose_turn_it_is_not_keeps_every_bit(make: Make, examples: list[Example]) -> None:
    """One step with weight decay: A has neither moved nor moments nor a count of steps."""
    trainer = make(steps=1, weight_decay=DECAY)
    start = snapshot(trainer.host.method.shared(trainer.host.model))
    result = train_client(trainer, make_job(trainer, 0, examples, start, ClientState()))
    assert result.payload is not None
    assert result.state is not None
    assert result.state.optimizer is not None
    names = list(trainer.host.trained)
    assert {names[index] for index in result.state.optimizer["state"]} == {n for n in names if ".lora_B." in n}
    for name, tensor in result.payload[MODEL].items():
        assert torch.equal(tensor, start[name]) == (".lora_A." in name)


def test_the_filter_stands_before_clipping_and_the_pull_after_it(make: Make, examples: list[Example]) -> None:
    """Steps of SGD with FedProx: g <- clip(K g + mu (w - w0))."""
    mu, norm = 0.7, 0.4
    trainer = make("sgd", steps=4, prox_mu=mu, max_grad_norm=norm, optimizer_state="reset")
    start = snapshot(trainer.host.method.shared(trainer.host.model))
    result = train_client(trainer, make_job(trainer, 0, examples, start, ClientState()))
    assert result.payload is not None
    other = make("sgd", steps=4, optimizer_state="reset")
    model, trained = other.host.model, other.host.trained
    mine = other.prepared(make_job(other, 0, examples, start, ClientState()))
    num_clipped = 0
    for step, (batch,) in enumerate(other.batches(mine)):
        names = turn(list(trained), step)
        gradients = torch.autograd.grad(other.module.task.loss(model, batch), [trained[name] for name in names])
        pulled = [
            filtered(name, gradient) + mu * (trained[name].data - start[name])
            for name, gradient in zip(names, gradients, strict=True)
        ]
        total = math.sqrt(sum(float(each.square().sum()) for each in pulled))
        num_clipped += total > norm
        for name, each in zip(names, pulled, strict=True):
            trained[name].data.sub_(LR * each * min(1.0, norm / (total + 1e-6)))
    assert num_clipped > 0
    for name, tensor in trained.items():
        torch.testing.assert_close(result.payload[MODEL][name], tensor.data, rtol=0, atol=1e-12, msg=name)


def private(trainer: SerialTrainer, clip_norm: float, noise_multiplier: float) -> ExampleTrainer:
    given: Mapping[str, Any] = {each.name: getattr(trainer, each.name) for each in fields(trainer)}
    return ExampleTrainer(clip_norm=clip_norm, noise_multiplier=noise_multiplier, **given)


@pytest.fixture
def make_private(make_trainer: Callable[..., SerialTrainer]) -> Callable[..., ExampleTrainer]:
    """Return a function that builds a trainer of DP-SGD on the small Llama in float64."""

    def build(clip_norm: float, noise_multiplier: float = 0.0, **local: Any) -> ExampleTrainer:
        plain = make_trainer("la_lora", optimizer="sgd", precision="64-true", batch_size=4, lr=0.5, **local)
        plain.host.model.double()
        return private(plain, clip_norm, noise_multiplier)

    return build


def private_start(trainer: SerialTrainer) -> TensorDict:
    torch.manual_seed(7)
    shared = trainer.host.method.shared(trainer.host.model)
    return {name: tensor + 0.1 * torch.randn(tensor.shape, dtype=tensor.dtype) for name, tensor in shared.items()}


def test_single_rows_are_clipped_by_the_factor_of_the_step(
    make_private: Callable[..., ExampleTrainer], rows: list[dict[str, str]]
) -> None:
    """DP-SGD without noise: a row's norm is over the factor that is stepped, and the filter comes after the sum."""
    clip_norm = 0.05
    trainer = make_private(clip_norm, steps=4)
    start = private_start(trainer)
    result = train_client(trainer, make_job(trainer, 1, rows, start, ClientState()))
    assert result.payload is not None
    assert result.metrics["clipped_share"] == 1.0
    task: Any = trainer.module.task
    model, trained, examples = trainer.host.model, trainer.host.trained, trainer.module.task.encode(rows)
    for name, parameter in trained.items():
        parameter.data.copy_(start[name])
        parameter.requires_grad_(True)
    order = poisson_order(len(rows), 4, trainer.seed, 1, round_idx=0, num_steps=4)
    for step, drawn in enumerate(order):
        names = turn(list(trained), step)
        total, _ = in_a_loop(
            lambda place, drawn=drawn: task.loss(model, task.collate([examples[drawn[place]]])),  # type: ignore[misc]
            len(drawn),
            {name: trained[name] for name in names},
            clip_norm,
        )
        for name in names:
            trained[name].data.sub_(0.5 * filtered(name, total[name] / 4))
    for name, tensor in trained.items():
        # Llama's norms compute in float32, in which a last bit may fall either way.
        torch.testing.assert_close(result.payload[MODEL][name], tensor.data, rtol=0, atol=1e-7, msg=name)


def test_noise_is_added_to_the_factor_of_the_step_alone_and_smoothed(
    make_private: Callable[..., ExampleTrainer], rows: list[dict[str, str]]
) -> None:
    """Of white noise of deviation z C / L the filter leaves a variance of sum k^2 = 70 / 256, and neighbours alike."""
    z, clip_norm = 1e6, 1e-4
    trainer = make_private(clip_norm, z, steps=1, options={"lora_rank": 16})
    start = private_start(trainer)
    result = train_client(trainer, make_job(trainer, 1, rows, start, ClientState()))
    assert result.payload is not None
    sent = result.payload[MODEL]
    inner, alike = [], []
    for name, tensor in sent.items():
        noise = (start[name] - tensor) / 0.5 * 4 / (z * clip_norm)
        if ".lora_A." in name:
            assert torch.equal(tensor, start[name])
            continue
        inner.append(noise[2:-2].flatten())
        alike.append((noise[2:-3] * noise[3:-2]).flatten())
    flat = torch.cat(inner)
    assert len(flat) > 2000
    assert float(flat.var()) == pytest.approx(70 / 256, rel=0.15)
    assert float(torch.cat(alike).mean()) == pytest.approx(56 / 256, rel=0.25)  # sum_j k_j k_(j+1)
