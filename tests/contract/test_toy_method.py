"""A method of new parts, added as fedlit/README.md says, runs without a change to anything else."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tiny_federations import Builder, assert_export_computes_the_same
from torch import nn

from fedlit.adapters import Adapter, Calibration, trainable
from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.config import CONFIG_DIR
from fedlit.models import Projections
from fedlit.recipes import ADAPTERS, RECIPES, RULES, Part, Recipe
from fedlit.round.cohort import Cohort
from fedlit.round.rules import AggregationRule
from fedlit.round.server import ServerState


@dataclass(frozen=True, kw_only=True)
class Norms(Adapter):
    """Trains the scales of the norms.

    which: a part of the norms' names.
    """

    which: str = "norm"

    def attach(
        self, model: nn.Module, projections: Projections, calibration: Calibration | None = None
    ) -> dict[str, float]:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.which in name)
        return {}

    def shared(self, model: nn.Module) -> TensorDict:
        return {name: parameter.data for name, parameter in trainable(model).items()}

    def merged(self, model: nn.Module) -> TensorDict:
        return self.shared(model)


@dataclass(frozen=True, kw_only=True)
class Median(AggregationRule):
    """theta <- theta + step * (median_i theta_i - theta)."""

    stacks: ClassVar[bool] = True

    step: float = 1.0

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        stacked = cohort.stack(list(server.shared))
        moved = {
            name: tensor + self.step * (stacked[name].median(0).values - tensor)
            for name, tensor in server.shared.items()
        }
        return replace(server, shared=moved)


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    """Return a builder that knows the method `median_norms`: two parts, three lines in tables, one YAML."""
    monkeypatch.setitem(ADAPTERS, "norms", Part(Norms))
    monkeypatch.setitem(RULES, "median", Part(Median))
    monkeypatch.setitem(RECIPES, "median_norms", Recipe(adapter="norms", rule="median"))
    configs = tmp_path / "configs"
    configs.mkdir()
    for group in CONFIG_DIR.iterdir():
        if group.name != "method":
            (configs / group.name).symlink_to(group)
    (configs / "method").mkdir()
    for file in (CONFIG_DIR / "method").iterdir():
        (configs / "method" / file.name).symlink_to(file)
    lines = (
        "# Median of norms.",
        "",
        "name: median_norms",
        "# a part",
        "which: layernorm",
        "# factor",
        "step: 0.5",
    )
    (configs / "method" / "median_norms.yaml").write_text("\n".join(lines))
    return Builder(tmp_path, configs)


def test_two_rounds(builder: Builder) -> None:
    federation = builder("run", "method=median_norms", "method.step=0.25")
    assert federation.host.method.rule == Median(step=0.25)
    before = snapshot(federation.server.shared)
    assert len(before) == 2 * federation.host.model.config.num_hidden_layers  # type: ignore[union-attr, operator]
    federation.run()
    assert federation.server.round_idx == 2
    assert all(not torch.equal(tensor, before[name]) for name, tensor in federation.server.shared.items())
    record = federation.folder.records()[2]
    num_scalars = sum(tensor.numel() for tensor in before.values())
    assert record["communication/uplink_bytes"] == record["communication/downlink_bytes"] == 3 * 4 * num_scalars
    assert_export_computes_the_same(federation)


def test_it_resumes(builder: Builder) -> None:
    whole = builder.run("whole", "method=median_norms")
    first = builder("halves", "method=median_norms")
    first.config.num_rounds = 1
    first.run()
    second = builder("halves", "method=median_norms")
    assert second.server.round_idx == 1
    second.run()
    assert all(torch.equal(tensor, whole.server.shared[name]) for name, tensor in second.server.shared.items())


def test_it_takes_the_options_of_every_method(builder: Builder) -> None:
    options = ["method=median_norms", "num_rounds=1"]
    plain = builder.run("plain", *options)
    for name, option in (("prox", "local.prox_mu=10"), ("pooled", "method.pooled=true"), ("step", "method.step=1")):
        other = builder.run(name, *options, option)
        assert any(not torch.equal(tensor, plain.server.shared[key]) for key, tensor in other.server.shared.items())
    alone = builder.run("alone", *options, "method.rule=none")
    assert not alone.server.shared
    assert_export_computes_the_same(alone)
