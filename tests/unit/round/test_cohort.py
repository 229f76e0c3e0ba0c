"""The mean is exact in order and close to the true mean; the stack is exact in every bit; the cohort is a pure draw."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedlit.algebra.tensors import TensorDict, checksum, snapshot
from fedlit.errors import DivergenceError
from fedlit.process import communication
from fedlit.round.cohort import (
    FRACTION_BITS,
    LARGEST,
    ClientUpdate,
    Cohort,
    sample_cohort,
    uniform_weights,
    weights_by_examples,
)

SHAPES = {"layer.A": (3, 5), "layer.B": (7, 3), "scale": ()}
BITS = {torch.float32: torch.int32, torch.float64: torch.int64}

Clients = dict[int, TensorDict]
Groups = Sequence[Sequence[int]]
"""Which clients each process adds, in its order."""


def random_clients(num: int, seed: int, dtype: torch.dtype, size: float = 1.0) -> Clients:
    generator = torch.Generator().manual_seed(seed)
    return {
        10 * client + 3: {
            name: torch.randn(shape, generator=generator, dtype=dtype) * size for name, shape in SHAPES.items()
        }
        for client in range(num)
    }


def cohort_of(clients: Clients, weights: Sequence[float], mine: Sequence[int], *, stacks: bool = False) -> Cohort:
    """Return the cohort as one process sees it that trained the clients `mine`, in this order."""
    like = {name: torch.zeros_like(tensor) for name, tensor in next(iter(clients.values())).items()}
    cohort = Cohort(list(clients), weights, like, round_idx=3, stacks=stacks)
    for client_id in mine:
        cohort.add(ClientUpdate(client_id=client_id, num_examples=1, shared=clients[client_id], metrics={}))
    return cohort


def on_processes(build: Callable[[Sequence[int]], Cohort], groups: Groups, ask: Callable[[Cohort], TensorDict]) -> list:
    """Return every process's answer, where the collective adds up the buffers of all of them."""
    buffers: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(communication, "sum_in_place", lambda buffer: buffers.append(buffer.clone()))
        for mine in groups:
            ask(build(mine))
        assert len(buffers) == len(groups), "one collective for each question"
        assert not any(buffer.is_floating_point() for buffer in buffers)
        total = torch.stack(buffers).sum(0, dtype=buffers[0].dtype)
        patch.setattr(communication, "sum_in_place", lambda buffer: buffer.copy_(total))
        return [ask(build(mine)) for mine in groups]


def exact_mean(clients: Clients, weights: Sequence[float], name: str) -> list[Fraction]:
    columns = zip(*(tensors[name].reshape(-1).tolist() for tensors in clients.values()), strict=True)
    return [sum(Fraction(p) * Fraction(x) for p, x in zip(weights, column, strict=True)) for column in columns]


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(BITS[tensor.dtype])


COUNTS = st.lists(st.integers(1, 5000), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(COUNTS, st.integers(0, 2**32))
def test_the_mean_is_the_weighted_mean(counts: list[int], seed: int) -> None:
    """Against rational arithmetic: one rounding to 2**-44 a client, and float64's own of the product."""
    clients = random_clients(len(counts), seed, torch.float64)
    weights = weights_by_examples(counts)
    mean = cohort_of(clients, weights, list(clients)).mean()
    bound = len(counts) * Fraction(1, 2**45) * Fraction(257, 256)
    for name, tensor in mean.items():
        values = [Fraction(value) for value in tensor.reshape(-1).tolist()]
        exact = exact_mean(clients, weights, name)
        assert max(abs(value - true) for value, true in zip(values, exact, strict=True)) <= bound
        average = np.average(np.stack([client[name].numpy() for client in clients.values()]), axis=0, weights=counts)
        np.testing.assert_allclose(tensor.numpy(), average, rtol=0, atol=len(counts) * 2.0**-45 + 1e-14)


def test_a_float32_mean_is_the_true_one_rounded() -> None:
    clients = random_clients(5, 0, torch.float32)
    weights = weights_by_examples([1, 20, 300, 7, 11])
    for name, tensor in cohort_of(clients, weights, list(clients)).mean().items():
        assert tensor.dtype == torch.float32
        assert tensor.shape == SHAPES[name]
        exact = torch.tensor([float(value) for value in exact_mean(clients, weights, name)], dtype=torch.float64)
        assert torch.equal(tensor.reshape(-1), exact.float())


@st.composite
def dealt(draw: st.DrawFn) -> tuple[list[int], Groups]:
    """Draw counts of clients, an order in which they finish and a deal to 1 to 4 processes, some with none."""
    counts = draw(COUNTS)
    order = draw(st.permutations([10 * client + 3 for client in range(len(counts))]))
    processes = draw(st.lists(st.integers(0, 3), min_size=len(counts), max_size=len(counts)))
    return counts, [
        [client for client, place in zip(order, processes, strict=True) if place == process] for process in range(4)
    ]


@settings(deadline=None, max_examples=60)
@given(dealt(), st.integers(0, 2**32), st.sampled_from([torch.float32, torch.float64]), st.integers(-6, 4))
def test_neither_order_nor_processes_change_a_bit(
    deal: tuple[list[int], Groups], seed: int, dtype: torch.dtype, exponent: int
) -> None:
    counts, groups = deal
    clients = random_clients(len(counts), seed, dtype, size=10.0**exponent)
    weights = weights_by_examples(counts)
    expected = checksum(cohort_of(clients, weights, list(clients)).mean())
    answers = on_processes(lambda mine: cohort_of(clients, weights, mine), groups, Cohort.mean)
    assert {checksum(answer) for answer in answers} == {expected}


@pytest.mark.parametrize("dtype", BITS)
def test_a_sum_of_floats_depends_on_the_order(dtype: torch.dtype) -> None:
    """The property above is one that the obvious implementation does not have."""
    clients = [client["layer.A"] for client in random_clients(6, 0, dtype).values()]
    weights = weights_by_examples([3, 5, 7, 11, 13, 17])
    terms = [weight * client for weight, client in zip(weights, clients, strict=True)]
    orders = [random.Random(seed).sample(terms, len(terms)) for seed in range(20)]
    assert len({checksum({"sum": sum(order, torch.zeros(()))}) for order in orders}) > 1


ORDINARY = st.floats(2.0**-16, 2.0**14, width=32).flatmap(lambda value: st.sampled_from([value, -value, 0.0]))


@settings(deadline=None)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8), st.lists(ORDINARY, min_size=1, max_size=30))
def test_identical_clients_are_a_fixed_point(counts: list[int], values: list[float]) -> None:
    x = torch.tensor(values)
    clients: Clients = {client: {"x": x} for client in range(len(counts))}
    mean = cohort_of(clients, weights_by_examples(counts), list(clients)).mean()["x"]
    assert torch.equal(mean, x)


def test_one_client_is_its_own_mean() -> None:
    for dtype, size in ((torch.float32, 1.0), (torch.float64, 1.0), (torch.float32, 1e4)):
        clients = random_clients(1, 0, dtype, size)
        (only,) = clients.values()
        mean = cohort_of(clients, (1.0,), list(clients)).mean()
        for name, tensor in only.items():
            assert float((mean[name] - tensor).abs().max()) <= 2.0**-45
            assert dtype == torch.float64 or torch.equal(mean[name], tensor)


def test_the_resolution_is_absolute() -> None:
    """Below 2**-45 a value is no more than zero: what a learning rate that small would write is lost."""
    values = torch.tensor([2.0**-44, 2.0**-46, -(2.0**-44), 0.0], dtype=torch.float64)
    mean = cohort_of({0: {"x": values}}, (1.0,), [0]).mean()["x"]
    assert mean.tolist() == [2.0**-44, 0.0, -(2.0**-44), 0.0]


@pytest.mark.parametrize("dtype", BITS)
def test_what_no_client_changed_is_the_server_s_to_the_bit(dtype: torch.dtype) -> None:
    """At any magnitude, also below the resolution, and with weights that do not sum to 1 to the last bit."""
    server = {"x": torch.tensor([3e-20, -1.1, 77777.7, 2.0**-50, -0.0], dtype=dtype)}
    cohort = Cohort([0, 1, 2], weights_by_examples([1, 2, 4]), server, round_idx=0, stacks=False)
    for client_id in range(3):
        cohort.add(ClientUpdate(client_id=client_id, num_examples=1, shared=server, metrics={}))
    assert torch.equal(cohort.mean()["x"], server["x"])


def test_the_largest_values_do_not_overflow() -> None:
    peak = LARGEST * (1 - 2.0**-50)
    for sign in (1, -1):
        clients: Clients = {client: {"x": torch.full((2,), sign * peak, dtype=torch.float64)} for client in range(7)}
        mean = cohort_of(clients, weights_by_examples([1, 2, 3, 4, 5, 6, 7]), list(clients)).mean()["x"]
        assert mean.tolist() == pytest.approx([sign * peak] * 2, rel=1e-15)
    assert FRACTION_BITS + 18 < 63


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), LARGEST, -LARGEST, 1e38])
@pytest.mark.parametrize("dtype", BITS)
def test_what_cannot_be_summed_is_named(value: float, dtype: torch.dtype) -> None:
    clients = random_clients(3, 0, dtype)
    clients[23]["layer.B"][4, 1] = value
    with pytest.raises(DivergenceError) as caught:
        cohort_of(clients, uniform_weights([1, 1, 1]), list(clients))
    message = str(caught.value)
    assert "round 4, client 23: " in message
    assert "layer.B" in message
    assert "layer.A" not in message
    assert "\n" not in message
    assert "local.lr" in message


@pytest.mark.parametrize("dtype", BITS)
def test_a_client_s_tensors_are_left_as_they_are(dtype: torch.dtype) -> None:
    clients = random_clients(3, 0, dtype)
    before = {client: checksum(tensors) for client, tensors in clients.items()}
    cohort_of(clients, weights_by_examples([1, 2, 3]), list(clients), stacks=True).mean()
    assert {client: checksum(tensors) for client, tensors in clients.items()} == before


@settings(deadline=None, max_examples=40)
@given(dealt(), st.integers(0, 2**32), st.sampled_from([torch.float32, torch.float64]))
def test_the_stack_is_every_client_in_the_cohort_s_order(
    deal: tuple[list[int], Groups], seed: int, dtype: torch.dtype
) -> None:
    counts, groups = deal
    clients = random_clients(len(counts), seed, dtype)
    for number, tensors in enumerate(clients.values()):
        tensors["layer.A"][0, number % 5] = -0.0
        tensors["layer.B"][number, 0] = -1e-40  # no sum in fixed point would give it back
    names = ["layer.B", "layer.A"]
    weights = weights_by_examples(counts)
    answers = on_processes(
        lambda mine: cohort_of(clients, weights, mine, stacks=True), groups, lambda cohort: cohort.stack(names)
    )
    for answer in answers:
        assert list(answer) == names
        for name in names:
            assert answer[name].shape == (len(clients), *SHAPES[name])
            for row, tensors in zip(answer[name], clients.values(), strict=True):
                assert torch.equal(bits(row), bits(tensors[name]))


def test_a_stack_must_be_asked_for() -> None:
    clients = random_clients(2, 0, torch.float32)
    with pytest.raises(AssertionError, match="must say so"):
        cohort_of(clients, (0.5, 0.5), list(clients)).stack(["layer.A"])


def test_the_mean_is_reduced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(communication, "sum_in_place", lambda buffer: calls.append(buffer.numel()))
    clients = random_clients(2, 0, torch.float32)
    cohort = cohort_of(clients, (0.25, 0.75), list(clients))
    first = snapshot(cohort.mean())
    assert checksum(cohort.mean()) == checksum(first)
    assert calls == [15 + 21 + 1]


def test_a_cohort_without_shared_tensors() -> None:
    cohort = Cohort([0], [1.0], {}, round_idx=0, stacks=False)
    cohort.add(ClientUpdate(client_id=0, num_examples=1, shared={}, metrics={}))
    assert cohort.mean() == {}


def test_a_client_is_of_the_cohort_and_comes_once() -> None:
    clients = random_clients(2, 0, torch.float32)
    with pytest.raises(AssertionError, match="twice"):
        cohort_of(clients, (0.5, 0.5), [3, 3])
    cohort = cohort_of(clients, (0.5, 0.5), [])
    with pytest.raises(AssertionError, match="not of this cohort"):
        cohort.add(ClientUpdate(client_id=4, num_examples=1, shared=clients[3], metrics={}))
    with pytest.raises(AssertionError):
        cohort.add(ClientUpdate(client_id=3, num_examples=1, shared={"layer.A": clients[3]["layer.A"]}, metrics={}))
    with pytest.raises(AssertionError):
        cohort_of(clients, (0.5, 0.6), [])


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_weights(counts: list[int]) -> None:
    weights = weights_by_examples(counts)
    assert weights == tuple(count / sum(counts) for count in counts)
    assert uniform_weights(counts) == (1 / len(counts),) * len(counts)
    assert sum(weights) == pytest.approx(1, abs=1e-12)


@given(st.integers(1, 40), st.data(), st.integers(0, 2**64), st.integers(0, 10**6))
def test_a_cohort_is_a_sorted_pure_draw(num_clients: int, data: st.DataObject, seed: int, round_idx: int) -> None:
    size = data.draw(st.integers(1, num_clients))
    cohort = sample_cohort(num_clients, size, seed, round_idx)
    np.random.seed(1)  # the global generator plays no part
    sample_cohort(num_clients, size, seed, round_idx + 1)
    assert cohort == sample_cohort(num_clients, size, seed, round_idx)
    assert list(cohort) == sorted(set(cohort))
    assert len(cohort) == size
    assert set(cohort) <= set(range(num_clients))
    assert all(type(client) is int for client in cohort)


def test_every_client_is_drawn_alike() -> None:
    """600 cohorts of 3 of 10: 180 expected of each client, standard deviation 11.2."""
    drawn = Counter(client for round_idx in range(600) for client in sample_cohort(10, 3, 0, round_idx))
    assert set(drawn) == set(range(10))
    assert all(abs(count - 180) < 5 * 11.2 for count in drawn.values())
    assert len({sample_cohort(10, 3, 0, round_idx) for round_idx in range(50)}) > 25
    assert len({sample_cohort(10, 3, seed, 0) for seed in range(50)}) > 25
