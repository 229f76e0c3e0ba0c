"""The server's step: the rule, its optimizer, the groups beside the model; and a round in which nobody returned."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch
from factor_rounds import make_plan

from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict, checksum
from fedlit.config import ServerConfig
from fedlit.errors import UserError
from fedlit.process import communication
from fedlit.round.cohort import Cohort
from fedlit.round.jobs import LocalPart
from fedlit.round.payload import MODEL, flat
from fedlit.round.rules import AggregationRule
from fedlit.round.rules.fedavg import FedAvg
from fedlit.round.server import ServerState
from fedlit.round.server_optimizers import SERVER_OPTIMIZERS, Options, step
from fedlit.round.step import ServerStep

ONE = LowRank(torch.ones(2, 1), torch.ones(1, 3))


@dataclass(frozen=True)
class Side(LocalPart):
    """Sends a group, whose next value on the server is made of all that the step gives it."""

    group: ClassVar[str] = "side"
    seen: list[tuple[TensorDict, TensorDict, float]] = field(default_factory=list)

    def server_step(self, server: TensorDict, mean: TensorDict, share: float) -> TensorDict:
        self.seen.append((server, mean, share))
        return {name: tensor + share * mean[name] for name, tensor in server.items()}


@dataclass(frozen=True)
class Never(AggregationRule):
    """Is not to be called."""

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        pytest.fail("a rule has no mean to take")


def share_of(client_ids: Sequence[int]) -> float:
    return len(client_ids) / 8


def make_server() -> ServerState:
    """Return the server after 4 rounds, with everything that it can have."""
    return ServerState(
        round_idx=4,
        shared={"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])},
        frozen={"w": torch.ones(2, 3)},
        optimizer={
            "m/a": torch.tensor([0.5, 0.5]),
            "v/a": torch.ones(2),
            "m/b": torch.ones(1),
            "v/b": torch.ones(1),
            "side/c": torch.tensor([10.0]),
        },
        clients={"a": torch.zeros(3, 2)},
        folded={"layer": ONE},
    )


def make_step(
    rule: AggregationRule, parts: Sequence[LocalPart] = (), optimizer: str = "none", **numbers: float
) -> ServerStep:
    options = ServerConfig(optimizer=optimizer, **numbers)  # type: ignore[arg-type]
    return ServerStep(rule=rule, options=options, parts=parts, population_share=share_of)


def make_cohort(server: ServerState, returned: Sequence[int], trains: Sequence[str] = ("a", "b")) -> Cohort:
    """Return a cohort of clients 1, 2 and 5, client i of which moved everything by i."""
    plan = replace(make_plan([1, 2, 5], [0.25, 0.25, 0.5], server.round_idx), trains=frozenset(trains))
    cohort = Cohort(plan, {MODEL: server.shared, "side": server.group("side")})
    for client_id in returned:
        moved = {name: tensor + client_id * (name in trains) for name, tensor in server.shared.items()}
        cohort.add(client_id, {MODEL: moved, "side": {"c": torch.tensor([100.0 * client_id])}})
    cohort.close(returned)
    return cohort


@pytest.mark.parametrize("optimizer", ["none", *SERVER_OPTIMIZERS])
def test_after_an_empty_round_the_server_stands(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even its momentum moves it, no rule and no part is asked, and nothing is summed; but the round is over."""
    monkeypatch.setattr(communication, "sum_in_place", lambda _: pytest.fail("there is nothing to sum"))
    server, part = make_server(), Side()
    cohort = make_cohort(server, [])
    after = make_step(Never(), [part], optimizer)(cohort, server, cohort.plan)
    assert after.round_idx == 5
    assert checksum(flat(after.parts())) == checksum(flat(server.parts()))
    assert after.folded == {}, "this round folded nothing"
    assert part.seen == []
    assert server.round_idx == 4


def test_the_rule_s_server_is_the_next() -> None:
    server = make_server()
    cohort = make_cohort(server, [1, 2, 5])
    after = make_step(FedAvg())(cohort, server, cohort.plan)
    assert after.shared["a"].tolist() == [4.25, 5.25]  # moved by 0.25 * 1 + 0.25 * 2 + 0.5 * 5
    assert after.shared["b"].tolist() == [6.25]
    assert after.round_idx == 5
    assert after.optimizer is server.optimizer


@pytest.mark.parametrize("name", SERVER_OPTIMIZERS)
def test_an_optimizer_goes_along_the_change_of_the_mean(name: str) -> None:
    """With the configuration's numbers, and for the tensors of this round's turn only."""
    server = make_server()
    cohort = make_cohort(server, [1, 2, 5], trains=["b"])
    numbers = {"lr": 0.5, "beta1": 0.7, "beta2": 0.9, "tau": 0.01}
    after = make_step(FedAvg(), optimizer=name, **numbers)(cohort, server, cohort.plan)
    mean = FedAvg()(cohort, server)
    expected = step(name, Options(**numbers), server, mean, trained={"b"})
    assert checksum(flat(after.parts())) == checksum(flat(expected.parts()))
    assert torch.equal(after.shared["a"], server.shared["a"])
    assert not torch.equal(after.shared["b"], mean.shared["b"])
    default = make_step(FedAvg(), optimizer=name)(cohort, server, cohort.plan)
    of_papers = step(name, Options(lr=1.0), server, mean, trained={"b"})
    assert ServerConfig().lr is None
    assert checksum(default.shared) == checksum(of_papers.shared)


@pytest.mark.parametrize("optimizer", ["none", "fedadam"])
def test_a_part_steps_its_own_group(optimizer: str) -> None:
    """From the server's tensors, what clients sent on average and their share of the population; beside the moments."""
    server, part = make_server(), Side()
    cohort = make_cohort(server, [1, 2, 5])
    after = make_step(FedAvg(), [LocalPart(), part], optimizer)(cohort, server, cohort.plan)
    ((before, mean, share),) = part.seen
    assert before["c"].tolist() == [10.0]
    assert mean["c"].tolist() == [325.0]  # 100 * (0.25 * 1 + 0.25 * 2 + 0.5 * 5)
    assert share == 3 / 8
    assert after.optimizer["side/c"].tolist() == [10.0 + 3 / 8 * 325.0]
    assert after.optimizer.keys() == server.optimizer.keys()
    assert torch.equal(after.optimizer["m/a"], server.optimizer["m/a"]) is (optimizer == "none")


def test_a_loss_counts_for_the_mean_and_for_the_share() -> None:
    """Clients 1 and 5 return: their weights are a third and two thirds, and they are two of eight."""
    server, part = make_server(), Side()
    cohort = make_cohort(server, [1, 5])
    after = make_step(FedAvg(), [part])(cohort, server, cohort.plan)
    assert after.shared["b"].tolist() == pytest.approx([3 + 11 / 3], rel=1e-7)
    ((_, mean, share),) = part.seen
    assert mean["c"].tolist() == pytest.approx([1100 / 3], rel=1e-7)
    assert share == 2 / 8


@dataclass(frozen=True)
class Returns(AggregationRule):
    """Returns a server of these tensors."""

    shared: TensorDict = field(default_factory=dict)

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        return replace(server, shared=self.shared)


@pytest.mark.parametrize(
    ("shared", "told"),
    [
        ({}, "the rule Returns lacks w; return a server"),
        ({"w": torch.zeros(2), "v": torch.zeros(1)}, "the rule Returns adds v; return a server"),
        ({"w": torch.zeros(3)}, r"the rule Returns returns w of shape .3,.; it must stay .2,."),
    ],
)
def test_what_a_rule_returns_has_the_server_s_tensors(shared: TensorDict, told: str) -> None:
    server = ServerState(round_idx=0, shared={"w": torch.ones(2)}, frozen={}, layers=())
    plan = make_plan([0], [1.0])
    cohort = Cohort(plan, {MODEL: server.shared})
    cohort.add(0, {MODEL: {"w": torch.ones(2)}})
    cohort.close([0])
    take = ServerStep(rule=Returns(shared=shared), options=ServerConfig(), parts=(), population_share=share_of)
    with pytest.raises(UserError, match=told):
        take(cohort, server, plan)
