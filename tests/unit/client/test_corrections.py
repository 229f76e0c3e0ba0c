"""What FedProx and SCAFFOLD add to gradients, and how SCAFFOLD's control variates go on."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.client.corrections import (
    ControlVariate,
    Correction,
    Proximal,
    initial_control,
    next_control,
    server_control_after,
)

SCALING = 5.0 / 2  # alpha / r
SHAPES = {"lora_A": (2, 5), "lora_B": (7, 2)}


def random_tensors(seed: int, dtype: torch.dtype = torch.float64) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in SHAPES.items()}


def random_parameters(seed: int) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(tensor) for name, tensor in random_tensors(seed).items()}


def loss_of(parameters: Mapping[str, Tensor], seed: int) -> Tensor:
    """Return the loss of a LoRA layer on a random batch of 4."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    targets = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    outputs = SCALING * inputs @ parameters["lora_A"].T @ parameters["lora_B"].T
    return (outputs - targets).square().mean()


def corrections_of(parameters: Mapping[str, nn.Parameter]) -> Sequence[Correction]:
    server, client = (random_tensors(seed, parameters["lora_A"].dtype) for seed in (50, 51))
    return Proximal(parameters, 0.3), ControlVariate(parameters, server, client)


def test_fedprox_is_the_gradient_of_the_loss_with_its_term() -> None:
    mu, parameters = 0.37, random_parameters(0)
    start = snapshot(parameters)
    private = nn.Parameter(torch.randn(3, dtype=torch.float64))
    proximal = Proximal(parameters, mu)
    with torch.no_grad():  # as after some local steps: the anchor must not follow
        for parameter in (*parameters.values(), private):
            parameter.add_(torch.randn_like(parameter))
    term = sum((parameter - start[name]).square().sum() for name, parameter in parameters.items())
    loss = loss_of(parameters, 1) + private.square().sum()
    expected = torch.autograd.grad(loss + mu / 2 * term, [*parameters.values(), private], retain_graph=True)
    loss.backward()
    proximal.apply()
    for parameter, gradient in zip((*parameters.values(), private), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-13)


def test_at_the_start_fedprox_adds_nothing() -> None:
    parameters = random_parameters(0)
    proximal = Proximal(parameters, 10.0)
    loss_of(parameters, 1).backward()
    before = {name: parameter.grad.clone() for name, parameter in parameters.items()}
    proximal.apply()
    assert all(torch.equal(parameter.grad, before[name]) for name, parameter in parameters.items())


def test_scaffold_adds_the_server_s_control_and_takes_the_client_s() -> None:
    parameters = random_parameters(0)
    server, client = random_tensors(1), random_tensors(2)
    kept = snapshot(server), snapshot(client)
    correction = ControlVariate(parameters, {**server, "other": torch.zeros(1)}, client)
    loss_of(parameters, 1).backward()
    expected = {name: p.grad + server[name] - client[name] for name, p in parameters.items()}
    correction.apply()
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=1e-14)
        assert torch.equal(server[name], kept[0][name])
        assert torch.equal(client[name], kept[1][name])


def test_a_parameter_without_gradient_is_left_without() -> None:
    parameters = random_parameters(0)
    corrections = corrections_of(parameters)
    for correction in corrections:
        correction.apply()  # none has one
    parameters["lora_B"].grad = torch.zeros(7, 2, dtype=torch.float64)
    with torch.no_grad():
        parameters["lora_B"].add_(1)
    for correction in corrections:
        correction.apply()
    assert parameters["lora_A"].grad is None
    assert parameters["lora_B"].grad.abs().min() > 0


def test_nothing_waits_for_the_device() -> None:
    """On the meta device there are no values: reading one is an error."""
    parameters = {name: nn.Parameter(torch.zeros(shape, device="meta")) for name, shape in SHAPES.items()}
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    for correction in corrections_of(parameters):
        correction.apply()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_gradient_keeps_its_type(dtype: torch.dtype) -> None:
    parameters = {name: nn.Parameter(tensor) for name, tensor in random_tensors(0, dtype).items()}
    corrections = [Proximal(parameters, 0.3), ControlVariate(parameters, random_tensors(1), random_tensors(2))]
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    for correction in corrections:
        correction.apply()
    assert {parameter.grad.dtype for parameter in parameters.values()} == {dtype}


def test_controls_of_another_shape_are_asserted() -> None:
    with pytest.raises(AssertionError, match="lora_A"):
        ControlVariate(random_parameters(0), {**random_tensors(1), "lora_A": torch.zeros(5)}, random_tensors(2))


def test_controls_begin_at_zero() -> None:
    tensors = {"half": nn.Parameter(torch.ones(2, 3, dtype=torch.bfloat16)), "double": torch.ones(4).double()}
    controls = initial_control(tensors)
    assert [(name, tuple(c.shape), c.dtype, c.requires_grad) for name, c in controls.items()] == [
        ("half", (2, 3), torch.float32, False),
        ("double", (4,), torch.float64, False),
    ]
    assert not any(control.any() for control in controls.values())


@pytest.mark.parametrize("num_steps", [1, 5])
def test_the_next_control_is_the_mean_of_the_raw_gradients(num_steps: int) -> None:
    lr, parameters = 0.05, random_parameters(3)
    start, server, client = snapshot(parameters), random_tensors(4), random_tensors(5)
    correction = ControlVariate(parameters, server, client)
    optimizer = torch.optim.SGD(parameters.values(), lr=lr)
    mean = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    for step in range(num_steps):
        optimizer.zero_grad()
        loss_of(parameters, step).backward()
        for name, parameter in parameters.items():
            mean[name] += parameter.grad / num_steps
        correction.apply()
        optimizer.step()
    control = next_control(client, server, start, parameters, num_steps, lr)
    for name, gradient in mean.items():
        torch.testing.assert_close(control[name], gradient, rtol=0, atol=1e-12)
        assert not control[name].requires_grad
        assert torch.equal(client[name], random_tensors(5)[name])


def test_the_next_control_is_of_the_trained_tensors_only() -> None:
    start = {"lora_A": random_tensors(0)["lora_A"]}
    control = next_control(random_tensors(1), random_tensors(2), start, random_tensors(3), 4, 0.1)
    assert control.keys() == {"lora_A"}


@pytest.mark.parametrize("counts", [(1, 1, 1, 1), (3, 17, 2, 40)], ids=["uniform", "by examples"])
def test_the_server_s_control_stays_the_mean_of_all_clients(counts: tuple[int, ...]) -> None:
    """With weights p_i = counts_i / sum, whatever the cohorts; with equal counts it is the paper's |S| / N."""
    controls = [initial_control(random_tensors(0)) for _ in counts]
    server = initial_control(random_tensors(0))
    for round_idx, cohort in enumerate([(0, 1), (1, 2, 3), (3,), (0, 1, 2, 3), (2, 0)]):
        total = sum(counts[client] for client in cohort)
        mean_delta = initial_control(server)
        for client in cohort:
            following = random_tensors(10 * round_idx + client)
            for name in SHAPES:
                mean_delta[name] += counts[client] / total * (following[name] - controls[client][name])
            controls[client] = following
        server = server_control_after(server, mean_delta, total / sum(counts))
        for name in SHAPES:
            expected = sum(n * control[name] for n, control in zip(counts, controls, strict=True)) / sum(counts)
            torch.testing.assert_close(server[name], expected, rtol=0, atol=1e-13)


def test_the_server_s_control_of_an_untrained_tensor_stays() -> None:
    control, delta = random_tensors(0), random_tensors(1)
    after = server_control_after(control, {"lora_B": delta["lora_B"]}, 2 / 5)
    assert torch.equal(after["lora_A"], control["lora_A"])
    torch.testing.assert_close(after["lora_B"], control["lora_B"] + 0.4 * delta["lora_B"], rtol=0, atol=1e-15)
