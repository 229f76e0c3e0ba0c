"""What a sweep remembers beside its runs."""

from pathlib import Path

import pytest

from fedlit.config import Sweep, load_sweep
from fedlit.errors import UserError
from fedlit.lab.sweeps.records import (
    Submission,
    add_submission,
    arguments_path,
    read_submissions,
    remember,
    remembered,
)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.chdir(tmp_path)
    return load_sweep("demo")


def test_arguments_hold_until_others_are_given(sweep: Sweep) -> None:
    assert remembered(sweep, []) == ()
    remember(sweep, ["seed=[0, 1]", "data.path=a b"])
    assert remembered(sweep, []) == ("seed=[0, 1]", "data.path=a b")
    assert remembered(sweep, ["seed=0"]) == (), "the user's own arguments were mixed with old ones"
    remember(sweep, [])
    assert remembered(sweep, []) == ()


def test_the_folder_of_runs_says_where_they_are_kept(sweep: Sweep) -> None:
    remember(sweep, ["run.dir=elsewhere", "seed=0"])
    assert arguments_path(sweep, ["run.dir=elsewhere"]) == Path("elsewhere/sweep.json")
    assert remembered(sweep, []) == ()
    kept = remembered(sweep, ["run.dir=elsewhere"])
    assert kept == ("seed=0",)
    assert [cell.folder.parent for cell in sweep.cells([*kept, "run.dir=elsewhere"])] == [Path("elsewhere")] * 4


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"overrides": 3}'])
def test_a_damaged_file_is_one_line(sweep: Sweep, text: str) -> None:
    remember(sweep, ["seed=0"])
    arguments_path(sweep).write_text(text)
    with pytest.raises(UserError, match=r"runs/demo/sweep.json does not hold"):
        remembered(sweep, [])


def test_submissions_read_back(sweep: Sweep) -> None:
    first = Submission(
        job="7", submitted_s=1.5, indices=(0, 3), cells=("a", "b"), overrides=("seed=0",), log="logs/x-%A_%a.out"
    )
    second = Submission(job="8", submitted_s=2.5, indices=(3,), cells=("b",), overrides=(), cells_per_task=4)
    path = add_submission(sweep, first)
    add_submission(sweep, second)
    assert read_submissions(sweep) == [first, second]
    assert (first.element("b"), first.log_of("b")) == ("7_3", "logs/x-7_3.out")
    assert (first.element("c"), first.log_of("c"), second.log_of("b")) == (None, None, None)
    path.write_text(path.read_text()[:-20])
    assert read_submissions(sweep) == [first], "a line that was cut off spoilt the others"
