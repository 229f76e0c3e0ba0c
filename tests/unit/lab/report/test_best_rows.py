"""The table at the best value of an axis: a row for each group, the value beside it, choice and score of one round."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedlit.config import EvalConfig, RunConfig
from fedlit.lab.analysis.best_axis import at_best
from fedlit.lab.analysis.collection import Collection
from fedlit.lab.report.cells import measure_all
from fedlit.lab.report.layout import make_layout
from fedlit.lab.report.table import Table, build_table
from fedlit.lab.report.writing import write_report

Settings = Mapping[str, Any]
RATES = (0.01, 0.1)
CELLS = [
    {"method": method, "local.lr": lr, "seed": seed}
    for method in ("fedit", "ffa_lora")
    for lr in RATES
    for seed in (0, 1)
]
BEST = {"fedit": 0.1, "ffa_lora": 0.01}


def scorer(settings: Settings, number: int) -> dict[str, float]:
    """The rate that is best on validation is the worst on the test set, and so is the round."""
    good = settings["local.lr"] == BEST[settings["method"]]
    chosen = (0.5 if good else 0.4) + (0.1 if number == 2 else 0) + 0.01 * settings["seed"]
    return {"validation/rouge_l": chosen, "global/rouge_l": 1 - chosen}


def rows(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.cells]


def test_a_row_for_each_group_with_the_value_that_validation_chose(
    make_collection: Callable[..., Collection],
) -> None:
    shown, _ = at_best(make_collection(CELLS, scorer), ["local.lr"], "last")
    table = build_table(shown, which="last")
    assert table.heads[:3] == ("method", "best lr", "ROUGE-L ↑")
    assert rows(table) == [["fedit", "0.1", "0.495 ± 0.007"], ["ffa_lora", "0.01", "0.495 ± 0.007"]]
    assert any(note.startswith("local.lr: the best of each row by validation/rouge_l") for note in table.notes)


def test_the_score_is_of_the_round_that_chose_the_value(make_collection: Callable[..., Collection]) -> None:
    shown, found = at_best(make_collection(CELLS, scorer), ["local.lr"], "best")
    layout = make_layout(shown, None, ["rouge_l"])
    for best, (measured, *_) in zip(found, measure_all(layout, "best"), strict=True):
        assert {seed: value.number for seed, value in measured.values.items()} == best.rounds == {0: 2, 1: 2}
        assert measured.mean == pytest.approx(1 - best.score)


def test_rows_at_different_values_are_compared_with_one_another(make_collection: Callable[..., Collection]) -> None:
    shown, _ = at_best(make_collection(CELLS, scorer), ["local.lr"], "last")
    lines = make_layout(shown, None, []).lines
    assert {line.conditions for line in lines} == {()}
    assert [line.contender for line in lines] == ["fedit", "ffa_lora"]


def test_a_choice_on_the_test_set_is_marked(make_collection: Callable[..., Collection]) -> None:
    config = RunConfig(num_rounds=3, eval=EvalConfig(choose_on="test"))
    shown, _ = at_best(make_collection(CELLS, scorer, config=config), ["local.lr"], "last")
    table = build_table(shown, which="last")
    assert [row[1] for row in rows(table)] == ["0.01 †", "0.1 †"]
    assert any("chosen on the test set (†), which flatters" in note for note in table.notes)


def test_stale_and_failed_cells_are_told_and_choose_nothing(make_collection: Callable[..., Collection]) -> None:
    def state(settings: Settings) -> str:
        if settings["method"] == "fedit" and settings["local.lr"] == 0.1:
            return "failed"
        return "stale" if settings["method"] == "ffa_lora" else "done"

    shown, _ = at_best(make_collection(CELLS, scorer, state=state), ["local.lr"], "last")
    table = build_table(shown, which="last")
    assert [row[1] for row in rows(table)] == ["0.01", ""]
    assert "local.lr, method fedit: took no part (lr 0.1: failed)" in table.notes
    assert "local.lr, method ffa_lora: nothing is chosen (lr 0.01: stale; lr 0.1: stale)" in table.notes


def test_the_file_of_numbers_has_the_value(make_collection: Callable[..., Collection], tmp_path: Path) -> None:
    shown, _ = at_best(make_collection(CELLS, scorer), ["local.lr"], "last")
    write_report(replace(shown, folder=tmp_path), tmp_path, which="last", figures=False)
    lines = list(csv.DictReader((tmp_path / "table.csv").open(encoding="utf-8")))
    assert [(line["method"], line["local.lr"]) for line in lines if line["score"] == "rouge_l"] == [
        ("fedit", "0.1"),
        ("ffa_lora", "0.01"),
    ]
