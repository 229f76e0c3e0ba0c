"""FLoRIST against the dense product and its dense SVD (arXiv 2506.09199), in float64, for mixed ranks and rounds."""

from dataclasses import replace

import numpy as np
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
    dense_weight,
    make_cohort,
    make_layers,
    make_server,
    mean_product,
    random_factors,
    seeded,
)
from torch import Tensor

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import rank_of_energy
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.round.rules.flora import Flora
from fedlit.round.rules.florist import Florist
from fedlit.round.server import ServerState
from fedlit.round.transforms.rank_scaling import RankScaling

RANKS = (2, 5, 3, 1, 5)
THRESHOLDS = (0.3, 0.8, 0.9, 0.99, 0.9999, 1.0)
SHARES = {"stack": 1e-10, "sums": 1e-9}


def mixed_server(*, use_rslora: bool = False) -> ServerState:
    layers = make_layers(5, 7.0, client_ranks=RANKS, use_rslora=use_rslora)
    return make_server(layers, seeded(), zero_b=True)


def trained_clients(server: ServerState, num_clients: int, seed: int = 1) -> dict[int, TensorDict]:
    """Return factors whose products have singular values over many orders of magnitude."""
    generator = seeded(seed)
    clients = {}
    for index in range(num_clients):
        tensors = random_factors(server.layers, generator, client_id=index)
        for layer in server.layers:
            tensors[layer.b] = tensors[layer.b] * 10.0 ** -torch.arange(layer.rank, dtype=torch.float64)
        clients[index] = tensors
    return clients


def fewest(matrix: Tensor, share: float) -> int:
    """Return the smallest p of the paper's inequality, from numpy's SVD of the dense matrix."""
    squares = np.linalg.svd(matrix.numpy(), compute_uv=False).astype(np.longdouble) ** 2
    reached = np.cumsum(squares) >= np.longdouble(share) * squares.sum()
    return int(np.argmax(reached)) + 1


def effective(layer: LoraLayer, server: ServerState) -> Tensor:
    return dense_weight(layer, server) + dense_product(layer, server.shared)


@pytest.mark.parametrize("way", SHARES)
@pytest.mark.parametrize("share", THRESHOLDS[:-1])
@pytest.mark.parametrize("num_clients", sorted(WEIGHTS))
def test_every_layer_keeps_the_fewest_singular_values_of_that_energy(num_clients: int, share: float, way: str) -> None:
    """W' = W + the first p triples of sum_i p_i s_i B_i A_i; ranks and scalings of the clients differ."""
    server = mixed_server()
    clients, weights = trained_clients(server, num_clients), WEIGHTS[num_clients]
    after = aggregated(Florist(energy_threshold=share, aggregate_by=way), server, clients, weights, RankScaling())
    for layer in server.layers:
        ideal = mean_product(layer, clients, weights, RANKS)
        rank = fewest(ideal, share)
        assert after.folded_ranks[layer.name] == rank
        assert close(effective(layer, after), dense_weight(layer, server) + best_of_rank(ideal, rank), SHARES[way])
        kept = best_of_rank(ideal, rank).square().sum() / ideal.square().sum()
        one_less = best_of_rank(ideal, rank - 1).square().sum() / ideal.square().sum()
        assert kept >= share - 1e-12
        assert one_less < share


def test_the_rank_differs_between_layers_and_rounds() -> None:
    server = mixed_server()
    seen = []
    for seed in range(3):
        clients = trained_clients(server, 4, seed)
        for tensors in clients.values():  # the clients of one layer agree, on one direction nearly
            tensors |= {name: clients[3][name] for name in ("m1.A", "m1.B")}
        server = aggregated(Florist(energy_threshold=0.9), server, clients, WEIGHTS[4], RankScaling())
        seen.append(tuple(server.folded_ranks.values()))
    assert all(ranks[1] == 1 < ranks[2] for ranks in seen)
    assert len({ranks[2] for ranks in seen}) > 1


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("way", SHARES)
def test_with_all_of_the_energy_it_is_flora(way: str, use_rslora: bool) -> None:
    """Several rounds: effective weights and fresh factors."""
    one = other = mixed_server(use_rslora=use_rslora)
    for seed in range(3):
        clients = trained_clients(one, 3, seed)
        one = aggregated(Florist(energy_threshold=1.0, aggregate_by=way), one, clients, WEIGHTS[3], RankScaling())
        other = aggregated(Flora(), other, clients, WEIGHTS[3], RankScaling())
        for layer in one.layers:
            assert close(effective(layer, one), effective(layer, other), SHARES[way])
            assert torch.equal(one.shared[layer.a], other.shared[layer.a])
            assert not one.shared[layer.b].any()


def test_all_of_the_energy_is_all_of_it() -> None:
    """A singular value of 1e-11 of the largest is there, though the sum of squares from the top does not see it."""
    values = torch.tensor([1.0, 1e-5, 1e-11, 1e-17], dtype=torch.float64)
    assert int(rank_of_energy(values, 1.0, (9, 7))) == 3, "the last one is rounding"
    assert int(rank_of_energy(values, 1.0 - 1e-9, (9, 7))) == 1
    assert int(rank_of_energy(values, 1.0 - 1e-11, (9, 7))) == 2
    assert int(rank_of_energy(values, 0.5, (9, 7))) == 1
    assert int(rank_of_energy(torch.zeros(4, dtype=torch.float64), 1.0, (9, 7))) == 0


@pytest.mark.parametrize(("share", "rank"), [(0.9, 1), (0.9000001, 2), (0.99, 2), (1.0, 2), (1e-9, 1)])
def test_a_share_that_is_just_reached_is_enough(share: float, rank: int) -> None:
    """Squares 9 and 1: nine tenths, though 1 - 0.9 is less than a tenth in binary."""
    assert int(rank_of_energy(torch.tensor([3.0, 1.0], dtype=torch.float64), share, (5, 4))) == rank


def test_clients_of_one_rank_that_agree_but_for_little() -> None:
    """Nearly dependent factors: an unpivoted QR of the stack has the first client's directions first, not the best."""
    server = make_server(make_layers(3, 7.0), seeded(), zero_b=True)
    generator = seeded(2)
    base = random_factors(server.layers, generator)
    clients = {}
    for index, size in enumerate((1e-6, 1e-6, 1.0)):
        noise = random_factors(server.layers, generator)
        clients[index] = {name: base[name] + 1e-7 * noise[name] for name in base}
        for layer in server.layers:
            clients[index][layer.b] = clients[index][layer.b] * size
    after = aggregated(Florist(energy_threshold=0.999), server, clients, WEIGHTS[3])
    for layer in server.layers:
        ideal = mean_product(layer, clients, WEIGHTS[3])
        rank = fewest(ideal, 0.999)
        assert after.folded_ranks[layer.name] == rank <= 3
        assert close(effective(layer, after), dense_weight(layer, server) + best_of_rank(ideal, rank))


@pytest.mark.parametrize("way", SHARES)
def test_a_layer_that_nobody_changed_stays(way: str) -> None:
    server = mixed_server()
    clients = trained_clients(server, 2)
    for tensors in clients.values():
        tensors["m0.B"].zero_()
    after = aggregated(Florist(aggregate_by=way), server, clients, WEIGHTS[2], RankScaling())
    assert after.folded_ranks["m0"] == 0
    assert close(effective(server.layers[0], after), dense_weight(server.layers[0], server), 1e-14)
    assert not close(effective(server.layers[1], after), dense_weight(server.layers[1], server), 1e-3)


def test_no_dense_matrix_is_made() -> None:
    shapes = [(400, 300), (300, 400)]
    layers = make_layers(4, 7.0, shapes=shapes)
    server = replace(make_server(layers, seeded(), shapes=shapes), frozen={})
    clients = {index: random_factors(layers, seeded(index), shapes=shapes) for index in range(3)}
    with Made() as made:
        Florist()(make_cohort(server, clients, WEIGHTS[3]), server)
    assert made.largest < min(num_out * num_in for num_out, num_in in shapes)


def test_shapes_and_types_stay_and_the_server_holds_the_rest_in_them() -> None:
    """Float32 factors, as beside a bfloat16 backbone: what is folded keeps single precision."""
    server = replace(mixed_server(), frozen={})
    server = replace(server, shared={name: tensor.float() for name, tensor in server.shared.items()})
    clients = {
        client_id: {name: tensor.float() for name, tensor in tensors.items()}
        for client_id, tensors in trained_clients(server, 3).items()
    }
    after = aggregated(Florist(), server, clients, WEIGHTS[3], RankScaling())
    for layer, (num_out, num_in) in zip(server.layers, SHAPES, strict=True):
        assert after.shared[layer.a].shape == (5, num_in)
        assert after.shared[layer.b].shape == (num_out, 5)
        ideal = mean_product(layer, clients, WEIGHTS[3], RANKS)
        best = best_of_rank(ideal, after.folded_ranks[layer.name])
        assert close(dense_weight(layer, after).double(), best, 1e-6)
    assert {tensor.dtype for tensor in [*after.shared.values(), *after.frozen.values()]} == {torch.float32}


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_out_of_range(share: float) -> None:
    with pytest.raises(UserError, match="must be above 0 and at most 1"):
        Florist(energy_threshold=share)
