"""Times of runs as their folders tell them."""

import json
import os
from pathlib import Path

import pytest

from fedlit.budget.measured import start_s, times_of
from fedlit.errors import UserError
from fedlit.store.status import RunStatus


def run(folder: Path, *, state: str = "done", wall_s: float = 20.0, timed: bool = True) -> Path:
    folder.mkdir()
    records = [
        {"round": 0, "time/evaluate_s": 2.0, "time/round_s": 2.5, "time/devices_s": 5.0},
        {"round": 1, "time/train_s": 6.0, "time/evaluate_s": 3.0, "time/round_s": 10.0, "time/devices_s": 20.0},
    ]
    if not timed:
        records = [{"round": 0}, {"round": 1}]
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "environment.json").write_text(json.dumps({"device": "cuda:0"}))
    status = {"state": state, "started_s": 100.0, "updated_s": 100.0 + wall_s}
    (folder / "status.json").write_text(json.dumps(status))
    os.utime(folder / "metrics.jsonl", (100.0, 100.0))  # or the run would have ended when this was written
    return folder


def test_a_finished_run_is_taken_apart(tmp_path: Path) -> None:
    found = times_of(run(tmp_path / "run"))
    assert (found.train_s, found.evaluate_s, found.between_s) == (6.0, 5.0, 1.5)
    assert (found.num_rounds, found.num_processes, found.device) == (1, 2, "cuda:0")
    assert found.outside_s == pytest.approx(20.0 - 12.5)
    assert found.total_s == pytest.approx(20.0)


def test_a_run_that_was_taken_up_again_does_not_tell_of_its_first_start(tmp_path: Path) -> None:
    found = times_of(run(tmp_path / "run", wall_s=11.0))
    assert found.outside_s is None
    assert found.total_s == pytest.approx(12.5)


@pytest.mark.parametrize(
    ("named", "word"), [({"state": "failed"}, "is failed"), ({"timed": False}, "without times"), (None, "holds no run")]
)
def test_what_tells_no_time_is_refused(tmp_path: Path, named: dict[str, object] | None, word: str) -> None:
    if named is None:
        (tmp_path / "run").mkdir()
    else:
        run(tmp_path / "run", **named)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=word) as caught:
        times_of(tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_what_lies_between_runs_is_the_start_of_a_process() -> None:
    spans = [(0.0, 10.0), (14.0, 20.0), (26.0, 30.0), (5000.0, 5001.0)]
    runs = [RunStatus(state="done", started_s=a + 1, updated_s=b + 1) for a, b in spans]
    assert start_s(runs) == 5.0, "4 and 6; an hour is a pause"
    assert start_s(runs[:1]) is None
    two_at_a_time = [RunStatus(started_s=a, updated_s=b) for a, b in [(1, 10), (1, 12), (13, 20), (14, 22)]]
    assert start_s(two_at_a_time) == 1.5
