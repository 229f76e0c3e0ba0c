"""FedASK against the dense mean product and its dense SVD (arXiv 2507.09990), in float64: two sums of fixed width."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from factor_rounds import (
    SHAPES,
    WEIGHTS,
    Made,
    aggregated,
    best_of_rank,
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

from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.round.cohort import Cohort
from fedlit.round.payload import MODEL
from fedlit.round.private_sums import Release
from fedlit.round.rules.fedask import FedAsk, evenly
from fedlit.round.rules.flexlora import FlexLora
from fedlit.round.server import ServerState

WIDE = FedAsk(oversampling=14)
"""3 + 14 columns, above the rank 15 of five clients' products."""
LAYOUTS = {"linear": {}, "conv1d": {"transposed": True}, "rslora": {"use_rslora": True}}


@pytest.fixture(autouse=True)
def no_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Cohort, names: Sequence[str]) -> TensorDict:
        pytest.fail("the rule looks at single clients")

    monkeypatch.setattr(Cohort, "stack", refused)


def trained_clients(server: ServerState, num_clients: int, seed: int = 1) -> dict[int, TensorDict]:
    generator = seeded(seed)
    return {index: random_factors(server.layers, generator) for index in range(num_clients)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_clients", sorted(WEIGHTS))
def test_a_wide_sketch_gives_flexlora_s_product_split_evenly(num_clients: int, layout: str) -> None:
    """The best of its rank to the mean, unequal weights, alpha / r = 7 / 3; A A' = B'B = S / s."""
    server = make_server(make_layers(**LAYOUTS[layout]), seeded(), round_idx=3)
    clients, weights = trained_clients(server, num_clients), WEIGHTS[num_clients]
    after = aggregated(WIDE, server, clients, weights)
    for layer in server.layers:
        ideal = mean_product(layer, clients, weights)
        assert close(dense_product(layer, after.shared), best_of_rank(ideal, 3))
        values = torch.linalg.svdvals(ideal)[:3].diag() / (7 / (3**0.5 if layer.use_rslora else 3))
        a, b = after.shared[layer.a], after.shared[layer.b]
        assert close(a @ a.T, values)
        assert close(b.T @ b, values)
    assert after.frozen is server.frozen


def test_errors_do_not_add_up_over_rounds() -> None:
    """Six rounds in which clients go on from the server's factors: each ends at the best of its rank."""
    server = make_server(make_layers(), seeded(), zero_b=True)
    for round_idx in range(6):
        moves = trained_clients(server, 4, seed=round_idx)
        clients = {
            client_id: {name: server.shared[name] + 0.1 * tensor for name, tensor in move.items()}
            for client_id, move in moves.items()
        }
        after = aggregated(WIDE, server, clients, WEIGHTS[4])
        for layer in server.layers:
            ideal = mean_product(layer, clients, WEIGHTS[4])
            assert close(dense_product(layer, after.shared), best_of_rank(ideal, 3), 1e-11)
        assert after.round_idx == round_idx + 1
        server = after


def test_clients_that_train_b_alone_lose_nothing() -> None:
    """As under differential privacy: M has the rank of A, and any oversampling holds it. The rows of A stay in the
    space that those of the first A span, as those of M do: what changes is their basis and their lengths.
    """
    first = server = make_server(make_layers(), seeded())
    for round_idx in range(3):
        moves = trained_clients(server, 5, seed=round_idx)
        clients = {
            client_id: dict(server.shared)
            | {layer.b: server.shared[layer.b] + 0.3 * move[layer.b] for layer in server.layers}
            for client_id, move in moves.items()
        }
        after = aggregated(FedAsk(oversampling=2), server, clients, WEIGHTS[5])
        for layer in server.layers:
            assert close(dense_product(layer, after.shared), mean_product(layer, clients, WEIGHTS[5]))
            assert not close(after.shared[layer.a], server.shared[layer.a], 1e-2)
            rows = torch.linalg.qr(first.shared[layer.a].T).Q
            assert close(after.shared[layer.a] @ rows @ rows.T, after.shared[layer.a])
        server = after


def decaying(server: ServerState, num_clients: int = 4) -> dict[int, TensorDict]:
    """Return clients whose mean product has singular values that fall by a third or so from one to the next."""
    generator = seeded(5)
    clients = {}
    for client_id in range(num_clients):
        tensors = random_factors(server.layers, generator, shapes=[(60, 44)])
        scale = 0.65 ** torch.arange(client_id, 4 * 3, 4, dtype=torch.float64)
        clients[client_id] = {"m0.A": torch.linalg.qr(tensors["m0.A"].T).Q.T * scale[:, None], "m0.B": tensors["m0.B"]}
    return clients


@pytest.mark.parametrize("oversampling", [0, 2, 4, 9])
def test_a_narrow_sketch_misses_what_theory_says(oversampling: int) -> None:
    """Halko et al., theorem 10.5: E |M - Q P'| <= sqrt(1 + r / (p - 1)) t, t being what the best of rank r misses;
    cutting Q P' back to rank r adds t at most, since its singular values are no larger than M's.
    """
    layers = make_layers(3, 7.0, shapes=[(60, 44)])
    server = make_server(layers, seeded(), shapes=[(60, 44)])
    clients, weights = decaying(server), (0.1, 0.4, 0.3, 0.2)
    ideal = mean_product(layers[0], clients, weights)
    tail = float((ideal - best_of_rank(ideal, 3)).norm())
    errors = []
    for seed in range(40):
        after = aggregated(FedAsk(oversampling=oversampling, seed=seed), server, clients, weights)
        found = dense_product(layers[0], after.shared)
        assert torch.linalg.matrix_rank(found) == 3
        errors.append(float((found - ideal).norm()))
    assert min(errors) >= tail * (1 - 1e-9), "no matrix of rank 3 is nearer"
    mean = sum(errors) / len(errors)
    if oversampling > 1:
        assert mean <= tail * ((1 + 3 / (oversampling - 1)) ** 0.5 + 1)
        assert mean < (1.25 if oversampling == 2 else 1.12) * tail
    if oversampling == 9:
        assert mean == pytest.approx(tail, rel=1e-9), "as wide as the rank"
    if not oversampling:
        assert mean > 1.15 * tail


def test_the_width_is_the_rank_and_the_oversampling_whoever_comes() -> None:
    """No wider than a side of the layer."""
    server = make_server(make_layers(), seeded())
    for num_clients in (0, 1, 5):
        for oversampling in (0, 4, 300):
            sketch = FedAsk(oversampling=oversampling)._sketch(server)
            widths = sketch.widths(server, range(num_clients))
            assert list(widths.values()) == [min(3 + oversampling, *shape) for shape in SHAPES]


def test_a_direction_that_the_mean_lacks_is_zero_in_both_factors() -> None:
    server = make_server(make_layers(), seeded())
    clients = trained_clients(server, 2)
    for tensors in clients.values():
        for layer in server.layers:
            tensors[layer.b] = tensors[layer.b][:, :1] @ torch.ones(1, 3, dtype=torch.float64)  # rank 1 each
    after = aggregated(WIDE, server, clients, WEIGHTS[2])
    nothing = aggregated(
        WIDE, server, {0: {name: torch.zeros_like(tensor) for name, tensor in server.shared.items()}}, (1.0,)
    )
    for layer in server.layers:
        assert close(dense_product(layer, after.shared), mean_product(layer, clients, WEIGHTS[2]))
        assert float(after.shared[layer.a][2:].norm()) < 1e-5
        assert float(after.shared[layer.b][:, 2:].norm()) < 1e-5
        for name in layer.factors:
            assert float(nothing.shared[name].norm()) < 1e-6, "the root of the sums' rounding"


def test_the_split_of_nothing_is_nothing() -> None:
    left, right = evenly(LowRank(torch.zeros(7, 3), torch.eye(3, 5)))
    assert not left.any()
    assert not right.any()


@pytest.mark.parametrize("with_head", [False, True])
def test_it_asks_for_the_sums_that_it_declares(with_head: bool) -> None:
    server = make_server(make_layers(), seeded())
    head = {"classifier.weight": torch.ones(5, 7, dtype=torch.float64)} if with_head else {}
    server = replace(server, shared={**server.shared, **head})
    clients = {
        client_id: {**tensors, **{name: float(client_id) * tensor for name, tensor in head.items()}}
        for client_id, tensors in trained_clients(server, 3).items()
    }
    cohort = make_cohort(server, clients, WEIGHTS[3])
    after = WIDE(cohort, server)
    assert cohort._num_sums == WIDE.num_sums(server) == 2 + with_head
    assert (WIDE.stacks, WIDE.asks_again, WIDE.averages) == (False, True, False)
    for name, tensor in head.items():
        assert close(after.shared[name], 0.8 * tensor), "0.2 * 1 + 0.3 * 2"


def test_a_client_that_is_lost_is_in_no_sum() -> None:
    server = make_server(make_layers(), seeded())
    clients = trained_clients(server, 4)
    cohort = Cohort(make_plan(list(clients), WEIGHTS[4]), {MODEL: server.shared}, keeps=True)
    rest = {client_id: tensors for client_id, tensors in clients.items() if client_id != 2}
    for client_id, tensors in rest.items():
        cohort.add(client_id, {MODEL: tensors})
    cohort.close(list(rest))
    after = WIDE(cohort, server)
    for layer in server.layers:
        ideal = mean_product(layer, rest, [0.1 / 0.7, 0.4 / 0.7, 0.2 / 0.7])
        assert close(dense_product(layer, after.shared), best_of_rank(ideal, 3))


@pytest.mark.parametrize("num_clients", [0, 2])
def test_a_noisy_round_stays_within_its_noise(num_clients: int) -> None:
    """Also one to which nobody came: the sums are the server's own, and noise."""
    server = make_server(make_layers(), seeded())
    generator = seeded(1)
    clients = {}
    for client_id in range(num_clients):
        move = random_factors(server.layers, generator)
        clients[client_id] = {name: tensor + 1e-3 * move[name] for name, tensor in server.shared.items()}
    rule = FedAsk()
    release = Release(seed=0, round_idx=0, expected=100, clip_norm=1.0, noise_multiplier=1e-3 * 2**0.5)
    plan = replace(make_plan(list(clients), (0.01,) * num_clients), expected=100)
    cohort = Cohort(plan, {MODEL: server.shared}, keeps=True, release=release, num_sums=rule.num_sums(server))
    for client_id, tensors in clients.items():
        cohort.add(client_id, {MODEL: tensors})
    cohort.close(list(clients))
    after = rule(cohort, server)
    for layer in server.layers:
        moved = float((dense_product(layer, after.shared) - dense_product(layer, server.shared)).norm())
        assert 0 < moved < 0.02


def test_no_matrix_of_a_layer_s_shape_is_made() -> None:
    shapes = [(90, 70), (70, 95)]
    layers = make_layers(2, 7.0, shapes=shapes)
    server = make_server(layers, seeded(), shapes=shapes)
    generator = seeded(1)
    clients = {index: random_factors(layers, generator, shapes=shapes) for index in range(5)}
    cohort = make_cohort(server, clients, WEIGHTS[5])
    with Made() as made:
        FedAsk()(cohort, server)
    assert not [shape for shape in made.shapes if shape in (*shapes, *(shape[::-1] for shape in shapes))]


def test_it_differs_from_flexlora_by_the_split_alone() -> None:
    server = make_server(make_layers(), seeded())
    clients = trained_clients(server, 5)
    one = aggregated(FedAsk(oversampling=1), server, clients, WEIGHTS[5])
    other = aggregated(FlexLora(aggregate_by="sums", sketch_width=4), server, clients, WEIGHTS[5])
    for layer in server.layers:
        assert close(dense_product(layer, one.shared), dense_product(layer, other.shared))
        assert not close(one.shared[layer.a], other.shared[layer.a], 0.1)


@pytest.mark.parametrize("oversampling", [-1, 1.5, True])
def test_a_width_that_makes_no_sense(oversampling: int) -> None:
    with pytest.raises(UserError, match=rf"oversampling={oversampling} must be a number of 0 or more") as caught:
        FedAsk(oversampling=oversampling)
    assert "\n" not in str(caught.value)
