"""Cells in kinds: seeds, draws and rates make none."""

from pathlib import Path
from typing import Any

from fedlit.budget.kinds import axes_of, kinds_of
from fedlit.config import Cell


def cells(*settings: dict[str, Any]) -> list[Cell]:
    return [Cell(f"cell{i}", [], each, Path(f"cell{i}")) for i, each in enumerate(settings)]


def test_seeds_draws_and_rates_are_one_kind() -> None:
    found = kinds_of(
        cells(
            {"method": "fedit", "seed": 0, "local.lr": 0.1},
            {"method": "scl", "seed": 0, "local.lr": 0.1},
            {"method": "fedit", "seed": 1, "local.lr": 0.2, "partition.seed": 4},
        )
    )
    assert [(kind.name, kind.cells, kind.first) for kind in found] == [("fedit", (0, 2), 0), ("scl", (1,), 1)]


def test_what_is_computed_otherwise_is_another_kind() -> None:
    found = kinds_of(cells({"seed": 0}, {"seed": 0, "local.steps": 5}, {"seed": 0, "local.steps": 6}))
    assert [kind.name for kind in found] == ["all", "steps 5", "steps 6"]


def test_keys_that_go_together_are_named_once() -> None:
    together = [{"data": "a", "data.path": "a.jsonl"}, {"data": "b", "data.path": "b.jsonl"}]
    found = kinds_of(cells(*({**data, "method": method} for data in together for method in ("x", "y"))))
    assert [kind.name for kind in found] == ["a, x", "a, y", "b, x", "b, y"]


def test_axes_are_what_has_several_values() -> None:
    assert axes_of(cells({"method": "a", "seed": 0, "x": 1}, {"method": "b", "seed": 0})) == {"method": ["a", "b"]}
