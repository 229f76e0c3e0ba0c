"""Of several rates the one that is best on the validation set is shown, with the test scores of its chosen round."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from fedlit.commands import compare
from fedlit.config import to_yaml
from fedlit.errors import UserError
from fedlit.lab.analysis.plots import curve_places

COUNTS = {"aggregation/num_clients": 3, "communication/uplink_bytes": 3, "communication/downlink_bytes": 3}
VALIDATION = "partition.validation_fraction=0.1"


def cells(folder: Path, *words: str) -> list[compare.Cell]:
    overrides = [f"run.dir={folder}", *words]
    return [compare._cell("fedit", lr, "loss", overrides) for lr in ("0.1", "0.2")]


def records(on_validation: list[float] | None, on_test: list[float | None]) -> list[dict[str, Any]]:
    """Return records of rounds 0, 1, ...; a test loss that is None was not scored."""
    found: list[dict[str, Any]] = []
    for number, loss in enumerate(on_test):
        found.append({"round": number, **(COUNTS if number else {})})
        found[-1] |= {} if loss is None else {"global/loss": loss}
        found[-1] |= {} if on_validation is None else {"validation/loss": on_validation[number]}
    return found


def shown(runs: dict[compare.Cell, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]) -> str:
    compare._show(runs, argparse.Namespace(score="loss", output=None, picture=None))
    told = capsys.readouterr()
    return told.out + told.err


def test_the_rate_is_chosen_on_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The test set would have chosen the other rate, and the last round."""
    one, other = cells(tmp_path, VALIDATION)
    assert one.run.arguments[-1] == "eval.score=loss"  # so that the round it chooses has its test scores
    runs = {one: records([9, 5, 6], [9.0, 4.0, 1.0]), other: records([9, 4, 3], [9.0, 8.0, 7.0])}
    table = shown(runs, capsys)
    (line,) = [line for line in table.splitlines() if line.startswith("| `fedit`")]
    assert [cell.strip(" *") for cell in line.split("|")[2:6]] == ["0.2", "2", "7.000", "3.000"]
    assert "†" not in table
    assert "each method at the learning rate and the round of its best validation/loss" in table
    earlier = {one: records([9, 2, 6], [9.0, 4.0, None]), other: runs[other]}
    assert "| 0.1 | 1 | **4.000** | **2.000** |" in shown(earlier, capsys)


def test_a_rate_that_the_test_set_chose_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = cells(tmp_path, "eval.choose_on=test")
    runs = {one: records(None, [9.0, 4.0, 1.0]), other: records(None, [9.0, 8.0, 7.0])}
    table = shown(runs, capsys)
    assert "| `fedit` | 0.1 † | **1.000** |" in table
    assert table.rstrip().endswith("†: chosen on the test set, which flatters")
    assert "†" not in shown({one: runs[one]}, capsys)  # nothing was chosen


def test_without_a_validation_set_rates_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--methods", "fedit", "--lrs", "0.1,0.2", f"run.dir={tmp_path}"]
    assert compare.main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        "error: --lrs: a rate is chosen, and there is no validation set to choose on; give partition"
    )
    assert told.count("\n") == 1
    one, _ = cells(tmp_path, "partition.name=file", f"partition.path={__file__}")  # which the rows alone tell
    with pytest.raises(UserError, match=r"^--lrs: a rate is chosen, and fedit-0\.1 has no validation set; give eval"):
        compare._require_shown(one, records(None, [9.0, 4.0]), "loss", chooses=True)
    compare._require_shown(one, records(None, [9.0, 4.0]), "loss", chooses=False)


def test_curves_are_of_the_validation_set_where_the_test_set_was_not_always_scored() -> None:
    assert curve_places(records([9, 5, 6], [9.0, 4.0, 1.0]), "loss") == ("global", "own")
    assert curve_places(records([9, 5, 6], [9.0, None, 1.0]), "loss") == ("validation", "global", "own")
    assert curve_places(records(None, [9.0, None, 1.0]), "loss") == ("global", "own")


def test_a_folder_of_another_comparison_is_refused_before_a_run_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, _ = cells(tmp_path, VALIDATION, "local.steps=3")
    one.run.folder.mkdir(parents=True)
    (one.run.folder / "config.yaml").write_text(to_yaml(one.run.config), encoding="utf-8")
    words = ["--methods", "fedit", "--lrs", "0.1,0.2", f"run.dir={tmp_path}", VALIDATION, "local.steps=4"]
    assert compare.main(words) == 2
    told = capsys.readouterr().err
    assert "holds a run of other settings (local.steps: 3 → 4); give run.dir=<another folder>" in told
    assert not (tmp_path / "fedit-0.2").exists()
