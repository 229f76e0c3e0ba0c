"""LoRA-FAIR against its objective and its dense closed form (arXiv 2411.14961), in float64."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from factor_rounds import (
    WEIGHTS,
    Made,
    aggregated,
    close,
    dense_product,
    make_cohort,
    make_layers,
    make_plan,
    make_server,
    mean_product,
    random_factors,
    seeded,
)
from torch import Tensor

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.round.cohort import Cohort
from fedlit.round.payload import MODEL
from fedlit.round.private_sums import Release
from fedlit.round.rules.fedavg import FedAvg
from fedlit.round.rules.lora_fair import LoraFair
from fedlit.round.server import ServerState

WAYS = ("stack", "sums")
PENALTIES = (1e-8, 0.01, 3.0)


def trained_clients(server: ServerState, num_clients: int, seed: int = 1) -> dict[int, TensorDict]:
    generator = seeded(seed)
    return {3 * index: random_factors(server.layers, generator) for index in range(num_clients)}


def means(clients: dict[int, TensorDict], weights: Sequence[float], name: str) -> Tensor:
    total: Tensor = sum(weight * tensors[name] for weight, tensors in zip(weights, clients.values(), strict=True))  # type: ignore[assignment]
    return total


def target(layer: LoraLayer, clients: dict[int, TensorDict], weights: Sequence[float]) -> Tensor:
    """Return T = sum_i p_i B_i A_i, dense and without the scaling."""
    return mean_product(layer, clients, weights) / layer.scaling()


def by_inverse(goal: Tensor, a: Tensor, b: Tensor, penalty: float) -> Tensor:
    """Return B + (T - B A) A' (A A' + lambda I)^-1 by numpy."""
    goal_, a_, b_ = (tensor.numpy().astype(np.float64) for tensor in (goal, a, b))
    gram = a_ @ a_.T + penalty * np.eye(len(a_))
    return torch.from_numpy(b_ + np.linalg.solve(gram, a_ @ (goal_ - b_ @ a_).T).T)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("num_clients", sorted(WEIGHTS))
def test_the_closed_form(num_clients: int, penalty: float, way: str) -> None:
    server = make_server(make_layers(), seeded())
    clients, weights = trained_clients(server, num_clients), WEIGHTS[num_clients]
    after = aggregated(LoraFair(regularization=penalty, aggregate_by=way), server, clients, weights)
    for layer in server.layers:
        a, b = (means(clients, weights, name) for name in (layer.a, layer.b))
        assert close(after.shared[layer.a], a, 1e-12)
        assert close(after.shared[layer.b], by_inverse(target(layer, clients, weights), a, b, penalty), 1e-8)
    assert after.frozen is server.frozen


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("use_rslora", [False, True])
def test_no_step_from_it_makes_the_objective_smaller(penalty: float, way: str, use_rslora: bool) -> None:
    """The gradient of |T - (B + dB) A|^2 + lambda |dB|^2 by autograd, and the objective around it."""
    server = make_server(make_layers(use_rslora=use_rslora), seeded())
    clients, weights = trained_clients(server, 4), WEIGHTS[4]
    after = aggregated(LoraFair(regularization=penalty, aggregate_by=way), server, clients, weights)
    generator = seeded(5)
    for layer in server.layers:
        a, b = (means(clients, weights, name) for name in (layer.a, layer.b))
        goal = target(layer, clients, weights)

        def objective(correction: Tensor, a: Tensor = a, b: Tensor = b, goal: Tensor = goal) -> Tensor:
            return (goal - (b + correction) @ a).square().sum() + penalty * correction.square().sum()

        found = (after.shared[layer.b] - b).requires_grad_()
        objective(found).backward()
        start = torch.zeros_like(b, requires_grad=True)
        objective(start).backward()
        assert found.grad is not None
        assert start.grad is not None
        assert float(found.grad.norm()) < 1e-9 * float(start.grad.norm())
        least = float(objective(found.detach()))
        assert least < float(objective(torch.zeros_like(b)))
        for _ in range(5):
            step = 1e-3 * torch.randn(b.shape, generator=generator, dtype=b.dtype)
            assert float(objective(found.detach() + step)) > least


def test_the_correction_brings_the_product_nearer_to_the_mean_of_products() -> None:
    """Nearer than FedIT's; a large lambda is FedIT, a small one the projection on the rows of A."""
    server = make_server(make_layers(), seeded())
    clients, weights = trained_clients(server, 5), WEIGHTS[5]
    fedit = aggregated(FedAvg(), server, clients, weights)
    far = aggregated(LoraFair(regularization=1e12), server, clients, weights)
    missed: list[list[float]] = []
    for penalty in (0.0, 0.01, 1.0, 100.0):
        after = aggregated(LoraFair(regularization=penalty), server, clients, weights)
        missed.append(
            [
                float((dense_product(layer, after.shared) - mean_product(layer, clients, weights)).norm())
                for layer in server.layers
            ]
        )
    for place, layer in enumerate(server.layers):
        ideal = mean_product(layer, clients, weights)
        plain = float((dense_product(layer, fedit.shared) - ideal).norm())
        values = [row[place] for row in missed]
        assert values == sorted(values)
        assert values[-1] < plain
        assert close(far.shared[layer.b], fedit.shared[layer.b], 1e-9)
        a = means(clients, weights, layer.a)
        rows = torch.linalg.qr(a.T).Q
        assert values[0] == pytest.approx(float((ideal - ideal @ rows @ rows.T).norm()), rel=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_clients_that_agree_on_a_are_exact_without_a_penalty(way: str) -> None:
    """The mean is exact then, and there is nothing to correct whatever lambda is."""
    server = make_server(make_layers(), seeded())
    clients = trained_clients(server, 3)
    for tensors in clients.values():
        tensors |= {layer.a: clients[0][layer.a] for layer in server.layers}
    for penalty in (0.0, 0.01, 10.0):
        after = aggregated(LoraFair(regularization=penalty, aggregate_by=way), server, clients, WEIGHTS[3])
        for layer in server.layers:
            assert close(dense_product(layer, after.shared), mean_product(layer, clients, WEIGHTS[3]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("penalty", [0.0, 1e-30, 0.01])
def test_nearly_dependent_rows_of_a(penalty: float, way: str) -> None:
    """Singular values of A over ten orders: A A' loses those below 1e-8, its own SVD does not. Two rows are equal."""
    server = make_server(make_layers(4, 7.0), seeded())
    clients = trained_clients(server, 3)
    sizes = torch.tensor([1.0, 1e-5, 1e-10, 1.0], dtype=torch.float64)
    for tensors in clients.values():
        for layer in server.layers:
            tensors[layer.a] = tensors[layer.a] * sizes[:, None]
            tensors[layer.a][3] = tensors[layer.a][0]
    after = aggregated(LoraFair(regularization=penalty, aggregate_by=way), server, clients, WEIGHTS[3])
    for layer in server.layers:
        # The mean as the server holds it: of a row of 1e-10 the fixed-point sum has four digits.
        a, b = after.shared[layer.a], means(clients, WEIGHTS[3], layer.b)
        assert close(a, means(clients, WEIGHTS[3], layer.a), 1e-12)
        goal = target(layer, clients, WEIGHTS[3])
        found = after.shared[layer.b] - b
        assert found.isfinite().all()
        # Least squares of the stacked system, which has no A A'.
        system = np.vstack([a.numpy().T, np.sqrt(penalty) * np.eye(4)])
        wanted = np.vstack([(goal - b @ a).numpy().T, np.zeros((4, len(b)))])
        expected = np.linalg.lstsq(system, wanted, rcond=1e-13)[0].T
        # The right vector of a singular value of 1e-10 is known to 1e-6, and to nothing from A A'.
        assert close(found @ a, torch.from_numpy(expected) @ a, 1e-9 if penalty == 0.01 else 1e-4)


def test_the_rows_of_a_may_be_more_than_its_columns() -> None:
    layers = make_layers(6, 7.0)  # (7, 5) is the first layer
    server = make_server(layers, seeded())
    clients = trained_clients(server, 3)
    for way in WAYS:
        after = aggregated(LoraFair(aggregate_by=way, regularization=0.0), server, clients, WEIGHTS[3])
        assert close(dense_product(layers[0], after.shared), mean_product(layers[0], clients, WEIGHTS[3]), 1e-9)


def test_several_rounds_both_ways_with_a_lost_client() -> None:
    ends = {}
    for way in WAYS:
        rule, server = LoraFair(aggregate_by=way), make_server(make_layers(transposed=True), seeded())
        for round_idx in range(3):
            clients = trained_clients(server, 4, seed=round_idx)
            cohort = Cohort(make_plan(list(clients), WEIGHTS[4], round_idx), {MODEL: server.shared}, keeps=True)
            for client_id in (0, 6, 9):
                moved = {name: server.shared[name] + 0.1 * tensor for name, tensor in clients[client_id].items()}
                cohort.add(client_id, {MODEL: moved})
            cohort.close((0, 6, 9))
            server = replace(rule(cohort, server), round_idx=round_idx + 1)
        ends[way] = server
    for name, tensor in ends["stack"].shared.items():
        assert close(ends["sums"].shared[name], tensor, 1e-10)


def test_by_sums_no_client_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cohort, "stack", lambda *_: pytest.fail("the rule looks at single clients"))
    server = make_server(make_layers(), seeded())
    aggregated(LoraFair(aggregate_by="sums"), server, trained_clients(server, 3), WEIGHTS[3])


def test_it_asks_for_no_more_sums_than_it_says() -> None:
    """A private round is refused otherwise; without noise and with a wide clip norm it is the plain one."""
    server = make_server(make_layers(), seeded())
    server = replace(server, shared={**server.shared, "classifier.weight": torch.ones(2, 3, dtype=torch.float64)})
    clients = {
        client_id: {**tensors, "classifier.weight": torch.full((2, 3), float(client_id), dtype=torch.float64)}
        for client_id, tensors in trained_clients(server, 3).items()
    }
    plan = replace(make_plan(list(clients), [1 / 3] * 3), expected=3, trains=frozenset(server.shared))
    release = Release(seed=0, round_idx=0, expected=3, clip_norm=1e3, noise_multiplier=0.0)
    rule = LoraFair(aggregate_by="sums")
    assert rule.num_sums(server) == 2
    cohort = Cohort(plan, {MODEL: server.shared}, keeps=True, release=release, num_sums=rule.num_sums(server))
    for client_id, tensors in clients.items():
        cohort.add(client_id, {MODEL: tensors})
    cohort.close(tuple(clients))
    after, plain = rule(cohort, server), aggregated(rule, server, clients, [1 / 3] * 3)
    for name, tensor in plain.shared.items():
        assert close(after.shared[name], tensor, 1e-10)
    assert close(after.shared["classifier.weight"], torch.full((2, 3), 3.0, dtype=torch.float64), 1e-12)


def test_no_dense_matrix_is_made() -> None:
    shapes = [(400, 300), (300, 400)]
    layers = make_layers(4, 7.0, shapes=shapes)
    server = make_server(layers, seeded(), shapes=shapes)
    clients = {index: random_factors(layers, seeded(index), shapes=shapes) for index in range(3)}
    for way in WAYS:
        with Made() as made:
            LoraFair(aggregate_by=way)(make_cohort(server, clients, WEIGHTS[3]), server)
        assert made.largest < min(num_out * num_in for num_out, num_in in shapes)


def test_factors_keep_their_type() -> None:
    server = make_server(make_layers(), seeded())
    server = replace(server, shared={name: tensor.float() for name, tensor in server.shared.items()})
    clients = {
        client_id: {name: tensor.float() for name, tensor in tensors.items()}
        for client_id, tensors in trained_clients(server, 3).items()
    }
    for way in WAYS:
        after = aggregated(LoraFair(aggregate_by=way), server, clients, WEIGHTS[3])
        for layer in server.layers:
            a, b = (means(clients, WEIGHTS[3], name).double() for name in (layer.a, layer.b))
            expected = by_inverse(target(layer, clients, WEIGHTS[3]), a, b, 0.01)
            assert after.shared[layer.b].dtype == torch.float32
            assert close(after.shared[layer.b].double(), expected, 1e-5)


@pytest.mark.parametrize("penalty", [-0.1, float("inf"), float("nan")])
def test_a_penalty_out_of_range(penalty: float) -> None:
    with pytest.raises(UserError, match="must be a finite number of at least 0"):
        LoraFair(regularization=penalty)


def test_a_way_that_is_not_known() -> None:
    with pytest.raises(UserError, match="valid are stack, sums"):
        LoraFair(aggregate_by="mean")
