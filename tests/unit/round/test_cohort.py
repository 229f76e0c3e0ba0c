"""The mean is exact in order and close to the true mean, of those who returned; the stack is exact in every bit."""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from factor_rounds import make_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedlit.algebra import pieces
from fedlit.algebra.tensors import TensorDict, checksum, snapshot
from fedlit.errors import DivergenceError, UserError
from fedlit.process import communication
from fedlit.round.cohort import Cohort
from fedlit.round.fixed_point import LARGEST
from fedlit.round.payload import MODEL, Payload
from fedlit.round.plan import uniform_weights, weights_by_examples

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


def cohort_of(clients: Clients, weights: Sequence[float], mine: Sequence[int], *, keeps: bool = False) -> Cohort:
    """Return the cohort as one process sees it that trained the clients `mine`, in this order."""
    like = {name: torch.zeros_like(tensor) for name, tensor in next(iter(clients.values())).items()}
    cohort = Cohort(make_plan(list(clients), weights, round_idx=3), {MODEL: like}, keeps=keeps)
    for client_id in mine:
        cohort.add(client_id, {MODEL: clients[client_id]})
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
    cohort = Cohort(make_plan(range(3), weights_by_examples([1, 2, 4])), {MODEL: server})
    for client_id in range(3):
        cohort.add(client_id, {MODEL: server})
    assert torch.equal(cohort.mean()["x"], server["x"])


def test_the_largest_values_do_not_overflow() -> None:
    peak = LARGEST * (1 - 2.0**-50)
    for sign in (1, -1):
        clients: Clients = {client: {"x": torch.full((2,), sign * peak, dtype=torch.float64)} for client in range(7)}
        mean = cohort_of(clients, weights_by_examples([1, 2, 3, 4, 5, 6, 7]), list(clients)).mean()["x"]
        assert mean.tolist() == pytest.approx([sign * peak] * 2, rel=1e-15)


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


@pytest.mark.parametrize("told", [False, True])
def test_of_a_client_that_cannot_be_summed_nothing_is_added(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last scalar is the bad one: what stands before it must not be in the sum. A magnitude that was read before
    is not read again.
    """
    monkeypatch.setattr(pieces, "CPU_PIECE", 4)
    clients = random_clients(3, 0, torch.float32)
    cohort = cohort_of(clients, uniform_weights([1, 1, 1]), [3, 13])
    expected = cohort._total._buffer.clone()
    clients[23]["scale"] = torch.tensor(float("nan"))
    with pytest.raises(DivergenceError, match="scale has magnitude nan"):
        cohort.add(23, {MODEL: clients[23]}, float("nan") if told else None)
    assert torch.equal(cohort._total._buffer, expected)
    if told:
        monkeypatch.setattr(Tensor, "item", None)
        clients[23]["scale"] = torch.tensor(1.0)
        cohort.add(23, {MODEL: clients[23]}, 7.0)
        assert not torch.equal(cohort._total._buffer, expected)


@pytest.mark.parametrize("dtype", BITS)
def test_a_client_s_tensors_are_left_as_they_are(dtype: torch.dtype) -> None:
    clients = random_clients(3, 0, dtype)
    before = {client: checksum(tensors) for client, tensors in clients.items()}
    cohort_of(clients, weights_by_examples([1, 2, 3]), list(clients), keeps=True).mean()
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
        lambda mine: cohort_of(clients, weights, mine, keeps=True), groups, lambda cohort: cohort.stack(names)
    )
    for answer in answers:
        assert list(answer) == names
        for name in names:
            assert answer[name].shape == (len(clients), *SHAPES[name])
            for row, tensors in zip(answer[name], clients.values(), strict=True):
                assert torch.equal(bits(row), bits(tensors[name]))


def test_a_stack_must_be_asked_for() -> None:
    clients = random_clients(2, 0, torch.float32)
    cohort = cohort_of(clients, (0.5, 0.5), list(clients))
    with pytest.raises(UserError, match="must say so in its class: stacks"):
        cohort.stack(["layer.A"])
    with pytest.raises(UserError, match="must say so in its class: asks_again"):
        cohort.mean_of(lambda tensors: tensors)


def test_the_mean_is_reduced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(communication, "sum_in_place", lambda buffer: calls.append(buffer.numel()))
    clients = random_clients(2, 0, torch.float32)
    cohort = cohort_of(clients, (0.25, 0.75), list(clients))
    first = snapshot(cohort.mean())
    assert checksum(cohort.mean()) == checksum(first)
    assert calls == [15 + 21 + 1]


def test_a_cohort_without_shared_tensors() -> None:
    cohort = Cohort(make_plan([0], [1.0]), {MODEL: {}})
    cohort.add(0, {MODEL: {}})
    assert cohort.mean() == {}


def test_a_client_is_of_the_cohort_and_comes_once() -> None:
    clients = random_clients(2, 0, torch.float32)
    with pytest.raises(AssertionError, match="twice"):
        cohort_of(clients, (0.5, 0.5), [3, 3])
    cohort = cohort_of(clients, (0.5, 0.5), [])
    with pytest.raises(AssertionError, match="not of this cohort"):
        cohort.add(4, {MODEL: clients[3]})
    wrong: list[Payload] = [
        {MODEL: {"layer.A": clients[3]["layer.A"]}},
        {MODEL: clients[3], "more": {"x": torch.zeros(1)}},
        {"control": clients[3]},
    ]
    for payload in wrong:
        with pytest.raises(AssertionError, match="groups and names"):
            cohort.add(3, payload)
    with pytest.raises(AssertionError, match="sum to 1"):
        cohort_of(clients, (0.5, 0.6), [])
    for returned in ([3], [3, 13, 23]):  # one that was added is missing, one that was not planned is there
        cohort = cohort_of(clients, (0.5, 0.5), [3, 13])
        with pytest.raises(AssertionError):
            cohort.close(returned)


def test_the_mean_is_the_caller_s_own() -> None:
    """A rule may put other tensors into it; whoever asks next gets the mean."""
    clients = random_clients(2, 0, torch.float32)
    cohort = cohort_of(clients, (0.25, 0.75), list(clients))
    expected = checksum(cohort.mean())
    cohort.mean()["layer.A"] = torch.zeros(1)
    assert checksum(cohort.mean()) == expected


# Groups beside the model


CONTROL = {"layer.A": (3, 5), "c": (4,)}
"""One name of the model's, one of its own."""


def with_control(clients: Clients) -> dict[int, Payload]:
    """Return payloads of two groups, in two types."""
    generator = torch.Generator().manual_seed(9)
    return {
        client: {
            MODEL: tensors,
            "control": {name: torch.randn(shape, generator=generator) for name, shape in CONTROL.items()},
        }
        for client, tensors in clients.items()
    }


def test_all_groups_are_summed_by_one_collective(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(communication, "sum_in_place", lambda buffer: calls.append(buffer.numel()))
    payloads, weights = with_control(random_clients(3, 0, torch.float64)), weights_by_examples([1, 2, 5])
    server = {group: snapshot(tensors) for group, tensors in payloads[3].items()} | {"empty": {}}
    cohort = Cohort(make_plan(list(payloads), weights), server)
    for client_id, payload in payloads.items():
        cohort.add(client_id, {**payload, "empty": {}})
    means = {group: cohort.mean(group) for group in ("control", MODEL, "empty", "control")}
    assert calls == [15 + 21 + 1 + 15 + 4]
    assert means.keys() == server.keys()
    for group, tensors in means.items():
        assert tensors.keys() == server[group].keys()
        for name, tensor in tensors.items():
            pairs = zip(weights, payloads.values(), strict=True)
            expected = sum(weight * payload[group][name].double() for weight, payload in pairs)
            assert tensor.dtype == server[group][name].dtype
            torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-7 if group == "control" else 1e-12)


def test_what_a_transform_makes_of_the_means_is_what_all_ask_for() -> None:
    """It is called once, with the means of all groups."""
    payloads, seen = with_control(random_clients(2, 0, torch.float64)), []

    def on_server(means: Payload) -> Payload:
        seen.append({group: list(tensors) for group, tensors in means.items()})
        return {group: {name: tensor * 2 for name, tensor in tensors.items()} for group, tensors in means.items()}

    cohorts = [
        Cohort(make_plan(list(payloads), (0.25, 0.75)), payloads[3], on_server=function)
        for function in (None, on_server)
    ]
    for cohort in cohorts:
        for client_id, payload in payloads.items():
            cohort.add(client_id, payload)
    for group in ("control", MODEL, "control"):
        plain, doubled = (cohort.mean(group) for cohort in cohorts)
        assert all(torch.equal(tensor, 2 * plain[name]) for name, tensor in doubled.items())
    assert seen == [{MODEL: list(SHAPES), "control": list(CONTROL)}]


@pytest.mark.parametrize("group", [MODEL, "control"])
def test_nothing_of_a_client_that_cannot_be_summed_is_added(group: str) -> None:
    """Whichever group is to blame, which the message names: the mean is of the others."""
    payloads = with_control(random_clients(3, 0, torch.float64))
    payloads[13][group]["layer.A"][0, 0] = float("nan")
    weights = weights_by_examples([1, 2, 5])
    cohort = Cohort(make_plan(list(payloads), weights), {name: snapshot(part) for name, part in payloads[3].items()})
    for client_id in (3, 23):
        cohort.add(client_id, payloads[client_id])
    with pytest.raises(DivergenceError) as caught:
        cohort.add(13, payloads[13])
    assert caught.value.what == ("layer.A" if group == MODEL else "control/layer.A")
    assert (caught.value.round_number, caught.value.client_id) == (1, 13)
    cohort.close([3, 23])
    for name, tensor in cohort.mean().items():
        expected = (payloads[3][MODEL][name] + 5 * payloads[23][MODEL][name]) / 6
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-12)


# Clients that were lost


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 5000), min_size=2, max_size=6), st.data(), st.integers(0, 2**32))
def test_after_a_loss_the_mean_is_that_of_the_others(counts: list[int], data: st.DataObject, seed: int) -> None:
    """With their weights divided by their sum, as if the lost had never been planned."""
    clients, server = random_clients(len(counts), seed, torch.float64), random_clients(1, seed + 1, torch.float64)[3]
    weights = dict(zip(clients, weights_by_examples(counts), strict=True))
    lost = data.draw(st.sets(st.sampled_from(sorted(clients)), min_size=1, max_size=len(clients) - 1))
    returned = {client: tensors for client, tensors in clients.items() if client not in lost}
    share = sum(weights[client] for client in returned)
    renormalised = [weights[client] / share for client in returned]

    def of(planned: Sequence[int], p: Sequence[float]) -> Cohort:
        cohort = Cohort(make_plan(planned, p), {MODEL: server}, keeps=True)
        for client_id in reversed(returned):
            cohort.add(client_id, {MODEL: clients[client_id]})
        cohort.close(list(returned))
        return cohort

    cohort, expected = of(list(clients), list(weights.values())), of(list(returned), renormalised)
    assert cohort.client_ids == tuple(returned)
    assert cohort.weights == pytest.approx(dict(zip(returned, renormalised, strict=True)), abs=1e-15)
    assert list(cohort.weights) == list(returned)
    atol = len(counts) * 2.0**-44 / share + 1e-13
    for ask in (Cohort.mean, lambda one: one.mean_of(lambda tensors: {"n": tensors["layer.A"] ** 2})):
        of_all, of_others = ask(cohort), ask(expected)
        for name, tensor in of_others.items():
            torch.testing.assert_close(of_all[name], tensor, rtol=0, atol=atol)
    for name, tensor in cohort.mean().items():
        naive = sum(p * clients[client][name] for client, p in zip(returned, renormalised, strict=True))
        torch.testing.assert_close(tensor, naive, rtol=0, atol=atol)
    assert cohort.stack(["layer.A"])["layer.A"].shape == (len(returned), 3, 5)
    for row, client in zip(cohort.stack(["layer.A"])["layer.A"], returned, strict=True):
        assert torch.equal(row, clients[client]["layer.A"])


def test_without_a_loss_the_weights_are_the_plan_s_to_the_bit() -> None:
    """No division by a sum that is 1 but for the last bits."""
    counts = [4, 3, 9, 8, 2, 2]
    weights = weights_by_examples(counts)
    assert sum(weights) != 1
    clients = random_clients(len(counts), 0, torch.float64)
    open_one, closed = (cohort_of(clients, weights, list(clients)) for _ in range(2))
    closed.close(list(reversed(clients)))
    assert closed.weights == open_one.weights == dict(zip(clients, weights, strict=True))
    assert checksum(closed.mean()) == checksum(open_one.mean())


def test_an_empty_round_has_no_mean() -> None:
    cohort = cohort_of(random_clients(2, 0, torch.float32), (0.5, 0.5), [])
    cohort.close([])
    assert cohort.weights == {}
    with pytest.raises(AssertionError, match="empty round"):
        cohort.mean()


# A question about every client's tensors


FUNCTIONS: dict[str, Callable[[TensorDict], TensorDict]] = {
    "squares": lambda tensors: {name: tensor**2 for name, tensor in tensors.items()},
    "one number": lambda tensors: {"loss": (tensors["layer.B"] @ tensors["layer.A"].mT[:3]).exp().clamp(max=9).sum()},
    "other names and shapes": lambda tensors: {
        "gram": tensors["layer.A"] @ tensors["layer.A"].T,
        "peak": tensors["layer.B"].abs().amax(1),
    },
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("counts", [[3], [3, 5], [1, 20, 300, 7]], ids=str)
def test_the_mean_of_a_function(counts: list[int], function: Callable[[TensorDict], TensorDict]) -> None:
    """Of every client's own tensors, not of their mean."""
    clients, weights = random_clients(len(counts), 0, torch.float64), weights_by_examples(counts)
    cohort = cohort_of(clients, weights, list(clients), keeps=True)
    values = [function(tensors) for tensors in clients.values()]
    answer = cohort.mean_of(function)
    assert answer.keys() == values[0].keys()
    for name, tensor in answer.items():
        naive = sum(weight * value[name] for weight, value in zip(weights, values, strict=True))
        torch.testing.assert_close(tensor, naive, rtol=0, atol=len(counts) * 2.0**-44 + 1e-12)
        if len(counts) > 1:
            assert (tensor - function(cohort.mean())[name]).abs().max() > 1e-3


def test_a_rule_may_ask_twice_about_two_clients() -> None:
    clients = random_clients(2, 1, torch.float64)
    cohort = cohort_of(clients, (0.25, 0.75), list(clients), keeps=True)
    first, second = clients.values()
    for power in (1, 2, 3):
        answer = cohort.mean_of(lambda tensors, power=power: {"x": tensors["layer.A"] ** power})["x"]
        naive = 0.25 * first["layer.A"] ** power + 0.75 * second["layer.A"] ** power
        torch.testing.assert_close(answer, naive, rtol=0, atol=1e-12)
    mean = cohort.mean()
    spread = cohort.mean_of(lambda tensors: {"x": (tensors["layer.A"] - mean["layer.A"]) ** 2})["x"]
    naive = 0.25 * 0.75 * (first["layer.A"] - second["layer.A"]) ** 2
    torch.testing.assert_close(spread, naive, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(dealt(), st.integers(0, 2**32), st.sampled_from([torch.float32, torch.float64]))
def test_neither_order_nor_processes_change_a_bit_of_an_answer(
    deal: tuple[list[int], Groups], seed: int, dtype: torch.dtype
) -> None:
    counts, groups = deal
    clients, weights = random_clients(len(counts), seed, dtype), weights_by_examples(counts)

    def ask(cohort: Cohort) -> TensorDict:
        return cohort.mean_of(FUNCTIONS["squares"])

    expected = checksum(ask(cohort_of(clients, weights, list(clients), keeps=True)))
    answers = on_processes(lambda mine: cohort_of(clients, weights, mine, keeps=True), groups, ask)
    assert {checksum(answer) for answer in answers} == {expected}


def test_an_answer_that_cannot_be_summed_is_named() -> None:
    clients = random_clients(2, 0, torch.float32)
    cohort = cohort_of(clients, (0.5, 0.5), list(clients), keeps=True)
    with pytest.raises(DivergenceError, match=r"round 4, client 3: .*loss"):
        cohort.mean_of(lambda tensors: {"loss": tensors["scale"] / 0 if tensors["scale"] else tensors["scale"]})
