"""FedProx against the loss with its term and its closed form; SCAFFOLD against Algorithm 1 in numpy, and where it ends.

Quadratics: f_i(w) = 1/2 (w - a_i)' H_i (w - a_i), whose minima a_i and curvatures H_i differ between clients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.client.corrections import ControlVariate, Proximal, initial_control, next_control, server_control_after

LR = 0.05
NUM_STEPS = 10
SCALING = 5.0 / 2  # alpha / r
SHAPES = {"lora_A": (2, 5), "lora_B": (7, 2)}
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Quadratic:
    """One client's objective over a vector w."""

    minimum: np.ndarray
    curvature: np.ndarray

    def gradients(self, w: Arrays) -> Arrays:
        return {"w": self.curvature @ (w["w"] - self.minimum)}

    def loss(self, w: TensorDict) -> torch.Tensor:
        distance = w["w"] - torch.from_numpy(self.minimum)
        return distance @ torch.from_numpy(self.curvature) @ distance / 2


@dataclass(frozen=True)
class Factored:
    """One client's objective over LoRA factors: 1/2 |scaling B A - target|^2, target (7, 5)."""

    target: np.ndarray

    def gradients(self, w: Arrays) -> Arrays:
        error = SCALING * (SCALING * w["lora_B"] @ w["lora_A"] - self.target)
        return {"lora_A": w["lora_B"].T @ error, "lora_B": error @ w["lora_A"].T}

    def loss(self, w: TensorDict) -> torch.Tensor:
        return (SCALING * w["lora_B"] @ w["lora_A"] - torch.from_numpy(self.target)).square().sum() / 2


Objective = Quadratic | Factored


def quadratics(num_clients: int, size: int = 3) -> list[Quadratic]:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(num_clients):
        basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
        curvature = basis @ np.diag(rng.uniform(0.2, 4.0, size=size)) @ basis.T
        found.append(Quadratic(minimum=3 * rng.normal(size=size), curvature=curvature))
    return found


def optimum(clients: Sequence[Quadratic], weights: Sequence[float]) -> np.ndarray:
    """Return the minimum of sum_i p_i f_i."""
    curvature = sum(p * client.curvature for p, client in zip(weights, clients, strict=True))
    return np.linalg.solve(
        curvature, sum(p * client.curvature @ client.minimum for p, client in zip(weights, clients, strict=True))
    )


def fedavg_end(clients: Sequence[Quadratic], weights: Sequence[float]) -> np.ndarray:
    """Return where FedAvg stops: w = sum_i p_i (a_i + (I - lr H_i)^K (w - a_i))."""
    identity = np.eye(len(clients[0].minimum))
    shrinks = [np.linalg.matrix_power(identity - LR * client.curvature, NUM_STEPS) for client in clients]
    pairs = list(zip(weights, shrinks, clients, strict=True))
    left = identity - sum(p * shrink for p, shrink, _ in pairs)
    return np.linalg.solve(left, sum(p * (identity - shrink) @ client.minimum for p, shrink, client in pairs))


class Federation:
    """A round loop over torch parameters with the corrections under test; `scaffold` False is FedAvg."""

    def __init__(self, clients: Sequence[Objective], counts: Sequence[int], start: Arrays, scaffold: bool) -> None:
        self.clients = clients
        self.counts = counts
        self.scaffold = scaffold
        self.shared = {name: torch.from_numpy(array).clone() for name, array in start.items()}
        self.control = initial_control(self.shared)
        self.controls = [initial_control(self.shared) for _ in clients]

    def round(self, cohort: Sequence[int], num_steps: int = NUM_STEPS) -> None:
        total = sum(self.counts[client_id] for client_id in cohort)
        mean, mean_delta = ({name: torch.zeros_like(x) for name, x in self.shared.items()} for _ in range(2))
        for client_id in cohort:
            parameters = {name: nn.Parameter(tensor.clone()) for name, tensor in self.shared.items()}
            control = self.controls[client_id]
            correction = ControlVariate(parameters, self.control, control)
            optimizer = torch.optim.SGD(parameters.values(), lr=LR)
            for _ in range(num_steps):
                optimizer.zero_grad()
                self.clients[client_id].loss(parameters).backward()
                if self.scaffold:
                    correction.apply()
                optimizer.step()
            following = next_control(control, self.control, self.shared, parameters, num_steps, LR)
            for name in self.shared:
                mean[name] += self.counts[client_id] / total * parameters[name].detach()
                mean_delta[name] += self.counts[client_id] / total * (following[name] - control[name])
            self.controls[client_id] = following
        self.shared = mean
        self.control = server_control_after(self.control, mean_delta, total / sum(self.counts))

    def error(self, end: np.ndarray) -> float:
        return float(np.linalg.norm(self.shared["w"].numpy() - end))


def algorithm_1(
    clients: Sequence[Objective], start: Arrays, cohorts: Sequence[Sequence[int]]
) -> tuple[Arrays, Arrays, list[Arrays]]:
    """Return x, c and all c_i after the rounds: SCAFFOLD as printed, option II, global step 1, clients alike."""
    x = {name: array.copy() for name, array in start.items()}
    c = {name: np.zeros_like(array) for name, array in x.items()}
    c_of = [{name: np.zeros_like(array) for name, array in x.items()} for _ in clients]
    for cohort in cohorts:
        delta_y = {name: np.zeros_like(array) for name, array in x.items()}
        delta_c = {name: np.zeros_like(array) for name, array in x.items()}
        for i in cohort:
            y = {name: array.copy() for name, array in x.items()}
            for _ in range(NUM_STEPS):
                g = clients[i].gradients(y)
                y = {name: y[name] - LR * (g[name] - c_of[i][name] + c[name]) for name in y}
            c_plus = {name: c_of[i][name] - c[name] + (x[name] - y[name]) / (NUM_STEPS * LR) for name in x}
            for name, received in x.items():
                delta_y[name] += (y[name] - received) / len(cohort)
                delta_c[name] += (c_plus[name] - c_of[i][name]) / len(cohort)
            c_of[i] = c_plus
        x = {name: x[name] + delta_y[name] for name in x}
        c = {name: c[name] + len(cohort) / len(clients) * delta_c[name] for name in x}
    return x, c, c_of


@pytest.mark.parametrize("kind", ["quadratic", "factored"])
@pytest.mark.parametrize(
    "cohorts", [[(0, 1, 2)] * 8, [(0, 1), (1, 2), (0, 2), (2,), (0, 1, 2), (1,)] * 2], ids=["all", "some"]
)
def test_scaffold_is_algorithm_1(kind: str, cohorts: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(7)
    clients: Sequence[Objective]
    if kind == "quadratic":
        clients, start = quadratics(3), {"w": rng.normal(size=3)}
    else:
        clients = [Factored(0.5 * rng.normal(size=(7, 5))) for _ in range(3)]
        start = {name: 0.3 * rng.normal(size=shape) for name, shape in SHAPES.items()}
    federation = Federation(clients, (1, 1, 1), start, scaffold=True)
    for cohort in cohorts:
        federation.round(cohort)
    x, c, c_of = algorithm_1(clients, start, cohorts)
    assert np.isfinite(np.concatenate([array.ravel() for array in x.values()])).all()
    for name in start:
        np.testing.assert_allclose(federation.shared[name].numpy(), x[name], rtol=0, atol=1e-12)
        np.testing.assert_allclose(federation.control[name].numpy(), c[name], rtol=0, atol=1e-11)
        for mine, theirs in zip(federation.controls, c_of, strict=True):
            np.testing.assert_allclose(mine[name].numpy(), theirs[name], rtol=0, atol=1e-11)


@pytest.mark.parametrize("counts", [(1, 1), (3, 17)], ids=["uniform", "by examples"])
def test_scaffold_reaches_the_optimum_that_fedavg_misses(counts: tuple[int, int]) -> None:
    clients, start = quadratics(2), {"w": np.zeros(3)}
    weights = [count / sum(counts) for count in counts]
    best, astray = optimum(clients, weights), fedavg_end(clients, weights)
    assert np.linalg.norm(best - astray) > 0.05
    scaffold = Federation(clients, counts, start, scaffold=True)
    fedavg = Federation(clients, counts, start, scaffold=False)
    for _ in range(150):
        scaffold.round((0, 1))
        fedavg.round((0, 1))
    assert scaffold.error(best) < 1e-9
    assert fedavg.error(astray) < 1e-9
    # At the optimum every control is its client's own gradient, and the server's is zero.
    for client, control in zip(clients, scaffold.controls, strict=True):
        np.testing.assert_allclose(control["w"].numpy(), client.gradients({"w": best})["w"], rtol=0, atol=1e-8)
    assert float(scaffold.control["w"].norm()) < 1e-8


def test_scaffold_with_part_of_the_clients_reaches_the_optimum() -> None:
    clients = quadratics(3)
    federation = Federation(clients, (1, 1, 1), {"w": np.zeros(3)}, scaffold=True)
    for round_idx in range(240):
        federation.round([(0, 1), (1, 2), (0, 2)][round_idx % 3])
    assert federation.error(optimum(clients, [1 / 3] * 3)) < 1e-8


def test_scaffold_with_one_local_step_is_fedavg() -> None:
    """The corrections cancel in the mean as long as c is the mean of the c_i."""
    clients, start = quadratics(3), {"w": np.ones(3)}
    scaffold, fedavg = (Federation(clients, (3, 17, 2), start, scaffold=on) for on in (True, False))
    for _ in range(10):
        scaffold.round((0, 1, 2), num_steps=1)
        fedavg.round((0, 1, 2), num_steps=1)
        torch.testing.assert_close(scaffold.shared, fedavg.shared, rtol=0, atol=1e-13)


@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.AdamW])
def test_fedprox_trains_as_on_the_loss_with_its_term(optimizer_type: type[torch.optim.Optimizer]) -> None:
    rng = np.random.default_rng(9)
    mu, client = 0.6, Factored(rng.normal(size=(7, 5)))
    start = {name: torch.from_numpy(rng.normal(size=shape)) for name, shape in SHAPES.items()}
    ends = []
    for corrected in (True, False):
        parameters = {name: nn.Parameter(tensor.clone()) for name, tensor in start.items()}
        proximal = Proximal(parameters, mu)
        optimizer = optimizer_type(parameters.values(), lr=0.01)
        for _ in range(NUM_STEPS):
            optimizer.zero_grad()
            loss = client.loss(parameters)
            if not corrected:
                term = sum((parameter - start[name]).square().sum() for name, parameter in parameters.items())
                loss = loss + mu / 2 * term
            loss.backward()
            if corrected:
                proximal.apply()
            optimizer.step()
        ends.append(snapshot(parameters))
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-11)


def test_fedprox_ends_at_the_proximal_point() -> None:
    """Enough local steps on a quadratic end at (H + mu I)^-1 (H a + mu w0), not at the client's own minimum a."""
    mu, client = 0.8, quadratics(1)[0]
    start = np.array([1.0, -2.0, 0.5])
    parameters = {"w": nn.Parameter(torch.from_numpy(start).clone())}
    proximal = Proximal(parameters, mu)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        client.loss(parameters).backward()
        proximal.apply()
        optimizer.step()
    expected = np.linalg.solve(client.curvature + mu * np.eye(3), client.curvature @ client.minimum + mu * start)
    np.testing.assert_allclose(parameters["w"].detach().numpy(), expected, rtol=0, atol=1e-11)
    assert np.linalg.norm(expected - client.minimum) > 0.5
