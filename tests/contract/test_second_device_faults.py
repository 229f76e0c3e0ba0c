"""What the second device is there for: parts from outside that forget it, or wait for it, are seen."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_federations
import torch
from away_federations import Sizes, Waits, second_device, waits_in_steps
from second_device import OnTwoDevices, SecondDevice
from tiny_federations import Builder
from torch import Tensor

from fedlit.client.optimizers.torch_optimizers import AdamW
from fedlit.round.cohort import Cohort
from fedlit.round.loop import Federation
from fedlit.round.rules.fedavg import FedAvg
from fedlit.round.server import ServerState
from fedlit.tasks.causal_lm.task import CausalLM

SMALL = (
    "num_rounds=1",
    "num_clients=2",
    "local.steps=2",
    "analysis=[]",
    "model.attention_implementation=eager",
)


@dataclass(frozen=True, kw_only=True)
class Forgetful(FedAvg):
    """A rule that makes a tensor and does not say where."""

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        after = super().__call__(cohort, server)
        return replace(
            after, shared={name: tensor + torch.zeros(tensor.shape) for name, tensor in after.shared.items()}
        )


@dataclass(frozen=True, kw_only=True)
class Curious(FedAvg):
    """A rule that looks at each tensor."""

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        after = super().__call__(cohort, server)
        assert all(tensor.abs().max().item() < 100 for tensor in after.shared.values())
        return after


def run(folder: Path, change: Callable[[Federation], object] = lambda _federation: None) -> Federation:
    federation = Builder(folder, num_layers=1)("away", "method=fedit", *SMALL)
    change(federation)
    federation.run()
    return federation


def with_rule(rule: FedAvg) -> Callable[[Federation], None]:
    def change(federation: Federation) -> None:
        federation.step = replace(federation.step, rule=rule)

    return change


def test_a_rule_that_forgets_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with second_device(monkeypatch, tiny_federations), pytest.raises(OnTwoDevices, match="lies on the CPU"):
        run(tmp_path, with_rule(Forgetful()))


def test_a_rule_that_waits_for_each_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests belong to no package, so that the place is the caller's."""
    with second_device(monkeypatch, tiny_federations) as device:
        federation = run(tmp_path, with_rule(Curious()))
    assert device.reads["round/step.py:__call__"] == len(federation.server.shared)


def planted_loss(extra: Callable[[Tensor], Any]) -> Callable[..., Tensor]:
    plain = CausalLM.loss

    def loss(task: CausalLM, model: Any, batch: Any) -> Tensor:
        found = plain(task, model, batch)
        extra(found.detach())
        return found

    return loss


def test_a_local_step_that_forgets_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with second_device(monkeypatch, tiny_federations), pytest.raises(OnTwoDevices):
        monkeypatch.setattr(CausalLM, "loss", planted_loss(lambda loss: loss + torch.zeros(3)))
        run(tmp_path)


def test_a_local_step_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with second_device(monkeypatch, tiny_federations) as device:
        in_steps = waits_in_steps(device, monkeypatch)
        monkeypatch.setattr(CausalLM, "loss", planted_loss(Tensor.item))
        federation = run(tmp_path)
    assert sum(in_steps.values()) == 2 * len(federation.rows)


def test_an_optimizer_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watchful(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            assert all(float(one.grad.norm()) < 1e6 for group in self.param_groups for one in group["params"])
            super().step()

    monkeypatch.setattr(AdamW, "build", lambda _options, named: Watchful(list(named.values()), lr=0.01))
    with second_device(monkeypatch, tiny_federations) as device:
        in_steps = waits_in_steps(device, monkeypatch)
        federation = run(tmp_path)
    assert in_steps["client/steps.py:run"] == 2 * len(federation.rows) * len(federation.server.shared)


def test_a_row_of_the_table_counts_each_kind() -> None:
    sizes = Sizes(clients=3, layers=4, rounds=2, saves=3, evaluations=5)
    assert Waits(client=1, client_and_layer=1, layer=1, round=1, why="").of_run(sizes) == 2 * (3 + 12 + 4 + 1)
    assert Waits(save=1, evaluation=2, why="").of_run(sizes) == 3 + 10


def test_what_is_refused_and_what_is_counted() -> None:
    with SecondDevice() as device:
        there, here = torch.ones(3, device="meta"), torch.ones(3)
        assert float((there + torch.tensor(2.0)).sum()) == 9.0  # a number goes with the launch
        for both in (there.mul_, there.dot, lambda other: torch.cat([there, other])):
            with pytest.raises(OnTwoDevices):
                both(here)
        with pytest.raises(OnTwoDevices):
            torch.nn.functional.embedding(torch.zeros(1, dtype=torch.int64), torch.ones(2, 2, device="meta"))
        before = device.reads.total()
        for read in (lambda: there.sum().item(), there.tolist, there.cpu, lambda: bool(there.all()), there.nonzero):
            read()
        torch.linalg.svd(torch.ones(2, 2, device="meta"))
        assert device.reads.total() - before == 6
        assert device.uploads.total() == 0
        here.to("meta")
        assert device.uploads.total() == 1
