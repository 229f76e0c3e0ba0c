"""Adapters of plain peft scripts: what is recorded of them, what the page says of it, and a short run anew."""

import csv
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "experiments" / "aggregate"
LAYOUTS = ("gpt2", "llama", "stories260k")
EXACT = 1e-6
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
]


@pytest.fixture
def distances() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("distances")
    for name in ("distances", "train"):
        sys.modules.pop(name, None)


def recorded() -> list[dict[str, str]]:
    with (FOLDER / "results" / "distances.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_best_of_a_rank_and_the_exact_ones_are_that() -> None:
    table = [row for row in recorded() if row["by"] == "fedlit" and row["distance"]]
    best = [row for row in table if row["rule"] in ("flexlora", "flora", "fedex")]
    assert len(best) == 3 * (4 + 4 + 5)
    for row in best:
        assert abs(float(row["beyond"])) < EXACT, row
    assert all(float(row["distance"]) > float(row["least"]) + 0.05 for row in table if row not in best)


def test_the_page_s_table_is_what_is_recorded() -> None:
    page = (REPOSITORY / "docs" / "howto" / "aggregate.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith(("| mixed", "| rsLoRA first", "| equal"))]
    assert len(lines) >= 12
    for line in lines:
        adapters, shown, rank, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rule, *options = shown.replace("`", "").split()
        by = "fedlit"
        if rule == "peft":
            by, rule, options = "peft", options[0], options[1:]
        for layout, cell in zip(LAYOUTS, cells, strict=True):
            key = {"layout": layout, "adapters": adapters.lower(), "by": by, "rule": rule, "options": " ".join(options)}
            (row,) = [row for row in recorded() if key.items() <= row.items()]
            given, least = (float(row[name]) for name in ("distance", "least"))
            assert cell == f"{shown_number(given)} ({shown_number(least)})", line
            assert row["rank"] == rank


def shown_number(value: float) -> str:
    return "0" if value < EXACT else f"{value:.4f}"


@pytest.mark.parametrize("layout", ["gpt2", "llama"])
def test_a_short_run_anew(layout: str, distances: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {name: [[*words, "--steps=2"] for words in sets] for name, sets in distances.ADAPTERS.items()}
    monkeypatch.setattr(distances, "ADAPTERS", short)
    monkeypatch.setattr(distances, "RULES", {"flexlora": ("--rank=4",), "flora": (), "fedex": ()})
    monkeypatch.setattr(distances, "OF_PEFT", {"cat": {}})
    best, exact, refused, by_peft = distances.rows(layout, "mixed", tmp_path)
    assert refused["told"] == "refused: equal ranks and scalings only"
    assert (best["rank"], exact["rank"]) == (4, 28)
    assert float(best["least"]) > 0.1
    assert all(abs(float(row["beyond"])) < EXACT for row in (best, exact, by_peft))
