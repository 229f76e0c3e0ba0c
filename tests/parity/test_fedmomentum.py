"""FedMomentum against the dense product and its dense SVD (arXiv 2603.08014), in float64, over several rounds."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from factor_rounds import (
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
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.round.rules.fedex_lora import FedExLora
from fedlit.round.rules.fedmomentum import FedMomentum
from fedlit.round.server import ServerState

WAYS = {"stack": 1e-10, "sums": 1e-9}
LAYOUTS = {"linear": {}, "conv1d": {"transposed": True}, "rslora": {"use_rslora": True}}


def trained_clients(
    server: ServerState, num_clients: int, seed: int = 1, sizes: Sequence[float] = (1.0, 1e-2, 1e-5)
) -> dict[int, TensorDict]:
    """Return factors whose products have singular values over many orders of magnitude."""
    generator = seeded(seed)
    clients = {}
    for index in range(num_clients):
        tensors = random_factors(server.layers, generator)
        for layer in server.layers:
            tensors[layer.b] = tensors[layer.b] * torch.tensor(sizes, dtype=torch.float64)
        clients[2 * index] = tensors
    return clients


def effective(layer: LoraLayer, server: ServerState) -> Tensor:
    """Return the server's W + scaling * B @ A, (out, in)."""
    return dense_weight(layer, server) + dense_product(layer, server.shared)


def fewest(matrix: Tensor, share: float) -> int:
    """Return the smallest number of singular values with this share of the energy, from numpy's dense SVD."""
    squares = np.linalg.svd(matrix.numpy(), compute_uv=False).astype(np.longdouble) ** 2
    return int(np.argmax(np.cumsum(squares) >= np.longdouble(share) * squares.sum())) + 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_clients", sorted(WEIGHTS))
def test_with_all_of_the_energy_the_effective_weight_is_exact(num_clients: int, layout: str, way: str) -> None:
    """W' + s B A = W + s sum_i p_i B_i A_i, three rounds, unequal weights, alpha / r = 7 / 3."""
    server = make_server(make_layers(**LAYOUTS[layout]), seeded())
    rule, weights = FedMomentum(energy_threshold=1.0, aggregate_by=way), WEIGHTS[num_clients]
    for seed in range(3):
        clients = trained_clients(server, num_clients, seed)
        after = aggregated(rule, server, clients, weights)
        for layer in server.layers:
            assert close(
                effective(layer, after), dense_weight(layer, server) + mean_product(layer, clients, weights), WAYS[way]
            )
        server = after


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("share", [0.5, 0.99, 0.9999, 0.99999999])
def test_the_factors_have_the_first_triples_and_the_weight_those_after_them(share: float, way: str) -> None:
    """The root of S stands on either side, alpha / r in A alone; what is beyond the energy is nowhere."""
    server = make_server(make_layers(), seeded())
    clients, weights = trained_clients(server, 4), WEIGHTS[4]
    after = aggregated(FedMomentum(energy_threshold=share, aggregate_by=way), server, clients, weights)
    for layer in server.layers:
        ideal = mean_product(layer, clients, weights)
        most = max(3, fewest(ideal, share))
        assert after.folded_ranks[layer.name] == most - 3
        assert close(dense_product(layer, after.shared), best_of_rank(ideal, 3), WAYS[way])
        rest = best_of_rank(ideal, most) - best_of_rank(ideal, 3)
        assert close(dense_weight(layer, after), dense_weight(layer, server) + rest, WAYS[way])
        values = torch.linalg.svdvals(ideal)[:3]
        a, b = after.shared[layer.a] * (7 / 3), after.shared[layer.b]
        assert close(b.T @ b, values.diag(), 1e-8)
        assert close(a @ a.T, values.diag(), 1e-8)


def test_alpha_over_r_is_in_the_product_once() -> None:
    """A widely used re-implementation decomposes sum_i p_i B_i A_i and leaves the scaling out of what it folds: there
    alpha changes the rest against the factors.
    """
    for alpha in (3.0, 7.0, 0.5):
        server = replace(make_server(make_layers(alpha=alpha), seeded()), frozen={})
        clients = trained_clients(server, 3)
        after = aggregated(FedMomentum(energy_threshold=1.0), server, clients, WEIGHTS[3])
        for layer in server.layers:
            plain = sum(
                weight * (tensors[layer.b] @ tensors[layer.a])
                for weight, tensors in zip(WEIGHTS[3], clients.values(), strict=True)
            )
            assert isinstance(plain, Tensor)
            assert close(effective(layer, after), alpha / 3 * plain)
            assert close(dense_weight(layer, after), alpha / 3 * (plain - best_of_rank(plain, 3)))


def test_a_client_that_trains_nothing_leaves_the_server_as_it_was() -> None:
    """Factors that come back: the product stays, nothing is folded, and the split has found its place."""
    server = make_server(make_layers(), seeded())
    once = aggregated(FedMomentum(), server, {0: server.shared}, WEIGHTS[1])
    again = aggregated(FedMomentum(), once, {0: once.shared}, WEIGHTS[1])
    for layer in server.layers:
        assert close(effective(layer, once), effective(layer, server))
        assert close(effective(layer, again), effective(layer, server))
        assert once.folded_ranks[layer.name] == again.folded_ranks[layer.name] == 0
        for name in layer.factors:
            assert close(again.shared[name].abs(), once.shared[name].abs(), 1e-9)


def test_it_ends_in_the_weight_of_fedex_with_other_factors() -> None:
    server = make_server(make_layers(), seeded())
    clients = trained_clients(server, 5)
    ours = aggregated(FedMomentum(energy_threshold=1.0), server, clients, WEIGHTS[5])
    theirs = aggregated(FedExLora(), server, clients, WEIGHTS[5])
    for layer in server.layers:
        assert close(effective(layer, ours), effective(layer, theirs))
        ideal = mean_product(layer, clients, WEIGHTS[5])
        missed = [float((dense_product(layer, after.shared) - ideal).norm()) for after in (ours, theirs)]
        assert missed[0] < missed[1]


def test_nearly_dependent_factors() -> None:
    """The largest directions come last and all others are nearly parallel: an unpivoted QR takes the first ones."""
    server = make_server(make_layers(3, 7.0), seeded())
    generator = seeded(2)
    base = random_factors(server.layers, generator)
    clients = {}
    for index, size in enumerate((1e-6, 1e-6, 1.0)):
        noise = random_factors(server.layers, generator)
        clients[index] = {name: base[name] + 1e-7 * noise[name] for name in base}
        for layer in server.layers:
            clients[index][layer.a][:] = clients[index][layer.a][:1] + 1e-5 * noise[layer.a]
            clients[index][layer.b] = clients[index][layer.b] * size
    after = aggregated(FedMomentum(energy_threshold=1.0), server, clients, WEIGHTS[3])
    for layer in server.layers:
        ideal = mean_product(layer, clients, WEIGHTS[3])
        assert close(dense_product(layer, after.shared), best_of_rank(ideal, 3), 1e-12)
        assert close(effective(layer, after), dense_weight(layer, server) + ideal, 1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_a_direction_without_a_change_can_still_train(way: str) -> None:
    """Zeros in both factors would stay: there A is drawn anew, in a layer that nobody changed all of it."""
    server = make_server(make_layers(), seeded())
    clients = trained_clients(server, 3)
    for tensors in clients.values():
        tensors["m0.B"].zero_()
        tensors |= {name: clients[0][name] for name in ("m1.A", "m1.B")}
        tensors["m1.B"] = tensors["m1.B"] * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    after = aggregated(FedMomentum(aggregate_by=way), server, clients, WEIGHTS[3])
    for layer in server.layers:
        assert close(
            effective(layer, after), dense_weight(layer, server) + mean_product(layer, clients, WEIGHTS[3]), 0.1
        )
        assert (after.shared[layer.a].norm(dim=1) > 1e-4).all()
    assert not after.shared["m0.B"].any()
    assert float(after.shared["m0.A"].abs().max()) <= 5**-0.5
    assert after.shared["m1.B"].any(0).tolist() == [True, True, False]
    assert close(dense_product(server.layers[1], after.shared), mean_product(server.layers[1], clients, WEIGHTS[3]))


def test_no_dense_matrix_is_made() -> None:
    shapes = [(400, 300), (300, 400)]
    layers = make_layers(4, 7.0, shapes=shapes)
    server = replace(make_server(layers, seeded(), shapes=shapes), frozen={})
    clients = {index: random_factors(layers, seeded(index), shapes=shapes) for index in range(3)}
    with Made() as made:
        FedMomentum()(make_cohort(server, clients, WEIGHTS[3]), server)
    assert made.largest < min(num_out * num_in for num_out, num_in in shapes)


def test_shapes_and_types_stay() -> None:
    server = replace(make_server(make_layers(), seeded()), frozen={})
    server = replace(server, shared={name: tensor.float() for name, tensor in server.shared.items()})
    clients = {
        client_id: {name: tensor.float() for name, tensor in tensors.items()}
        for client_id, tensors in trained_clients(server, 3).items()
    }
    after = aggregated(FedMomentum(energy_threshold=1.0), server, clients, WEIGHTS[3])
    for layer in server.layers:
        for name in layer.factors:
            assert after.shared[name].shape == server.shared[name].shape
        ideal = mean_product(layer, clients, WEIGHTS[3])
        assert close(effective(layer, after).double(), ideal, 1e-6)
    assert {tensor.dtype for tensor in [*after.shared.values(), *after.frozen.values()]} == {torch.float32}


def test_a_share_out_of_range() -> None:
    with pytest.raises(UserError, match="must be above 0 and at most 1"):
        FedMomentum(energy_threshold=0.0)
