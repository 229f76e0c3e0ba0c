"""Transforms in a row: t1, t2 on the client, t2, t1 on the server and on the way down; each sees its arguments."""

from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from factor_rounds import aggregated, make_layers, make_plan, make_server, random_factors, seeded

from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict, checksum
from fedlit.errors import UserError
from fedlit.round.cohort import Cohort
from fedlit.round.jobs import Start
from fedlit.round.payload import MODEL, Payload
from fedlit.round.plan import RoundPlan
from fedlit.round.rules.fedavg import FedAvg
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transform, Transforms
from fedlit.round.transforms.rank_scaling import RankScaling
from fedlit.round.transforms.rotation import Rotation

SERVER = ServerState(shared={"x": torch.zeros(2, dtype=torch.float64)})
PLAN = make_plan([0, 1], [0.25, 0.75])


@dataclass(frozen=True)
class Affine(Transform):
    """x -> factor * x + offset on the client, undone on the server: no two of them commute."""

    name: str
    factor: float
    offset: float
    calls: list[tuple[Any, ...]]

    def start(self, tensors: TensorDict, server: ServerState, client_id: int) -> TensorDict:
        self.calls.append((self.name, "start", server, client_id))
        return {key: (tensor - self.offset) / self.factor for key, tensor in tensors.items()}

    def on_client(self, payload: Payload, server: ServerState, plan: RoundPlan, client_id: int) -> Payload:
        self.calls.append((self.name, "client", server, plan, client_id))
        return {**payload, MODEL: {key: self.factor * x + self.offset for key, x in payload[MODEL].items()}}

    def on_server(self, mean: Payload, server: ServerState, plan: RoundPlan) -> Payload:
        self.calls.append((self.name, "server", server, plan))
        return {**mean, MODEL: {key: (x - self.offset) / self.factor for key, x in mean[MODEL].items()}}


def pair() -> tuple[Transforms, list[tuple[Any, ...]]]:
    calls: list[tuple[Any, ...]] = []
    return Transforms([Affine("t1", 2.0, 1.0, calls), Affine("t2", 4.0, -3.0, calls)]), calls


def test_they_are_composed_in_order() -> None:
    transforms, calls = pair()
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    sent = transforms.on_client({MODEL: {"x": x}}, SERVER, PLAN, 1)
    assert torch.equal(sent[MODEL]["x"], 4 * (2 * x + 1) - 3), "t1, then t2"
    assert torch.equal(transforms.on_server(sent, SERVER, PLAN)[MODEL]["x"], x), "t2 is undone first"
    assert torch.equal(transforms.start(Start(groups=sent), SERVER, 1).groups[MODEL]["x"], x)
    assert calls == [
        ("t1", "client", SERVER, PLAN, 1),
        ("t2", "client", SERVER, PLAN, 1),
        ("t2", "server", SERVER, PLAN),
        ("t1", "server", SERVER, PLAN),
        ("t2", "start", SERVER, 1),
        ("t1", "start", SERVER, 1),
    ]


def test_through_the_sum_they_leave_the_mean() -> None:
    transforms, _ = pair()
    cohort = Cohort(PLAN, {MODEL: SERVER.shared}, on_server=lambda mean: transforms.on_server(mean, SERVER, PLAN))
    clients = [torch.tensor([1.0, 5.0], dtype=torch.float64), torch.tensor([-2.0, 9.0], dtype=torch.float64)]
    for client_id, x in enumerate(clients):
        cohort.add(client_id, transforms.on_client({MODEL: {"x": x}}, SERVER, PLAN, client_id))
    torch.testing.assert_close(cohort.mean()["x"], 0.25 * clients[0] + 0.75 * clients[1], rtol=0, atol=1e-12)


def test_what_is_no_transform_s_business_passes() -> None:
    """Groups beside the model, the offsets of a client's frozen weights, its own share of a mean."""
    transforms, _ = pair()
    groups = {MODEL: {"x": torch.ones(2)}, "control": {"c": torch.ones(3)}}
    offsets = {"layer": LowRank(torch.ones(3, 1), torch.ones(1, 2))}
    given = Start(groups=groups, offsets=offsets, own_share=torch.tensor(0.25))
    for each in (transforms, Transforms()):
        start = each.start(given, SERVER, 0)
        assert start.groups["control"] is groups["control"]
        assert all(getattr(start, name.name) is getattr(given, name.name) for name in fields(Start)[1:])
    assert transforms.on_client(groups, SERVER, PLAN, 0)["control"] is groups["control"]
    assert torch.equal(groups[MODEL]["x"], torch.ones(2))


@pytest.mark.parametrize("transforms", [Transforms(), Transforms([Transform(), Transform()])], ids=["none", "empty"])
def test_without_a_transform_everything_stays(transforms: Transforms) -> None:
    payload = {MODEL: {"x": torch.ones(2)}, "control": {}}
    assert transforms.on_client(payload, SERVER, PLAN, 0) is payload
    assert transforms.on_server(payload, SERVER, PLAN) is payload
    assert transforms.start(Start(groups=payload), SERVER, 0).groups[MODEL] is payload[MODEL]


@pytest.mark.parametrize("transform", [RankScaling(), RankScaling(share_of_a=0.5), Rotation()], ids=str)
def test_the_package_s_own_write_into_nothing(transform: Transform) -> None:
    """The server's tensors are every client's, the client's are its own."""
    server = make_server(make_layers(5, client_ranks=(2, 5, 3)), seeded(), round_idx=1)
    trained = random_factors(server.layers, seeded(1), client_id=0)
    control = {"c": torch.ones(3)}
    before = checksum(server.shared), checksum(trained)
    start = transform.start(server.shared, server, 0)
    sent = transform.on_client({MODEL: trained, "control": control}, server, PLAN, 0)
    assert sent["control"] is control
    assert sent[MODEL].keys() == trained.keys() == start.keys()
    assert (checksum(server.shared), checksum(trained)) == before


def test_ranks_are_scaled_before_factors_are_rotated() -> None:
    """Both together are the two by hand; the other way round differs by rounding alone, on some processors."""
    server = make_server(make_layers(5, client_ranks=(2, 5, 3)), seeded(), round_idx=1)
    clients = {index: random_factors(server.layers, seeded(index), client_id=index) for index in range(3)}
    weights, parts = (0.2, 0.3, 0.5), (RankScaling(), Rotation())
    after = aggregated(FedAvg(), server, clients, weights, *parts)
    plan = make_plan(range(3), weights, round_idx=1)
    by_hand: dict[int, TensorDict] = {}
    for client_id, tensors in clients.items():
        scaled = parts[0].on_client({MODEL: tensors}, server, plan, client_id)
        by_hand[client_id] = parts[1].on_client(scaled, server, plan, client_id)[MODEL]
    expected = aggregated(FedAvg(), server, by_hand, weights)
    assert checksum(after.shared) == checksum(expected.shared)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(UserError, match=f"share_of_a={share}"):
        RankScaling(share_of_a=share)


def test_a_start_keeps_what_no_transform_looks_at() -> None:
    share, offset = torch.tensor(0.25, dtype=torch.float64), LowRank(torch.ones(2, 1), torch.ones(1, 3))
    start = Start(
        groups={MODEL: {"a": torch.ones(2)}, "moments": {"a": torch.zeros(2)}},
        offsets={"layer": offset},
        own_share=share,
    )
    server = ServerState(shared=start.groups[MODEL])
    for transforms in (Transforms(), Transforms((Rotation(),))):
        taken = transforms.start(start, server, 0)
        assert taken.own_share is share, "FedALT's client takes its own part out with it"
        assert taken.offsets == start.offsets
        assert taken.groups.keys() == start.groups.keys()
