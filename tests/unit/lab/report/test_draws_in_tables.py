"""`partition.seed` as an axis makes no rows: cells are means over draws, each the mean over its seeds."""

import csv
import io
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from fedlit.errors import UserError
from fedlit.lab.analysis.best_axis import at_best, best_over
from fedlit.lab.analysis.collection import Collection, bound_keys, by_seed
from fedlit.lab.report.cells import measure_all
from fedlit.lab.report.files import table_csv
from fedlit.lab.report.layout import make_layout
from fedlit.lab.report.significance import compare_all
from fedlit.lab.report.table import build_table

Settings = Mapping[str, Any]
Make = Callable[..., Collection]
DRAWS, SEEDS = range(3), range(2)
CELLS = [
    {"method": method, "partition.seed": draw, "seed": seed}
    for method in ("fedit", "ffa_lora")
    for draw in DRAWS
    for seed in SEEDS
]


def make(make_collection: Make, cells: list[dict[str, Any]], scorer: Any, **more: Any) -> Collection:
    """Return a collection whose repetitions are no settings that vary, as `collect` has it."""
    found = make_collection(cells, scorer, **more)
    return replace(found, varied=tuple(key for key in found.varied if key != "partition.seed"))


def value(s: Settings) -> float:
    return 0.2 + 0.1 * (s["method"] == "ffa_lora") + 0.03 * s["partition.seed"] + 0.01 * s["seed"]


def scorer(s: Settings, number: int) -> dict[str, float]:
    return {"global/rouge_l": value(s), "validation/rouge_l": value(s)}


def test_a_row_is_a_method_and_the_deviation_is_over_draws(make_collection: Make) -> None:
    table = build_table(make(make_collection, CELLS, scorer))
    means = [statistics.mean(0.2 + 0.03 * draw + 0.01 * seed for seed in SEEDS) for draw in DRAWS]
    assert [[cell.text for cell in row][:2] for row in table.cells] == [
        ["fedit", f"{statistics.mean(means):.3f} ± {statistics.stdev(means):.3f}"],
        ["ffa_lora", f"{statistics.mean(means) + 0.1:.3f} ± {statistics.stdev(means):.3f}"],
    ]
    assert "over 3 draws x 2 seeds" in table.caption


def test_one_draw_is_the_table_of_its_seeds(make_collection: Make) -> None:
    """Byte for byte, whether the draw stands on an axis of one value or nowhere."""
    one = [cell for cell in CELLS if cell["partition.seed"] == 1]
    plain = [{key: v for key, v in cell.items() if key != "partition.seed"} for cell in one]
    tables = [
        build_table(make(make_collection, one, scorer)),
        build_table(make_collection(plain, lambda s, n: scorer({**s, "partition.seed": 1}, n))),
    ]
    assert tables[0] == tables[1]
    assert "over 2 seeds" in tables[0].caption


def test_what_is_missing_is_told_by_draw_and_seed(make_collection: Make) -> None:
    def state(s: Settings) -> str:
        return "killed" if s == {"method": "fedit", "partition.seed": 2, "seed": 1} else "done"

    table = build_table(make(make_collection, CELLS, scorer, state=state))
    assert "over 3 draws x 1 to 2 seeds" in table.caption
    assert any("5 of 6 runs; draw 2 seed 1: killed" in note for note in table.notes)
    found = by_seed(make(make_collection, CELLS, scorer))
    assert [group.settings for group in found] == [{"method": "fedit"}, {"method": "ffa_lora"}]


def test_a_draw_with_a_seed_less_counts_as_much_as_others(make_collection: Make) -> None:
    cells = [cell for cell in CELLS if (cell["partition.seed"], cell["seed"]) != (2, 1)]
    (row, _) = measure_all(make_layout(make(make_collection, cells, scorer), None, ["rouge_l"]), "last")
    assert row[0].mean == pytest.approx(statistics.mean([0.205, 0.235, 0.26]))


def test_the_csv_names_draw_and_seed(make_collection: Make) -> None:
    collection = make(make_collection, CELLS, scorer)
    text = table_csv(collection, make_layout(collection, None, ["rouge_l"]))
    first, _ = list(csv.DictReader(io.StringIO(text)))
    assert [pair.split("=")[0] for pair in first["last_by_seed"].split()] == ["0/0", "0/1", "1/0", "1/1", "2/0", "2/1"]
    assert "partition.seed" not in first


def test_a_pair_of_wilcoxon_is_a_cell_not_a_draw(make_collection: Make) -> None:
    layout = make_layout(make(make_collection, CELLS, scorer), None, ["rouge_l"])
    (found,) = compare_all(layout, measure_all(layout, "last"))
    assert (found.num_pairs, found.median) == (1, pytest.approx(-0.1))


def test_a_rate_is_chosen_over_draws_and_seeds(make_collection: Make) -> None:
    cells = [{**cell, "local.lr": lr} for cell in CELLS for lr in (0.01, 0.1)]

    def rated(s: Settings, number: int) -> dict[str, float]:
        better = 0.2 if s["local.lr"] == 0.1 and s["partition.seed"] > 0 else 0.0
        return {"global/rouge_l": value(s) + better, "validation/rouge_l": value(s) + better}

    collection = make(make_collection, cells, rated)
    shown, found = at_best(collection, ["local.lr"])
    assert [best.value for best in found] == [0.1, 0.1]
    assert [len(best.entries) for best in found] == [6, 6]
    assert any("mean over 3 draws x 2 seeds" in note for note in shown.notes)
    with pytest.raises(UserError, match=r"partition\.seed is the mean over draws already"):
        best_over(collection.entries, "partition.seed")


def test_methods_at_rates_of_their_own_meet_under_one_condition(make_collection: Make) -> None:
    """As in a sweep whose axis of methods names a learning rate, steps and options of each."""
    own: list[dict[str, Any]] = [
        {"method": "fedit", "local.lr": 0.01},
        {"method": "scl", "method.init": "svd", "local.lr": 0.01},
        {"method": "scl", "method.init": "gaussian", "local.lr": 0.03},
        {"method": "centralized", "local.lr": 0.001, "local.steps": 60},
    ]
    cells = [{**each, "partition.seed": draw, "seed": 0} for each in own for draw in range(2)]
    collection = make(make_collection, cells, lambda s, n: {"global/loss": s["partition.seed"] + s["local.lr"]})
    assert bound_keys(collection.entries) == ("local.lr", "local.steps")
    table = build_table(collection)
    assert table.heads[:2] == ("method", "init")
    assert [[cell.text for cell in row[:2]] for row in table.cells] == [
        ["fedit", ""],
        ["scl", "svd"],
        ["scl", "gaussian"],
        ["centralized", ""],
    ]
    assert sum(row[2].best for row in table.cells) == 1
    layout = make_layout(collection, None, ["loss"])
    assert len(compare_all(layout, measure_all(layout, "last"))) == 6
    assert {line.contender for line in layout.lines} == {"fedit", "scl, svd", "scl, gaussian", "centralized"}


def test_a_rate_that_every_method_has_several_of_is_a_condition(make_collection: Make) -> None:
    cells = [{**cell, "local.lr": lr} for cell in CELLS for lr in (0.01, 0.1)]
    collection = make(make_collection, cells, scorer)
    assert bound_keys(collection.entries) == ()
    also = [{**cell, "local.momentum": 0.9 * (cell["method"] == "fedit")} for cell in cells]
    assert bound_keys(make(make_collection, also, scorer).entries) == ("local.momentum",)
    layout = make_layout(collection, None, ["rouge_l"])
    assert len({line.conditions for line in layout.lines}) == 2
