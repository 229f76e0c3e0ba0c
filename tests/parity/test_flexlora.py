"""FlexLoRA against the dense product and its dense SVD (arXiv 2402.11505), in float64 and for mixed ranks."""

import importlib
from dataclasses import replace
from pathlib import Path

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
    make_server,
    mean_product,
    random_factors,
    seeded,
)

from fedlit.algebra.tensors import TensorDict
from fedlit.round.payload import MODEL
from fedlit.round.rules.fedavg import FedAvg
from fedlit.round.rules.flexlora import FlexLora
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transforms
from fedlit.round.transforms.rank_scaling import RankScaling

RANKS = (2, 5, 3, 1, 5)
RULE, SCALING = FlexLora(), RankScaling()


def mixed_server(*, use_rslora: bool = False, alpha: float = 7.0) -> ServerState:
    return make_server(make_layers(5, alpha, client_ranks=RANKS, use_rslora=use_rslora), seeded())


def received_by(server: ServerState, client_id: int) -> TensorDict:
    """Return what a client starts its round from."""
    return dict(Transforms([SCALING]).start(RULE.start(server, client_id), server, client_id).groups[MODEL])


def trained_clients(server: ServerState, num_clients: int) -> dict[int, TensorDict]:
    generator = seeded(1)
    return {index: random_factors(server.layers, generator, client_id=index) for index in range(num_clients)}


@pytest.mark.parametrize("num_clients", sorted(WEIGHTS))
@pytest.mark.parametrize("transposed", [False, True])
def test_the_product_is_the_best_of_its_rank(num_clients: int, transposed: bool) -> None:
    server = make_server(make_layers(transposed=transposed), seeded())
    clients, weights = trained_clients(server, num_clients), WEIGHTS[num_clients]
    after = aggregated(RULE, server, clients, weights, SCALING)
    for layer in server.layers:
        ideal = mean_product(layer, clients, weights)
        assert close(dense_product(layer, after.shared), best_of_rank(ideal, layer.rank))
        if num_clients == 1:
            assert close(dense_product(layer, after.shared), ideal)
        a = after.shared[layer.a]
        assert close(a @ a.T, torch.eye(layer.rank, dtype=torch.float64)), "all singular values are in B"
    assert after.frozen is server.frozen


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("num_clients", sorted(WEIGHTS))
def test_every_client_starts_from_the_best_of_its_own_rank_in_its_own_scaling(
    num_clients: int, use_rslora: bool
) -> None:
    server = mixed_server(use_rslora=use_rslora)
    clients, weights = trained_clients(server, num_clients), WEIGHTS[num_clients]
    after = aggregated(RULE, server, clients, weights, SCALING)
    for layer in server.layers:
        ideal = mean_product(layer, clients, weights, RANKS)
        assert close(dense_product(layer, after.shared), best_of_rank(ideal, 5)), "the server's own, of the largest"
        for client_id, rank in enumerate(RANKS):
            received = received_by(after, client_id)
            assert close(dense_product(layer, received, rank), best_of_rank(ideal, rank))
            assert not received[layer.a][rank:].any()
            assert not received[layer.b][:, rank:].any()


def test_it_is_exact_where_the_rank_suffices() -> None:
    """Clients whose factors span one space of the layers' rank: the mean of products has that rank, too."""
    server = make_server(make_layers(3, 7.0), seeded())
    generator = seeded(1)
    one = random_factors(server.layers, generator)
    clients = {}
    for index in range(4):
        other = random_factors(server.layers, generator)
        clients[index] = {layer.a: one[layer.a] for layer in server.layers} | {
            layer.b: other[layer.b] for layer in server.layers
        }
    after = aggregated(RULE, server, clients, WEIGHTS[4], SCALING)
    for layer in server.layers:
        assert close(dense_product(layer, after.shared), mean_product(layer, clients, WEIGHTS[4]))


def test_small_ranks_among_large_ones_lose_nothing() -> None:
    """Ranks 2, 1 and 1 add up to at most 5, the largest rank of the population."""
    ranks = (2, 1, 1, 5)
    server = make_server(make_layers(5, 7.0, client_ranks=ranks), seeded())
    clients = {index: tensors for index, tensors in trained_clients(server, 4).items() if index < 3}
    after = aggregated(RULE, server, clients, WEIGHTS[3], SCALING)
    for layer in server.layers:
        assert close(dense_product(layer, after.shared), mean_product(layer, clients, WEIGHTS[3], ranks))


def test_a_client_that_trains_nothing_sends_what_it_received() -> None:
    """Down and up again, the product stays; all alone, so does the server at that rank."""
    server = aggregated(RULE, mixed_server(), trained_clients(mixed_server(), 3), WEIGHTS[3], SCALING)
    for client_id, rank in enumerate(RANKS):
        after = aggregated(RULE, server, {client_id: received_by(server, client_id)}, (1.0,), SCALING)
        for layer in server.layers:
            assert close(dense_product(layer, after.shared), best_of_rank(dense_product(layer, server.shared), rank))


def test_equal_ranks_are_not_the_means_of_the_factors() -> None:
    """The released code's behaviour, from which this rule differs."""
    server = make_server(make_layers(), seeded())
    clients = trained_clients(server, 3)
    ours = aggregated(RULE, server, clients, WEIGHTS[3], SCALING)
    means = aggregated(FedAvg(), server, clients, WEIGHTS[3])
    for layer in server.layers:
        ideal = mean_product(layer, clients, WEIGHTS[3])
        missed = [float((dense_product(layer, after.shared) - ideal).norm()) for after in (ours, means)]
        assert missed[0] < 0.9 * missed[1]


def test_no_dense_matrix_is_made() -> None:
    shapes = [(400, 300), (300, 400)]
    layers = make_layers(4, 7.0, shapes=shapes)
    server = make_server(layers, seeded(), shapes=shapes)
    generator = seeded(1)
    clients = {index: random_factors(layers, generator, shapes=shapes) for index in range(3)}
    with Made() as made:
        RULE(make_cohort(server, clients, WEIGHTS[3]), server)
    scalars = sum(tensor.numel() for tensor in server.shared.values())
    assert made.largest == 3 * scalars, "the stack of all factors"
    assert made.largest < min(num_out * num_in for num_out, num_in in shapes)


@pytest.mark.parametrize("name", ["FlexLoRA", "FedEx-LoRA", "FLoRA", "FedSVD"])
@pytest.mark.parametrize("num_clients", [2, 5, 30])
def test_the_benchmark_compares_ways_that_give_one_result(
    name: str, num_clients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both within float32 of the exact one, for factors thinner and wider than the matrix; a wrong one is seen."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "experiments" / "benchmarks"))
    sides = importlib.import_module("factor_sides")
    case = sides.Case((96, 40), num_clients, 3)
    own, dense = case.errors(name)
    assert 0 < own < 1e-6
    assert 0 < dense < 2e-5
    case.p, case.b_mean = case.p.flip(0), case.b_mean * 2  # what the rule's cohort does not have
    assert min(case.errors(name)[:1]) > 0.01
    case = sides.Case((400, 300), 3, 3)
    with sides.Sizes((400, 300)) as sizes:
        case.factors(name)
    assert sizes.num_dense == 0
    assert 0 < sizes.largest <= 3 * 3 * 400, "all clients' factors of one side"


def test_shapes_and_types_stay() -> None:
    server = mixed_server()
    server = replace(server, shared={name: tensor.float() for name, tensor in server.shared.items()})
    clients = {
        client_id: {name: tensor.float() for name, tensor in tensors.items()}
        for client_id, tensors in trained_clients(server, 2).items()
    }
    after = aggregated(RULE, server, clients, WEIGHTS[2], SCALING)
    for layer, (num_out, num_in) in zip(server.layers, SHAPES, strict=True):
        assert after.shared[layer.a].shape == (5, num_in)
        assert after.shared[layer.b].shape == (num_out, 5)
        best = best_of_rank(mean_product(layer, clients, WEIGHTS[2], RANKS), 5)
        assert close(dense_product(layer, after.shared), best, 1e-6)
    assert {tensor.dtype for tensor in after.shared.values()} == {torch.float32}
