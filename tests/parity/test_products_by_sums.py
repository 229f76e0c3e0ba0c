"""FedEx-LoRA, FLoRA and FlexLoRA by two sums against dense formulas, in float64: what they see of clients is sums."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

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
from fedlit.round.rules.fedavg import FedAvg, NoAggregation
from fedlit.round.rules.fedex_lora import FedExLora
from fedlit.round.rules.fedsvd import FedSvd
from fedlit.round.rules.flexlora import FlexLora
from fedlit.round.rules.flora import Flora
from fedlit.round.rules.products import ProductRule
from fedlit.round.server import ServerState
from fedlit.round.transforms.rank_scaling import RankScaling

COUNTS = sorted(WEIGHTS)
LAYOUTS = {"linear": {}, "conv1d": {"transposed": True}, "rslora": {"use_rslora": True}}
RULES: dict[str, tuple[type[ProductRule], dict[str, Any]]] = {
    "flora": (Flora, {}),
    "flexlora": (FlexLora, {}),
    "average": (FedExLora, {}),
    "average, rank 2": (FedExLora, {"residual_rank": 2}),
    "average, rank 0": (FedExLora, {"residual_rank": 0}),
    "reinitialize": (FedExLora, {"assignment": "reinitialize"}),
}


def both(name: str, **options: Any) -> tuple[ProductRule, ProductRule]:
    """Return a rule by stacks and by sums."""
    rule, own = RULES[name]
    return rule(**own), rule(**own, aggregate_by="sums", **options)


def trained_clients(server: ServerState, num_clients: int, seed: int = 1) -> dict[int, TensorDict]:
    generator = seeded(seed)
    return {2 * index: random_factors(server.layers, generator, client_id=2 * index) for index in range(num_clients)}


def effective(layer: LoraLayer, server: ServerState) -> Tensor:
    """Return the server's W + scaling * B @ A, (out, in)."""
    return dense_weight(layer, server) + dense_product(layer, server.shared)


def lossy_cohort(server: ServerState, clients: dict[int, TensorDict], weights: Sequence[float], lost: int) -> Cohort:
    """Return a cohort that planned with all of the clients and lost one before it sent anything."""
    cohort = Cohort(make_plan(list(clients), weights, server.round_idx), {MODEL: server.shared}, keeps=True)
    returned = [client_id for client_id in clients if client_id != lost]
    for client_id in returned:
        cohort.add(client_id, {MODEL: clients[client_id]})
    cohort.close(returned)
    return cohort


@pytest.fixture(autouse=True)
def no_stack(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let a rule by sums find no stack; the call that is returned gives it back."""

    def refused(self: Cohort, names: Sequence[str]) -> TensorDict:
        pytest.fail("the rule looks at single clients")

    monkeypatch.setattr(Cohort, "stack", refused)
    return monkeypatch.undo


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_clients", COUNTS)
@pytest.mark.parametrize("assignment", ["average", "reinitialize", "flora"])
def test_the_aggregate_is_exact(assignment: str, num_clients: int, layout: str) -> None:
    """W' + s B A = W + s sum_i p_i B_i A_i, unequal weights, alpha / r = 7 / 3."""
    server = make_server(make_layers(**LAYOUTS[layout]), seeded())
    clients, weights = trained_clients(server, num_clients), WEIGHTS[num_clients]
    _, rule = both(assignment)
    after = aggregated(rule, server, clients, weights)
    for layer in server.layers:
        assert close(effective(layer, after), dense_weight(layer, server) + mean_product(layer, clients, weights))
        if assignment == "average":
            for name in layer.factors:
                mean = sum(weight * tensors[name] for weight, tensors in zip(weights, clients.values(), strict=True))
                assert close(after.shared[name], mean, 1e-12)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("num_clients", COUNTS)
def test_it_is_what_the_stack_gives(name: str, num_clients: int, no_stack: Callable[[], None]) -> None:
    server = make_server(make_layers(), seeded(), round_idx=3)
    clients, weights = trained_clients(server, num_clients), WEIGHTS[num_clients]
    stack, sums = both(name)
    after = aggregated(sums, server, clients, weights)
    no_stack()
    expected = aggregated(stack, server, clients, weights)
    for layer in server.layers:
        assert close(dense_weight(layer, after), dense_weight(layer, expected))
        assert close(dense_product(layer, after.shared), dense_product(layer, expected.shared))


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("num_clients", [1, 3])
def test_clients_of_several_ranks_each_have_their_own_scaling(num_clients: int, use_rslora: bool) -> None:
    ranks = (2, 9, 5, 9, 1)
    server = make_server(make_layers(9, 7.0, client_ranks=ranks, use_rslora=use_rslora), seeded(), zero_b=True)
    clients, weights = trained_clients(server, num_clients), WEIGHTS[num_clients]
    flora, flexlora = (
        aggregated(rule(aggregate_by="sums"), server, clients, weights, RankScaling()) for rule in (Flora, FlexLora)
    )
    for layer in server.layers:
        ideal = mean_product(layer, clients, weights, ranks)
        assert close(effective(layer, flora), dense_weight(layer, server) + ideal)
        assert close(dense_product(layer, flexlora.shared), best_of_rank(ideal, 9))


@pytest.mark.parametrize("name", ["average", "flora", "flexlora"])
def test_a_client_that_is_lost_is_in_no_sum(name: str) -> None:
    """The weights of the others are divided by their sum."""
    server = make_server(make_layers(), seeded())
    clients, weights = trained_clients(server, 4), WEIGHTS[4]
    _, rule = both(name)
    after = rule(lossy_cohort(server, clients, weights, lost=2), server)
    rest = {client_id: tensors for client_id, tensors in clients.items() if client_id != 2}
    shares = [weight / 0.6 for client_id, weight in zip(clients, weights, strict=True) if client_id != 2]
    for layer in server.layers:
        ideal = mean_product(layer, rest, shares)
        if name == "flexlora":
            assert close(dense_product(layer, after.shared), best_of_rank(ideal, 3))
        else:
            assert close(effective(layer, after), dense_weight(layer, server) + ideal)


@pytest.mark.parametrize("name", ["average", "flora", "flexlora"])
def test_errors_do_not_add_up_over_rounds(name: str, no_stack: Callable[[], None]) -> None:
    """Five rounds, clients of the size that real ones have, against the same rounds by stacks."""
    no_stack()
    stack, sums = both(name)
    ends = [make_server(make_layers(), seeded(), zero_b=True)] * 2
    for round_idx in range(5):
        drawn = trained_clients(ends[0], 3, seed=round_idx)
        for place, rule in enumerate((stack, sums)):
            server = ends[place]
            trained = {
                client_id: {key: server.shared[key] + 0.01 * tensor for key, tensor in tensors.items()}
                for client_id, tensors in drawn.items()
            }
            after = aggregated(rule, server, trained, WEIGHTS[3])
            # The next round's fresh factors are equal; FlexLoRA's are up to a sign, so both go on from one side's.
            shared = after.shared if name != "flexlora" or not place else ends[0].shared
            for layer in server.layers:
                if name == "flexlora" and place:
                    assert close(dense_product(layer, after.shared), dense_product(layer, shared), 1e-11)
            ends[place] = replace(after, shared=shared)
    for layer in ends[0].layers:
        assert close(effective(layer, ends[1]), effective(layer, ends[0]), 1e-11)


def test_coarse_factors_lose_nothing_in_the_sums() -> None:
    """Of bfloat16 factors the sums are those of the very numbers, in float64."""
    server = make_server(make_layers(), seeded())
    server = replace(server, shared={name: tensor.bfloat16() for name, tensor in server.shared.items()})
    clients = {
        client_id: {name: tensor.bfloat16() for name, tensor in tensors.items()}
        for client_id, tensors in trained_clients(server, 3).items()
    }
    _, rule = both("flora")
    products = rule.mean_products(make_cohort(server, clients, WEIGHTS[3]), server)
    for layer in server.layers:
        assert products[layer.name].left.dtype == torch.float64
        assert close(products[layer.name].dense(), mean_product(layer, clients, WEIGHTS[3]))


@pytest.mark.parametrize("same", ["both", "a", "b"])
def test_where_the_means_are_exact_the_residual_is_zero(same: str) -> None:
    """Equal clients, and clients that share a factor."""
    server = make_server(make_layers(), seeded())
    clients = trained_clients(server, 3)
    names = {getattr(layer, factor) for layer in server.layers for factor in ("ab" if same == "both" else same)}
    equal = {
        client_id: {name: clients[0][name] if name in names else tensor for name, tensor in tensors.items()}
        for client_id, tensors in clients.items()
    }
    _, rule = both("average")
    after = aggregated(rule, server, equal, WEIGHTS[3])
    for layer in server.layers:
        left = after.folded[layer.name]
        assert left.dense().abs().max() < 1e-11
        assert left.dense().isfinite().all()


def test_nothing_to_add_up_gives_nothing() -> None:
    """B = 0 everywhere: Y is zero, and its QR is still a basis."""
    server = make_server(make_layers(), seeded(), zero_b=True)
    clients = {client_id: dict(server.shared) for client_id in range(3)}
    products = both("flora")[1].mean_products(make_cohort(server, clients, WEIGHTS[3]), server)
    for layer in server.layers:
        assert not products[layer.name].dense().any()


def test_the_sketch_of_a_round_has_a_stream_of_its_own() -> None:
    """Two rounds, two layers and two seeds have different ones, one round the same again."""
    server = make_server(make_layers(shapes=((7, 5), (7, 5))), seeded(), shapes=((7, 5), (7, 5)))
    rule, other = Flora(aggregate_by="sums"), Flora(aggregate_by="sums", seed=1)
    widths = {"m0": 3, "m1": 3}
    first, again = (rule._omegas(server, widths) for _ in range(2))
    second, third = rule._omegas(replace(server, round_idx=1), widths), other._omegas(server, widths)
    assert torch.equal(first["m0"], again["m0"])
    for one, two in ((first["m0"], first["m1"]), (first["m0"], second["m0"]), (first["m0"], third["m0"])):
        assert not torch.equal(one, two)


# Sketches that are narrower than the rank


def decaying(server: ServerState, num_clients: int = 4) -> dict[int, TensorDict]:
    """Return clients whose mean product has singular values that fall by a third or so from one to the next."""
    generator = seeded(5)
    clients = {}
    for client_id in range(num_clients):
        tensors = random_factors(server.layers, generator, shapes=[(60, 44)])
        scale = 0.65 ** torch.arange(client_id, 4 * 3, 4, dtype=torch.float64)
        clients[client_id] = {"m0.A": torch.linalg.qr(tensors["m0.A"].T).Q.T * scale[:, None], "m0.B": tensors["m0.B"]}
    return clients


def test_a_narrow_sketch_misses_what_theory_says_and_spare_columns_help() -> None:
    """Halko et al., theorem 10.5: E |M - Q P'| <= sqrt(1 + k / (p - 1)) * (sum_{j > k} sigma_j^2)^(1/2), w = k + p."""
    layers = make_layers(3, 7.0, shapes=[(60, 44)])
    server = make_server(layers, seeded(), shapes=[(60, 44)])
    clients, weights = decaying(server), (0.25,) * 4
    ideal = mean_product(layers[0], clients, weights)
    values = torch.linalg.svdvals(ideal)
    errors, of_rank_3 = {}, {}
    for width in (3, 5, 8, 12):
        found = []
        for seed in range(40):
            rule = Flora(aggregate_by="sums", sketch_width=width, seed=seed)
            product = rule.mean_products(make_cohort(server, clients, weights), server)["m0"]
            assert product.width == width
            found.append(
                [
                    float((product.dense() - ideal).norm()),
                    float((product.truncated(3).dense() - ideal).norm()),
                ]
            )
            assert found[-1][0] >= values[width:].norm() - 1e-9, "no matrix of this rank is nearer"
        errors[width], of_rank_3[width] = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
        for k in range(1, width - 1):
            assert errors[width] <= (1 + k / (width - k - 1)) ** 0.5 * float(values[k:].norm()) * 1.02 + 1e-9
    best = float(values[3:].norm())
    assert of_rank_3[3] > 1.15 * best
    assert of_rank_3[3] > of_rank_3[5] > of_rank_3[8] > best
    assert of_rank_3[8] < 1.03 * best
    assert errors[12] < 1e-10, "as wide as the rank"


@pytest.mark.parametrize("width", [1, 4, 300])
def test_a_given_width_is_that_of_every_layer(width: int) -> None:
    """No wider than a side of the layer; a narrow sketch costs a part of the residual, not of the whole product."""
    server = make_server(make_layers(), seeded())
    clients = trained_clients(server, 5)
    rule = FedExLora(aggregate_by="sums", sketch_width=width)
    after = aggregated(rule, server, clients, WEIGHTS[5])
    for layer, shape in zip(server.layers, SHAPES, strict=True):
        assert rule.widths(server, [0])[layer.name] == min(width, *shape)
        ideal = mean_product(layer, clients, WEIGHTS[5])
        residual = ideal - dense_product(layer, after.shared)
        missed = dense_weight(layer, server) + ideal - effective(layer, after)
        assert float(missed.norm()) <= float(residual.norm()) * (1 + 1e-9)
        if width >= min(shape):
            assert close(missed, torch.zeros_like(missed))


# What it asks for


@pytest.mark.parametrize("with_head", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_a_rule_asks_for_the_sums_that_it_declares(
    name: str, with_head: bool, no_stack: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(make_layers(), seeded())
    head = {"classifier.weight": torch.ones(5, 7, dtype=torch.float64)} if with_head else {}
    server = replace(server, shared={**server.shared, **head})
    clients = {client_id: {**tensors, **head} for client_id, tensors in trained_clients(server, 3).items()}
    stack, sums = both(name)
    cohort = make_cohort(server, clients, WEIGHTS[3])
    sums(cohort, server)
    expected = {"average": 3, "average, rank 2": 3, "average, rank 0": 1}.get(name, 2 + with_head)
    assert cohort._num_sums == sums.num_sums(server) == expected
    assert (sums.stacks, sums.asks_again) == (False, True)
    assert (stack.stacks, stack.asks_again) == (True, False)
    no_stack()
    cohort = make_cohort(server, clients, WEIGHTS[3])
    stack(cohort, server)
    assert cohort._num_sums <= stack.num_sums(server) == 1


def test_the_other_rules_ask_for_one_sum_or_none() -> None:
    server = make_server(make_layers(), seeded())
    assert [rule.num_sums(server) for rule in (FedAvg(), FedSvd(), NoAggregation())] == [1, 1, 0]


def test_no_matrix_of_a_layer_s_shape_is_made() -> None:
    shapes = [(90, 70), (70, 95)]
    layers = make_layers(2, 7.0, shapes=shapes)
    server = make_server(layers, seeded(), shapes=shapes)
    generator = seeded(1)
    clients = {index: random_factors(layers, generator, shapes=shapes) for index in range(5)}
    for name in ("average", "flora", "flexlora"):
        cohort = make_cohort(server, clients, WEIGHTS[5])
        with Made() as made:
            both(name)[1](cohort, server)
        assert not [shape for shape in made.shapes if shape in (*shapes, *(shape[::-1] for shape in shapes))]


def test_a_width_that_would_tell_how_many_came_is_refused() -> None:
    server = make_server(make_layers(), seeded())
    clients = trained_clients(server, 3)
    plan = replace(make_plan(list(clients), (0.25,) * 3), expected=4)
    for name in ("average", "flora"):
        cohort = Cohort(plan, {MODEL: server.shared}, keeps=True)
        for client_id, tensors in clients.items():
            cohort.add(client_id, {MODEL: tensors})
        with pytest.raises(UserError, match=r"method\.sketch_width=null is as wide as the number of clients") as caught:
            both(name)[1](cohort, server)
        assert "\n" not in str(caught.value)


def test_with_a_fixed_divisor_the_server_stands_in_for_those_who_did_not_come() -> None:
    """3 of 4 expected came: M = sum_i 1/4 s B_i A_i + 1/4 s B A with the server's own factors."""
    server = make_server(make_layers(), seeded())
    clients = trained_clients(server, 3)
    plan = replace(make_plan(list(clients), (0.25,) * 3), expected=4)
    everyone = {**clients, 99: server.shared}
    for name in ("average", "flora"):
        cohort = Cohort(plan, {MODEL: server.shared}, keeps=True)
        for client_id, tensors in clients.items():
            cohort.add(client_id, {MODEL: tensors})
        cohort.close(list(clients))
        after = both(name, sketch_width=99)[1](cohort, server)
        for layer in server.layers:
            ideal = dense_weight(layer, server) + mean_product(layer, everyone, (0.25,) * 4)
            assert close(effective(layer, after), ideal)


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (Flora, {"aggregate_by": "mean"}, "aggregate_by=mean is not known; valid are stack, sums"),
        (FlexLora, {"sketch_width": 4}, "sketch_width=4 is that of method.aggregate_by=sums, but aggregate_by=stack"),
        (Flora, {"aggregate_by": "sums", "sketch_width": 0}, "sketch_width=0 must be null"),
        (Flora, {"aggregate_by": "sums", "sketch_width": True}, "sketch_width=True must be null"),
        (FedExLora, {"aggregate_by": "sums", "sketch_width": 1.5}, "sketch_width=1.5 must be null"),
        (FedExLora, {"aggregate_by": "sums", "assignment": "keep"}, "holds every client's own factors"),
        (FedExLora, {"aggregate_by": "sums", "assignment": "mean"}, "assignment=mean is not known"),
    ],
)
def test_options_that_make_no_sense(rule: type[ProductRule], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        rule(**options)
    assert "\n" not in str(caught.value)


# Under noise


@pytest.mark.parametrize("name", ["average", "flora", "flexlora"])
@pytest.mark.parametrize("num_clients", [0, 2])
def test_a_noisy_round_stays_within_its_noise(name: str, num_clients: int) -> None:
    """Also one to which nobody came: the sums are the server's own, and noise."""
    server = make_server(make_layers(), seeded())
    generator = seeded(1)
    clients = {
        client_id: {name: tensor + 1e-3 * random_factors(server.layers, generator)[name] for name, tensor in
                    server.shared.items()}
        for client_id in range(num_clients)
    }  # fmt: skip
    _, rule = both(name, sketch_width=8)
    release = Release(
        seed=0,
        round_idx=0,
        expected=100,
        clip_norm=1.0,
        noise_multiplier=1e-3 * rule.num_sums(server) ** 0.5,
    )
    plan = replace(make_plan(list(clients), (0.01,) * num_clients), expected=100)
    cohort = Cohort(plan, {MODEL: server.shared}, keeps=True, release=release, num_sums=rule.num_sums(server))
    for client_id, tensors in clients.items():
        cohort.add(client_id, {MODEL: tensors})
    cohort.close(list(clients))
    after = rule(cohort, server)
    for layer in server.layers:
        moved = float((effective(layer, after) - effective(layer, server)).norm())
        assert 0 < moved < 0.02, "noise of 1e-5 in some 400 numbers, times factors of size 5, and the clients' 2 %"


def test_a_sum_more_than_declared_is_refused() -> None:
    server = make_server(make_layers(), seeded())
    _, rule = both("flora", sketch_width=8)
    release = Release(seed=0, round_idx=0, expected=4, clip_norm=1.0, noise_multiplier=1.0)
    plan = replace(make_plan([], ()), expected=4)
    cohort = Cohort(plan, {MODEL: server.shared}, keeps=True, release=release)
    with pytest.raises(UserError, match="asks for 2 sums of what clients sent, and says that it asks for 1"):
        rule(cohort, server)
