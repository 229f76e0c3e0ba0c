"""FedEx-LoRA and FLoRA against equations 6 and 12 to 18 of arXiv 2410.09432, computed densely in float64."""

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
from fedlit.round.payload import MODEL
from fedlit.round.rules import AggregationRule
from fedlit.round.rules.fedavg import FedAvg
from fedlit.round.rules.fedex_lora import FedExLora
from fedlit.round.rules.flora import Flora
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transforms
from fedlit.round.transforms.rank_scaling import RankScaling

COUNTS = sorted(WEIGHTS)
LAYOUTS = {"linear": {}, "conv1d": {"transposed": True}, "rslora": {"use_rslora": True}}


def trained_clients(server: ServerState, num_clients: int, seed: int = 1) -> dict[int, TensorDict]:
    generator = seeded(seed)
    return {2 * index: random_factors(server.layers, generator, client_id=2 * index) for index in range(num_clients)}


def effective(layer: LoraLayer, server: ServerState) -> Tensor:
    """Return the server's W + scaling * B @ A, (out, in)."""
    return dense_weight(layer, server) + dense_product(layer, server.shared)


def folded_residual(layer: LoraLayer, before: ServerState, after: ServerState) -> Tensor:
    return dense_weight(layer, after) - dense_weight(layer, before)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_clients", COUNTS)
def test_the_aggregate_is_exact(num_clients: int, layout: str) -> None:
    """W' + s B A = W + s sum_i p_i B_i A_i, and the factors are the means."""
    server = make_server(make_layers(**LAYOUTS[layout]), seeded())
    clients, weights = trained_clients(server, num_clients), WEIGHTS[num_clients]
    after = aggregated(FedExLora(), server, clients, weights)
    for layer in server.layers:
        assert close(effective(layer, after), dense_weight(layer, server) + mean_product(layer, clients, weights))
        for name in layer.factors:
            mean = sum(weight * tensors[name] for weight, tensors in zip(weights, clients.values(), strict=True))
            assert close(after.shared[name], mean, 1e-12)
        if num_clients > 1:
            missed = folded_residual(layer, server, after).norm() / mean_product(layer, clients, weights).norm()
            assert missed > 0.1, "the means of the factors alone are far off"


@pytest.mark.parametrize("num_clients", COUNTS)
def test_the_residual_has_no_more_than_n_minus_one_times_r_directions(num_clients: int) -> None:
    server = make_server(make_layers(), seeded())
    after = aggregated(FedExLora(), server, trained_clients(server, num_clients), WEIGHTS[num_clients])
    for layer, shape in zip(server.layers, SHAPES, strict=True):
        bound = (num_clients - 1) * layer.rank
        residual = folded_residual(layer, server, after)
        values = torch.linalg.svdvals(residual)
        assert int((values > 1e-9).sum()) == min(bound, *shape)
        if num_clients > 1 and "rest" not in after.folded[layer.name].parts:
            assert after.folded[layer.name].width == bound
            assert after.folded[layer.name].rank() == min(bound, *shape)


@pytest.mark.parametrize("num_clients", COUNTS)
def test_nothing_is_left_over_where_the_means_are_exact(num_clients: int) -> None:
    """One client, equal clients, and clients that share A or B."""
    server, weights = make_server(make_layers(), seeded()), WEIGHTS[num_clients]
    clients = trained_clients(server, num_clients)
    first = next(iter(clients.values()))
    names = {factor: {getattr(layer, factor) for layer in server.layers} for factor in "ab"}
    for same in (names["a"] | names["b"], names["a"], names["b"]):
        equal = {
            client_id: {name: first[name] if name in same else tensor for name, tensor in tensors.items()}
            for client_id, tensors in clients.items()
        }
        after = aggregated(FedExLora(), server, equal, weights)
        for layer in server.layers:
            assert folded_residual(layer, server, after).abs().max() < 1e-11


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("residual_rank", [0, 1, 4, 30])
@pytest.mark.parametrize("num_clients", [1, 2, 4])
def test_a_truncated_residual_is_the_best_of_its_rank(num_clients: int, residual_rank: int, layout: str) -> None:
    """Equations 17 and 18, with torch's dense SVD of the dense residual."""
    server = make_server(make_layers(**LAYOUTS[layout]), seeded())
    clients, weights = trained_clients(server, num_clients), WEIGHTS[num_clients]
    after = aggregated(FedExLora(residual_rank=residual_rank), server, clients, weights)
    for layer in server.layers:
        residual = mean_product(layer, clients, weights) - dense_product(layer, after.shared)
        assert close(folded_residual(layer, server, after), best_of_rank(residual, residual_rank))


def offset_weight(rule: AggregationRule, layer: LoraLayer, server: ServerState, client_id: int) -> Tensor:
    """Return the effective weight that a client starts its round with: its own W_i, its own factors."""
    start = rule.start(server, client_id)
    weight = dense_weight(layer, server) + dense_product(layer, start.groups[MODEL])
    return weight + start.offsets[layer.name].dense() if start.offsets else weight


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_client_that_keeps_its_factors_has_one_effective_weight(layout: str) -> None:
    """W_i + s B_i A_i = W + the mean of what clients made of it, round after round with cohorts that change."""
    rule, population = FedExLora(assignment="keep"), 5
    server = rule.begin(make_server(make_layers(**LAYOUTS[layout]), seeded(), zero_b=True), population)
    generator = seeded(3)
    kept = {client_id: rule.start(server, client_id).groups[MODEL] for client_id in range(population)}
    for cohort in [(0, 1, 3), (1, 2, 4), (3,), (0, 4), (0, 1, 2, 3, 4)]:
        weights = WEIGHTS[len(cohort)]
        trained = {client_id: random_factors(server.layers, generator) for client_id in cohort}
        ideal = {}
        for layer in server.layers:
            mean = torch.zeros((), dtype=torch.float64)
            for client_id, weight in zip(cohort, weights, strict=True):
                own = offset_weight(rule, layer, server, client_id) - dense_product(layer, kept[client_id])
                mean = mean + weight * (own + dense_product(layer, trained[client_id]))
            ideal[layer.name] = mean
        server = aggregated(rule, server, trained, weights)
        kept |= trained
        for client_id in range(population):
            received = rule.start(server, client_id).groups[MODEL]
            assert all(torch.equal(received[name], tensor) for name, tensor in kept[client_id].items())
            for layer in server.layers:
                assert close(offset_weight(rule, layer, server, client_id), ideal[layer.name])
        for layer in server.layers:
            assert close(effective(layer, server), ideal[layer.name]), "the server's W is the global model itself"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_clients", COUNTS)
def test_the_strategies_and_flora_end_in_one_effective_weight(num_clients: int, layout: str) -> None:
    """They differ in the factors of the next round only."""
    start = make_server(make_layers(**LAYOUTS[layout]), seeded(), zero_b=True)
    clients, weights = trained_clients(start, num_clients), WEIGHTS[num_clients]
    rules = {
        "average": FedExLora(),
        "reinitialize": FedExLora(assignment="reinitialize", seed=5),
        "keep": FedExLora(assignment="keep"),
        "flora": Flora(seed=6),
    }
    ends = {name: aggregated(rule, rule.begin(start, 10), clients, weights) for name, rule in rules.items()}
    for layer in start.layers:
        ideal = dense_weight(layer, start) + mean_product(layer, clients, weights)
        for name, after in ends.items():
            assert close(effective(layer, after), ideal), name
        fresh, other = ends["reinitialize"].shared, ends["flora"].shared
        assert not fresh[layer.b].any()
        assert not other[layer.b].any()
        bound = fresh[layer.a].shape[1] ** -0.5
        assert 0.7 * bound < fresh[layer.a].abs().max() <= bound, "peft's own initialisation"
        assert not torch.equal(fresh[layer.a], other[layer.a]), "of another seed"


def test_fresh_factors_are_new_in_every_round_and_the_same_on_every_process() -> None:
    server = make_server(make_layers(), seeded(), zero_b=True)
    clients = trained_clients(server, 2)
    first = aggregated(Flora(seed=6), server, clients, WEIGHTS[2])
    again = aggregated(FedExLora(assignment="reinitialize", seed=6), server, clients, WEIGHTS[2])
    second = aggregated(Flora(seed=6), first, clients, WEIGHTS[2])
    for layer in server.layers:
        assert torch.equal(first.shared[layer.a], again.shared[layer.a])
        assert not torch.equal(first.shared[layer.a], second.shared[layer.a])


@pytest.mark.parametrize("use_rslora", [False, True])
def test_flora_is_exact_for_mixed_ranks(use_rslora: bool) -> None:
    """Every product in the scaling of its own client's rank."""
    ranks = (2, 9, 5, 9, 1)
    server = make_server(make_layers(9, 7.0, client_ranks=ranks, use_rslora=use_rslora), seeded(), zero_b=True)
    clients, weights = trained_clients(server, 3), WEIGHTS[3]  # clients 0, 2 and 4
    scaling = RankScaling()
    after = aggregated(Flora(), server, clients, weights, scaling)
    for layer in server.layers:
        ideal = dense_weight(layer, server) + mean_product(layer, clients, weights, ranks)
        assert close(effective(layer, after), ideal)
        wrong = dense_weight(layer, server) + mean_product(layer, clients, weights)
        assert not close(effective(layer, after), wrong, 0.01), "the scaling of the largest rank is another"
        for client_id in range(5):
            start = Transforms([scaling]).start(Flora().start(after, client_id), after, client_id).groups[MODEL]
            assert not start[layer.a][ranks[client_id] :].any()
            assert start[layer.a][: ranks[client_id]].all()


def central_and_federated(trains: Sequence[str], rule: AggregationRule) -> tuple[Tensor, Tensor, list[TensorDict]]:
    """Return the effective weights after one plain SGD step on the pooled batch, and on equal batches of 4 clients.

    A linear layer (16, 29) with mean squared error; the clients' factors are returned too.
    """
    (layer,) = make_layers(3, 7.0, shapes=SHAPES[2:])
    server = replace(make_server([layer], seeded(), shapes=SHAPES[2:]), frozen={})
    generator = seeded(9)
    pretrained = torch.randn(SHAPES[2], generator=generator, dtype=torch.float64)
    if trains == ["weight"]:
        server = replace(server, shared={**server.shared, layer.weight: pretrained})
    inputs = torch.randn(4, 6, 29, generator=generator, dtype=torch.float64)
    targets = torch.randn(4, 6, 16, generator=generator, dtype=torch.float64)

    def stepped(x: Tensor, y: Tensor) -> TensorDict:
        tensors = {name: tensor.clone() for name, tensor in {layer.weight: pretrained, **server.shared}.items()}
        chosen = [tensors[getattr(layer, name)].requires_grad_() for name in trains]
        weight = tensors[layer.weight] + 7.0 / 3 * tensors[layer.b] @ tensors[layer.a]
        ((x @ weight.T - y) ** 2).mean().backward()
        torch.optim.SGD(chosen, lr=0.5).step()
        return {name: tensors[name].detach() for name in server.shared}

    clients = [stepped(x, y) for x, y in zip(inputs, targets, strict=True)]
    central = {layer.weight: pretrained, **stepped(inputs.flatten(0, 1), targets.flatten(0, 1))}
    after = aggregated(rule, server, dict(enumerate(clients)), (0.25,) * 4)
    federated = {layer.weight: pretrained + dense_weight(layer, after), **after.shared}
    before = {layer.weight: pretrained, **server.shared}
    weights = [tensors[layer.weight] + dense_product(layer, tensors) for tensors in (central, federated, before)]
    assert not close(weights[0], weights[2], 1e-3)
    return weights[0], weights[1], clients


@pytest.mark.parametrize("trains", [["a", "b"], ["b"], ["weight"]], ids=["FedIT", "FFA-LoRA", "full"])
def test_one_sgd_step_and_the_mean_of_the_factors_is_the_central_step(trains: list[str]) -> None:
    central, federated, _ = central_and_federated(trains, FedAvg())
    assert close(federated, central, 1e-12)


def test_exact_aggregation_is_exact_against_the_clients_not_against_central_training() -> None:
    """It differs from the central step by s times the mean of (B_i - B)(A_i - A)."""
    central, federated, clients = central_and_federated(["a", "b"], FedExLora())
    mean = {name: sum(tensors[name] for tensors in clients) / 4 for name in clients[0]}
    spread = sum((tensors["m0.B"] - mean["m0.B"]) @ (tensors["m0.A"] - mean["m0.A"]) for tensors in clients) / 4
    assert spread.norm() > 1e-3
    assert close(federated - central, 7.0 / 3 * spread, 1e-12)


def test_no_dense_matrix_is_made_while_factors_are_smaller() -> None:
    shapes = [(90, 70), (70, 95)]
    layers = make_layers(2, 7.0, shapes=shapes)
    server = make_server(layers, seeded(), shapes=shapes)
    for num_clients in (2, 5):
        generator = seeded(1)
        clients = {index: random_factors(layers, generator, shapes=shapes) for index in range(num_clients)}
        for rule in (FedExLora(), FedExLora(residual_rank=2), FedExLora(assignment="reinitialize"), Flora()):
            cohort = make_cohort(server, clients, WEIGHTS[num_clients])
            with Made() as made:
                rule(cohort, server)
            assert [made.shapes.count(shape) for shape in shapes] == [0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"assignment": "mean"}, "assignment=mean is not known"),
        ({"assignment": "keep", "residual_rank": 2}, "residual_rank=2 truncates the residual"),
        ({"residual_rank": -1}, "residual_rank=-1 must be"),
        ({"residual_rank": 1.5}, "residual_rank=1.5 must be"),
        ({"residual_rank": True}, "residual_rank=True must be"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        FedExLora(**options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
