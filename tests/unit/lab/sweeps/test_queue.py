"""What SLURM's queue adds to the run folders: cells that wait, begin, or have lost their job."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedlit.lab.sweeps.cells import CellRun
from fedlit.lab.sweeps.queue import BUSY, with_queue
from fedlit.lab.sweeps.records import Submission

SUBMISSION = Submission(
    job="7", submitted_s=0.0, indices=(4, 9), cells=("cell0", "cell1"), overrides=(), log="logs/%A_%a.out"
)


@pytest.mark.parametrize(
    ("state", "job", "jobs", "expected"),
    [
        ("pending", None, {"7_4": "PENDING"}, "queued"),
        ("pending", None, {"7_4": "RUNNING"}, "starting"),
        ("pending", None, {"7_4": "COMPLETING"}, "pending"),
        ("pending", None, {"8_4": "PENDING"}, "failed"),  # another job: its own is gone, and there is no run
        ("failed", "7_4", {"7_4": "PENDING"}, "queued"),
        ("failed", "7_4", {}, "failed"),
        ("killed", "3", {"3": "PENDING"}, "queued"),  # put back by SLURM after its node was lost
        ("requeued", "7_4", {"7_4": "PENDING"}, "requeued"),
        ("requeued", "7_4", {"7_4": "COMPLETING"}, "requeued"),
        ("requeued", "7_4", {"7_4": "RUNNING"}, "starting"),
        ("requeued", "7_4", {}, "stopped"),
        ("running", "7_4", {"7_4": "RUNNING"}, "running"),
        ("done", "7_4", {"7_4": "PENDING"}, "done"),
    ],
)
def test_a_submitted_cell(
    make_run: Callable[..., CellRun], state: str, job: str | None, jobs: dict[str, str], expected: str
) -> None:
    (run,) = with_queue([make_run(0, state, job=job)], [SUBMISSION], jobs)
    assert run.status.state == expected
    assert run.index == 0


def test_a_lost_job_tells_where_its_console_is(make_run: Callable[..., CellRun]) -> None:
    (run,) = with_queue([make_run(1)], [SUBMISSION], {})
    assert (run.status.job, run.status.log) == ("7_9", "logs/7_9.out")
    assert "never began" in run.status.reason


def test_a_job_that_was_cancelled_in_the_queue_has_no_console(
    make_run: Callable[..., CellRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (run,) = with_queue([make_run(0)], [SUBMISSION], {})
    assert (run.status.state, run.status.reason) == ("pending", "job 7_4 was cancelled in the queue")
    (tmp_path / "logs" / "7_4.out").touch()
    (run,) = with_queue([make_run(0)], [SUBMISSION], {})
    assert run.status.state == "failed"


def test_cells_of_no_submission_stay_as_their_folders_say(make_run: Callable[..., CellRun]) -> None:
    runs = [make_run(2), make_run(3, "failed", reason="why")]
    assert with_queue(runs, [SUBMISSION], {"7_4": "PENDING"}) == runs
    assert with_queue([make_run(0)], [SUBMISSION], None) == [make_run(0)], "no squeue is not an empty queue"


def test_the_newest_submission_counts(make_run: Callable[..., CellRun]) -> None:
    later = Submission(job="8", submitted_s=1.0, indices=(0,), cells=("cell0",), overrides=())
    (run,) = with_queue([make_run(0, "failed", reason="bad luck", job="7_4")], [SUBMISSION, later], {"8_0": "PENDING"})
    assert (run.status.state, run.status.job, run.status.reason) == ("queued", "8_0", "failed before")


SHARED = Submission(
    job="7", submitted_s=0.0, indices=(4, 9, 11), cells=("cell0", "cell1", "cell2"), overrides=(), cells_per_task=2
)


@pytest.mark.parametrize(
    ("state", "job", "jobs", "expected", "reason"),
    [
        ("pending", None, {"7_0": "RUNNING"}, "queued", "other cells of its job come first"),
        ("pending", None, {"7_1": "RUNNING"}, "pending", "job 7_0 has ended before its turn"),
        ("pending", None, {"7_0": "PENDING"}, "queued", ""),
        ("failed", "7_0", {"7_0": "RUNNING"}, "failed", "why"),  # it had its turn, others have not
        ("failed", "6_0", {"7_0": "RUNNING"}, "queued", "failed before"),
        ("stopped", "7_0", {"7_0": "PENDING"}, "queued", "stopped before"),
        ("requeued", "7_0", {"7_0": "PENDING"}, "requeued", "why"),
        ("requeued", "7_0", {"7_0": "RUNNING"}, "queued", "other cells of its job come first"),
        ("done", "7_0", {"7_0": "RUNNING"}, "done", "why"),
    ],
)
def test_a_cell_that_shares_its_job(
    make_run: Callable[..., CellRun], state: str, job: str | None, jobs: dict[str, str], expected: str, reason: str
) -> None:
    known = {} if state == "pending" else {"job": job, "reason": "why"}
    (run,) = with_queue([make_run(1, state, **known)], [SHARED], jobs)
    assert (run.status.state, run.status.reason) == (expected, reason)


def test_only_ended_cells_need_a_job() -> None:
    assert {"done", "running", "queued", "starting", "requeued"} == BUSY
