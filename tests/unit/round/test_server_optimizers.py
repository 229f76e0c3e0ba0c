"""Server optimizers against a loop over scalars, against torch's optimizers where they coincide, and what must stay."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.round.server import ServerState
from fedlit.round.server_optimizers import SERVER_OPTIMIZERS, step

SHAPES = {"layer.lora_A.weight": (2, 5), "layer.lora_B.weight": (7, 2)}
ADAPTIVE = sorted(SERVER_OPTIMIZERS.keys() - {"fedavgm"})
NUM_ROUNDS = 6


@dataclass(frozen=True)
class Numbers:
    lr: float = 0.7
    beta1: float = 0.8
    beta2: float = 0.95
    tau: float = 0.03


def random_shared(seed: int, dtype: torch.dtype = torch.float64) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in SHAPES.items()}


def random_deltas(num_rounds: int = NUM_ROUNDS) -> list[TensorDict]:
    """Return changes of very different sizes, above and below tau, some elements exactly zero."""
    deltas = [random_shared(100 + round_idx) for round_idx in range(num_rounds)]
    for round_idx, delta in enumerate(deltas):
        for tensor in delta.values():
            tensor.mul_(10.0 ** -(round_idx % 3))
            tensor[0, 0] = 0.0
    return deltas


def run(name: str, options: Numbers, deltas: Sequence[TensorDict], server: ServerState) -> list[ServerState]:
    """Return the server after every round, where the mean is the server's value plus a given change."""
    states = []
    for delta in deltas:
        mean = {key: value + delta[key] for key, value in server.shared.items()}
        server = step(name, options, server, replace(server, shared=mean))
        states.append(server)
    return states


def published(name: str, options: Numbers, x: float, deltas: Sequence[float]) -> list[tuple[float, float, float]]:
    """Return x, m, v of one element after every round: the algorithms as printed, one scalar at a time."""
    m, v = 0.0, options.tau**2
    rows = []
    for delta in deltas:
        if name == "fedavgm":
            m = options.beta1 * m + delta
            x = x + options.lr * m
        else:
            m = options.beta1 * m + (1 - options.beta1) * delta
            if name == "fedadagrad":
                v = v + delta**2
            elif name == "fedyogi":
                sign = (v > delta**2) - (v < delta**2)
                v = v - (1 - options.beta2) * delta**2 * sign
            else:
                v = options.beta2 * v + (1 - options.beta2) * delta**2
            x = x + options.lr * m / (math.sqrt(v) + options.tau)
        rows.append((x, m, v))
    return rows


@pytest.mark.parametrize("name", SERVER_OPTIMIZERS)
def test_every_element_takes_the_published_steps(name: str) -> None:
    options, deltas, server = Numbers(), random_deltas(), ServerState(shared=random_shared(0))
    states = run(name, options, deltas, server)
    for key, (rows, columns) in SHAPES.items():
        for i in range(rows):
            for j in range(columns):
                changes = [float(delta[key][i, j]) for delta in deltas]
                expected = published(name, options, float(server.shared[key][i, j]), changes)
                for state, (x, m, v) in zip(states, expected, strict=True):
                    assert float(state.shared[key][i, j]) == pytest.approx(x, rel=0, abs=1e-12)
                    assert float(state.optimizer[f"m/{key}"][i, j]) == pytest.approx(m, rel=0, abs=1e-13)
                    if name != "fedavgm":
                        assert float(state.optimizer[f"v/{key}"][i, j]) == pytest.approx(v, rel=0, abs=1e-13)


def of_torch(name: str, options: Numbers, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return torch's optimizer that takes the same steps from gradients -delta."""
    if name == "fedavgm":
        return torch.optim.SGD(parameters, lr=options.lr, momentum=options.beta1)
    if name == "fedadagrad":  # torch's has no momentum
        return torch.optim.Adagrad(parameters, lr=options.lr, initial_accumulator_value=options.tau**2, eps=options.tau)
    optimizer = torch.optim.Adam(parameters, lr=options.lr, betas=(options.beta1, options.beta2), eps=options.tau)
    for parameter in parameters:  # after a million steps the bias correction is 1 to the last bit
        optimizer.state[parameter] = {
            "step": torch.tensor(1e6),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.full_like(parameter, options.tau**2),
        }
    return optimizer


@pytest.mark.parametrize(
    ("name", "options"),
    [("fedavgm", Numbers()), ("fedadagrad", Numbers(beta1=0.0)), ("fedadam", Numbers())],
    ids=["fedavgm", "fedadagrad", "fedadam"],
)
def test_they_are_torch_s_optimizers_on_the_pseudo_gradient(name: str, options: Numbers) -> None:
    server, deltas = ServerState(shared=random_shared(1)), random_deltas()
    parameters = {key: torch.nn.Parameter(value.clone()) for key, value in server.shared.items()}
    optimizer = of_torch(name, options, list(parameters.values()))
    for state, delta in zip(run(name, options, deltas, server), deltas, strict=True):
        for key, parameter in parameters.items():
            parameter.grad = -delta[key]
        optimizer.step()
        for key, parameter in parameters.items():
            torch.testing.assert_close(state.shared[key], parameter.data, rtol=0, atol=1e-12)


def test_fedadam_has_no_bias_correction() -> None:
    """Torch's Adam from the same start goes elsewhere: the coincidence above is of the corrected case only."""
    server, deltas = ServerState(shared=random_shared(1)), random_deltas(1)
    after = run("fedadam", Numbers(), deltas, server)[0]
    for key, value in server.shared.items():
        parameter = torch.nn.Parameter(value.clone())
        parameter.grad = -deltas[0][key]
        torch.optim.Adam([parameter], lr=0.7, betas=(0.8, 0.95), eps=0.03).step()
        assert (after.shared[key] - parameter).abs().max() > 0.01


@given(st.integers(0, 2**32), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_fedavgm_without_momentum_at_lr_1_is_fedavg_to_the_bit(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    server = ServerState(shared={"w": torch.zeros(40, dtype=dtype)})
    for _ in range(3):
        exponents = torch.randint(-18, 5, (40,), generator=generator)
        mean = (torch.randn(40, generator=generator, dtype=torch.float64) * 10.0**exponents).to(dtype)
        server = step("fedavgm", Numbers(lr=1.0, beta1=0.0), server, replace(server, shared={"w": mean}))
        assert torch.equal(server.shared["w"], mean)
        assert server.shared["w"].dtype == dtype


@pytest.mark.parametrize("name", SERVER_OPTIMIZERS)
def test_a_tensor_that_never_changes_keeps_its_bits(name: str) -> None:
    server = ServerState(shared=random_shared(2, torch.float32))
    still, moving = SHAPES
    start = server.shared[still].clone()
    for round_idx in range(NUM_ROUNDS):
        mean = {still: server.shared[still].clone(), moving: random_shared(round_idx, torch.float32)[moving]}
        server = step(name, Numbers(), server, replace(server, shared=mean))
        assert torch.equal(server.shared[still], start)
        assert not server.optimizer[f"m/{still}"].any()
    assert server.optimizer[f"m/{moving}"].abs().min() > 0


@pytest.mark.parametrize("name", SERVER_OPTIMIZERS)
def test_a_tensor_that_was_not_trained_in_a_round_waits_with_its_moments(name: str) -> None:
    """Two factors in alternate rounds go as each would alone: momentum does not move one in the round of the other."""
    factors, deltas = list(SHAPES), random_deltas()
    begin = server = ServerState(shared=random_shared(3))
    for round_idx, delta in enumerate(deltas):
        trained = factors[round_idx % 2]
        mean = {**server.shared, trained: server.shared[trained] + delta[trained]}
        server = step(name, Numbers(), server, replace(server, shared=mean), trained={trained})
    for parity, factor in enumerate(factors):
        alone = ServerState(shared={factor: begin.shared[factor]})
        expected = run(name, Numbers(), [{factor: delta[factor]} for delta in deltas[parity::2]], alone)[-1]
        assert torch.equal(server.shared[factor], expected.shared[factor])
        for key, moment in expected.optimizer.items():
            assert torch.equal(server.optimizer[key], moment)


@pytest.mark.parametrize("name", SERVER_OPTIMIZERS)
def test_everything_else_is_the_rule_s(name: str) -> None:
    before = ServerState(
        round_idx=4, shared=random_shared(4), frozen={"w": torch.zeros(2)}, optimizer={"c/x": torch.zeros(3)}
    )
    copies = snapshot(before.shared)
    after = replace(
        before, round_idx=5, shared=random_shared(5), frozen={"w": torch.ones(2)}, optimizer={"c/x": torch.ones(3)}
    )
    mean = snapshot(after.shared)
    result = step(name, Numbers(), before, after)
    assert result.round_idx == 5
    assert result.frozen is after.frozen
    assert torch.equal(result.optimizer["c/x"], torch.ones(3))
    kinds = "m" if name == "fedavgm" else "mv"
    assert result.optimizer.keys() == {"c/x"} | {f"{kind}/{key}" for kind in kinds for key in SHAPES}
    second = step(name, Numbers(), result, replace(result, shared=random_shared(6)))
    assert second.optimizer.keys() == result.optimizer.keys()
    for key, value in copies.items():
        assert torch.equal(before.shared[key], value)
        assert torch.equal(after.shared[key], mean[key])


@pytest.mark.parametrize("name", ADAPTIVE)
def test_an_adaptive_step_is_about_lr_whatever_the_size_of_the_change(name: str) -> None:
    server = ServerState(shared={"w": torch.zeros(3, dtype=torch.float64)})
    options = Numbers(lr=0.01, beta1=0.0, beta2=0.0, tau=1e-6)
    after = run(name, options, [{"w": torch.tensor([1e-3, -0.1, 100.0], dtype=torch.float64)}], server)[0]
    torch.testing.assert_close(after.shared["w"], torch.tensor([0.01, -0.01, 0.01]).double(), rtol=2e-3, atol=0)


@pytest.mark.parametrize(
    ("dtype", "moments"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_moments_have_the_parameter_s_type_but_float32_at_least(dtype: torch.dtype, moments: torch.dtype) -> None:
    server = ServerState(shared=random_shared(7, dtype))
    after = step("fedyogi", Numbers(), server, replace(server, shared=random_shared(8, dtype)))
    assert {tensor.dtype for tensor in after.shared.values()} == {dtype}
    assert {tensor.dtype for tensor in after.optimizer.values()} == {moments}


def test_nothing_is_left_to_autograd() -> None:
    server = ServerState(shared={"w": torch.zeros(3, requires_grad=True)})
    after = step("fedadam", Numbers(), server, replace(server, shared={"w": torch.ones(3, requires_grad=True)}))
    assert not any(tensor.requires_grad for tensor in (*after.shared.values(), *after.optimizer.values()))


def test_our_own_mistakes_are_asserted() -> None:
    server = ServerState(shared=random_shared(9))
    with pytest.raises(AssertionError, match="fedsgd is none of fedavgm"):
        step("fedsgd", Numbers(), server, server)
    with pytest.raises(AssertionError, match="names of the shared tensors"):
        step("fedadam", Numbers(), server, replace(server, shared={"other": torch.zeros(1)}))
