"""The simulation in small: 200 tables with a known truth, and counts within what chance allows."""

import csv
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scipy import stats

FOLDER = Path(__file__).parents[3] / "experiments" / "statistics"

NUM_TABLES = 200


@pytest.fixture(scope="module")
def simulate() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module("simulate")


def may_be(count: int, rate: float, total: int = NUM_TABLES) -> bool:
    """Return whether a count is one of 999 in 1,000 of the binomial distribution."""
    return bool(stats.binom.ppf(0.0005, total, rate) <= count <= stats.binom.ppf(0.9995, total, rate))


def test_students_interval_keeps_its_word_and_bca_does_not_with_few_pairs(simulate: ModuleType) -> None:
    lines = {(line["shape"], line["pairs"]): line for line in simulate.PARTS["coverage"](NUM_TABLES, 0)}
    assert all(may_be(lines["normal", n]["t"], 0.95) for n in (5, 6, 10, 20))
    assert not may_be(lines["normal", 5]["bca"], 0.95), "the page on statistics says so"
    assert may_be(lines["normal", 20]["bca"], 0.935)


def test_no_effect_is_found_as_often_as_the_level_says(simulate: ModuleType) -> None:
    reached = {6: 2 / 64, 7: 6 / 128, 10: 50 / 1024, 20: 0.05, 25: 0.05}
    for line in simulate.PARTS["level"](NUM_TABLES, 0):
        if line["shape"] != "skewed":  # mirror images are as likely
            assert may_be(line["sign_flip"], reached[line["pairs"]]), line


def test_a_family_has_one_level(simulate: ModuleType) -> None:
    for line in simulate.PARTS["family"](60, 0):
        assert line["uncorrected"] > 30
        assert stats.binom.sf(line["holm"] - 1, 60, 0.05) > 0.0005, line
        assert stats.binom.sf(line["step_down"] - 1, 60, 0.05) > 0.0005, line
        if line["gap"]:
            assert line["step_down_found"] > 0.7
            assert line["pairs"] > 12 or line["holm_found"] == 0


def test_planted_gaps_are_found_as_promised(simulate: ModuleType) -> None:
    for line in simulate.PARTS["power"](NUM_TABLES, 0):
        if line["shape"] == "normal":
            assert line["found_rate"] > line["promised"] - 0.12, line


def test_flips_are_as_many_as_predicted_where_a_gap_stands(simulate: ModuleType) -> None:
    lines: list[dict[str, Any]] = simulate.PARTS["flip"](NUM_TABLES, 0)
    for line in lines:
        if line["gap"] == "any":
            assert abs(line["flipped_rate"] - line["predicted"]) < 0.12
        if line["gap"] == 0.0:
            assert line["flipped_rate"] > line["predicted"] > line["plug_in"], "the docstring says so"


def test_intervals_of_shares_hold_the_truth(simulate: ModuleType) -> None:
    plan = (("mostly draws", "normal", 10, 2), ("all alike", "normal", 5, 2), ("mostly draws", "normal", 10, 1))
    lines = simulate.PARTS["shares"](NUM_TABLES, 0, num_resamples=300, plan=plan)
    assert len(lines) == 13
    for line in lines:
        assert stats.binom.cdf(line["covered"], NUM_TABLES, 0.94) > 0.0005, line
        assert abs(line["mean"] - line["true"]) < 0.06
    draw = next(line for line in lines if line["source"] == "draw")
    assert not may_be(draw["percentile"], 0.95), "the docstring of shares says so"


def test_each_part_writes_its_table(simulate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--tables", "20", "--seed", "1", "--out", str(tmp_path / "new"), "--only", "coverage", "pilot"]
    assert simulate.main(words) == 0
    assert "coverage: " in capsys.readouterr().out
    with (tmp_path / "new" / "coverage.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and {row["tables"] for row in rows} == {"20"}


def test_the_kept_tables_are_of_2000(simulate: ModuleType) -> None:
    for name in simulate.PARTS:
        with (simulate.RESULTS / f"{name}.csv").open(encoding="utf-8") as file:
            assert {row["tables"] for row in csv.DictReader(file)} == {"2000"}, name
