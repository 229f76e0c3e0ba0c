"""FedSVD, FedRot-LoRA, HetLoRA and RoLoRA against their papers' equations, in float64."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from factor_rounds import (
    WEIGHTS,
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

from fedlit.adapters import trainable
from fedlit.algebra.rotations import procrustes
from fedlit.algebra.tensors import TensorDict
from fedlit.client.host import ModelHost
from fedlit.config import MethodConfig, RunConfig
from fedlit.errors import UserError
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS
from fedlit.round.jobs import ClientJob, ClientState, Start
from fedlit.round.payload import MODEL
from fedlit.round.rules.fedavg import FedAvg
from fedlit.round.rules.fedsvd import FedSvd
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transform, Transforms
from fedlit.round.transforms.rank_scaling import RankScaling
from fedlit.round.transforms.rotation import Rotation

COUNTS = sorted(WEIGHTS)
HALVES = RankScaling(share_of_a=0.5)
"""HetLoRA is FedAvg with this."""
TOKENS = torch.arange(3, 33).view(3, 10)


def weighted_mean(clients: dict[int, TensorDict], weights: tuple[float, ...], name: str) -> torch.Tensor:
    return torch.stack([p * tensors[name] for p, tensors in zip(weights, clients.values(), strict=True)]).sum(0)


def sent_by(transform: Transform, trained: TensorDict, server: ServerState, client_id: int) -> TensorDict:
    """Return what a client sends that ended its local training with the tensors `trained`."""
    plan = make_plan([client_id], [1.0], server.round_idx)
    return transform.on_client({MODEL: trained}, server, plan, client_id)[MODEL]


def received_by(transform: Transform, server: ServerState, client_id: int) -> TensorDict:
    """Return what a client starts its round from."""
    return dict(Transforms([transform]).start(FedAvg().start(server, client_id), server, client_id).groups[MODEL])


# FedSVD


def clients_with_the_servers_a(server: ServerState, num_clients: int) -> dict[int, TensorDict]:
    generator = seeded(1)
    names = {layer.a for layer in server.layers}
    return {
        index: {**random_factors(server.layers, generator), **{name: server.shared[name] for name in names}}
        for index in range(num_clients)
    }


@pytest.mark.parametrize("num_clients", COUNTS)
def test_fedsvd_keeps_the_mean_product_and_makes_the_rows_of_a_orthonormal(num_clients: int) -> None:
    server = make_server(make_layers(), seeded())
    clients, weights = clients_with_the_servers_a(server, num_clients), WEIGHTS[num_clients]
    after = aggregated(FedSvd(), server, clients, weights)
    for layer in server.layers:
        assert close(dense_product(layer, after.shared), mean_product(layer, clients, weights))
        a, b = after.shared[layer.a], after.shared[layer.b]
        assert close(a @ a.T, torch.eye(3, dtype=torch.float64))
        gram = b.T @ b
        assert close(gram, torch.diag(gram.diag())), "the columns of B are orthogonal: U S"
        assert (gram.diag().diff() <= 0).all(), "in descending order"


def test_fedsvd_factorises_at_its_period_only() -> None:
    """In the other rounds B is the mean of B to the bit of FedAvg, and A is the server's."""
    rule = FedSvd(svd_every=3)
    server = make_server(make_layers(), seeded())
    for round_idx in range(6):
        clients = clients_with_the_servers_a(server, 3)
        after = aggregated(rule, server, clients, WEIGHTS[3])
        plain = aggregated(FedAvg(), server, clients, WEIGHTS[3])
        for layer in server.layers:
            same_a = torch.equal(after.shared[layer.a], server.shared[layer.a])
            assert same_a is (round_idx not in (2, 5))
            assert torch.equal(after.shared[layer.b], plain.shared[layer.b]) is same_a
            assert close(dense_product(layer, after.shared), mean_product(layer, clients, WEIGHTS[3]))
        server = after


def test_fedsvd_bears_a_product_of_zero() -> None:
    server = make_server(make_layers(), seeded(), zero_b=True)
    after = aggregated(FedSvd(), server, {0: dict(server.shared)}, (1.0,))
    for layer in server.layers:
        a = after.shared[layer.a]
        assert close(a @ a.T, torch.eye(3, dtype=torch.float64))
        assert not after.shared[layer.b].any()


def test_fedsvd_refuses_a_period_of_zero() -> None:
    with pytest.raises(UserError, match="svd_every=0"):
        FedSvd(svd_every=0)


# FedRot-LoRA


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_rotation_is_scipys(rank: int) -> None:
    """scipy's R minimises |X R - Y|; here X = A_i' and Y = A_ref', so that A_i turned is R' A_i."""
    linalg = pytest.importorskip("scipy.linalg")
    generator = seeded(rank)
    own, reference = (torch.randn(rank, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    expected, _ = linalg.orthogonal_procrustes(own.T.numpy(), reference.T.numpy())
    assert close(procrustes(own @ reference.T), torch.from_numpy(expected), 1e-12)


@pytest.mark.parametrize("round_idx", [1, 2, 3, 4])
def test_fedrot_turns_each_client_towards_the_server(round_idx: int) -> None:
    """Odd rounds by A, even ones by B; the product is unchanged and no other rotation comes as near."""
    server = make_server(make_layers(), seeded(), round_idx=round_idx)
    generator = seeded(1)
    for client_id in range(5):
        trained = random_factors(server.layers, generator)
        sent = sent_by(Rotation(), trained, server, client_id)
        for layer in server.layers:
            assert close(dense_product(layer, sent), dense_product(layer, trained), 1e-12)
            rotation = torch.linalg.lstsq(trained[layer.b], sent[layer.b]).solution
            assert close(rotation.T @ rotation, torch.eye(3, dtype=torch.float64), 1e-9), "R'R = I"
            name = layer.a if round_idx % 2 else layer.b
            nearer, before = ((tensors[name] - server.shared[name]).norm() for tensors in (sent, trained))
            assert nearer <= before
            assert nearer < 0.999 * before, "random factors are not aligned by chance"
            for _ in range(20):
                turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
                other = turn.T @ trained[name] if round_idx % 2 else trained[name] @ turn
                assert (other - server.shared[name]).norm() >= nearer


def test_fedrot_leaves_the_first_round_alone() -> None:
    server = make_server(make_layers(), seeded(), zero_b=True)
    trained = random_factors(server.layers, seeded(1))
    assert sent_by(Rotation(), trained, server, 0) is trained


@pytest.mark.parametrize("round_idx", [1, 2])
def test_fedrot_recovers_clients_that_differ_by_a_rotation_only(round_idx: int) -> None:
    """Their products agree, the means of their factors do not; turned, the server is what it was."""
    server = make_server(make_layers(), seeded(), round_idx=round_idx)
    generator = seeded(1)
    clients: dict[int, TensorDict] = {}
    for index in range(4):
        clients[index] = {}
        for layer in server.layers:
            turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
            clients[index] |= {layer.a: turn.T @ server.shared[layer.a], layer.b: server.shared[layer.b] @ turn}
    turned, plain = (aggregated(FedAvg(), server, clients, WEIGHTS[4], *parts) for parts in ([Rotation()], []))
    for layer in server.layers:
        for name in layer.factors:
            assert close(turned.shared[name], server.shared[name])
        assert not close(plain.shared[layer.a], server.shared[layer.a], 0.1)


def test_fedrot_bears_factors_of_zero() -> None:
    """A rotation is not determined there; it must still be one."""
    server = make_server(make_layers(), seeded(), zero_b=True, round_idx=2)
    trained = random_factors(server.layers, seeded(1))
    sent = sent_by(Rotation(), trained, server, 0)
    for layer in server.layers:
        assert close(dense_product(layer, sent), dense_product(layer, trained), 1e-12)


# HetLoRA


@pytest.mark.parametrize("client_ranks", [(), (3,) * 5])
def test_hetlora_of_equal_ranks_is_fedavg_to_the_bit(client_ranks: tuple[int, ...]) -> None:
    server = make_server(make_layers(client_ranks=client_ranks), seeded())
    generator = seeded(1)
    clients = {index: random_factors(server.layers, generator) for index in range(5)}
    het, plain = (aggregated(FedAvg(), server, clients, WEIGHTS[5], *parts) for parts in ([HALVES], []))
    for name, tensor in plain.shared.items():
        assert torch.equal(het.shared[name], tensor)
        assert torch.equal(received_by(HALVES, het, 2)[name], tensor)


def test_hetlora_of_mixed_ranks_by_hand() -> None:
    """Ranks 1 and 2, alpha 8: scalings 8 and 4, p = (1/4, 3/4), W (2, 3).

    Client 0 trained A = (2, 4, 6), B = (1, 3)'. In the server's scaling both are multiplied by sqrt(8 / 4).
    Client 1 trained A = ((1, 0, 2), (4, 8, 12)), B = ((1, 2), (3, 5)), which is sent as it is.
    """
    root = 2**0.5
    layers = make_layers(2, 8.0, shapes=[(2, 3)], client_ranks=(1, 2))
    server = make_server(layers, seeded(), shapes=[(2, 3)])
    a, b = layers[0].a, layers[0].b
    double = torch.float64
    clients = {
        0: {a: torch.tensor([[2, 4, 6], [0, 0, 0]], dtype=double), b: torch.tensor([[1, 0], [3, 0]], dtype=double)},
        1: {a: torch.tensor([[1, 0, 2], [4, 8, 12]], dtype=double), b: torch.tensor([[1, 2], [3, 5]], dtype=double)},
    }
    after = aggregated(FedAvg(), server, clients, (0.25, 0.75), HALVES)
    first_row = [0.5 * root + 0.75, root, 1.5 * root + 1.5]
    assert close(after.shared[a], torch.tensor([first_row, [3, 6, 9]], dtype=double), 1e-12)
    first_column = [0.25 * root + 0.75, 0.75 * root + 2.25]
    expected = torch.tensor([[first_column[0], 1.5], [first_column[1], 3.75]], dtype=double)
    assert close(after.shared[b], expected, 1e-12)
    down = received_by(HALVES, after, 0)
    assert close(down[a], torch.tensor([first_row, [0, 0, 0]], dtype=double) / root, 1e-12)
    expected = torch.tensor([[first_column[0], 0], [first_column[1], 0]], dtype=double) / root
    assert close(down[b], expected, 1e-12)
    # The first direction's product in the client's scaling is what it is in the server's.
    whole = 4 * after.shared[b][:, :1] @ after.shared[a][:1]
    assert close(dense_product(layers[0], down, 1), whole, 1e-12)


def test_hetlora_sends_a_client_back_what_it_sent() -> None:
    ranks = (2, 5, 3, 1, 5)
    server = make_server(make_layers(5, 7.0, client_ranks=ranks), seeded())
    for client_id in range(5):
        trained = random_factors(server.layers, seeded(1), client_id=client_id)
        after = aggregated(FedAvg(), server, {client_id: trained}, (1.0,), HALVES)
        down = received_by(HALVES, after, client_id)
        assert all(close(down[name], tensor, 1e-12) for name, tensor in trained.items())


# RoLoRA


def test_rolora_trains_one_factor_a_round_and_the_other_keeps_every_bit(small_llama: Callable[..., Any]) -> None:
    """B in the first round, since A has no gradient while B is zero; through training and through the mean."""
    model = small_llama()
    method = build_method(RunConfig(method=MethodConfig(name="rolora", options={"lora_rank": 2, "lora_alpha": 3.0})))
    torch.manual_seed(0)
    method.attach(model, PROJECTIONS["llama"])
    host = ModelHost(model, method, method.adapter.layers(model))
    server = host.first_server(method.parts, num_clients=3)
    for round_idx in range(4):
        plan = replace(make_plan(range(3), WEIGHTS[3], round_idx), trains=host.trains(round_idx))
        sent = {}
        for client_id in range(3):
            start = Start(groups={MODEL: server.shared})
            host.load_client(ClientJob(client_id=client_id, rows=(), start=start, state=ClientState(), plan=plan))
            turn = {name.split(".lora_")[1][0] for name in trainable(model)}
            assert turn == {"A" if round_idx % 2 else "B"}
            optimizer = torch.optim.AdamW(host.trained.values(), lr=0.02, weight_decay=0.1)
            tokens = TOKENS + client_id
            for _ in range(2):
                model(input_ids=tokens, labels=tokens).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            sent[client_id], _ = host.take()
        after = FedAvg()(make_cohort(server, sent, WEIGHTS[3]), server)
        for layer in server.layers:
            trained, other = (layer.a, layer.b) if round_idx % 2 else (layer.b, layer.a)
            for tensors in (*sent.values(), after.shared):
                assert torch.equal(tensors[other], server.shared[other])
                assert not torch.equal(tensors[trained], server.shared[trained])
        server = replace(after, round_idx=round_idx + 1)


def test_the_mean_of_one_factor_is_exact() -> None:
    """With the other the same on all clients the product of the means is the mean of the products."""
    server = make_server(make_layers(), seeded())
    generator = seeded(1)
    for factor in ("a", "b"):
        names = {getattr(layer, factor) for layer in server.layers}
        clients = {
            index: {
                name: tensor if name in names else server.shared[name]
                for name, tensor in random_factors(server.layers, generator).items()
            }
            for index in range(4)
        }
        after = aggregated(FedAvg(), server, clients, WEIGHTS[4])
        for layer in server.layers:
            assert close(dense_product(layer, after.shared), mean_product(layer, clients, WEIGHTS[4]))
            name = getattr(layer, factor)
            assert close(after.shared[name], weighted_mean(clients, WEIGHTS[4], name), 1e-12)
