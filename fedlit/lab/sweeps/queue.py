"""Cells that wait in SLURM's queue, which their run folders cannot know."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlit.lab.sweeps.cells import STALE, CellRun
from fedlit.lab.sweeps.records import Submission

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED")
ALIVE = ("CONFIGURING", "RUNNING")

BUSY = frozenset({"done", "running", "starting", "queued", "requeued"})
"""States of cells that need no new job."""


def with_queue(
    runs: Sequence[CellRun], submissions: Sequence[Submission], jobs: Mapping[str, str] | None
) -> list[CellRun]:
    """Return the cells with what the queue knows better than a run folder.

    `queued`: an element of an array waits for its turn. `starting`: it has its turn, and no run folder says so yet.
    `failed`: its job is gone, and there is no run folder; a job without a console never had its turn, and leaves the
    cell `pending`. `stopped`: a run put itself back into the queue, where it is no more. Of several cells in one
    element those wait that have not begun, and those that have ended stay as they ended while the others go on.

    Args:
        runs: read after the jobs, or a run that has just begun would look lost.
        submissions: the oldest first.
        jobs: of slurm.jobs_in_queue; None changes nothing.
    """
    return (
        list(runs)
        if jobs is None
        else [_queued_before(_settled(run, submissions, jobs), submissions, jobs) for run in runs]
    )


def _settled(run: CellRun, submissions: Sequence[Submission], jobs: Mapping[str, str]) -> CellRun:
    status, name = run.status, run.cell.name
    if status.state in ("done", "running"):
        return run
    own = [submission for submission in submissions if name in submission.cells]
    elements = [element for element in (status.job, *(submission.element(name) for submission in own)) if element]
    shared = {submission.element(name) for submission in own if submission.cells_per_task > 1}
    before = "" if status.state in ("pending", "requeued", STALE) else f"{status.state} before"
    for names, state in ((ALIVE, "starting"), (WAITING, "queued")):
        if job := next((element for element in elements if jobs.get(element) in names), None):
            if state == "starting" and job in shared:
                return _behind_others(run, job, before)
            known = status.state if (status.state, state) == ("requeued", "queued") else state
            return _now(run, state=known, job=job, reason=before or status.reason)
    found = any(element in jobs for element in elements)
    if status.state == "requeued" and not found:
        return _now(run, state="stopped", reason="its job has left the queue")
    if status.state in ("pending", STALE) and own and not found:
        return _never_began(run, own[-1], elements[-1])
    return run


def _queued_before(run: CellRun, submissions: Sequence[Submission], jobs: Mapping[str, str]) -> CellRun:
    """Return a stale cell as `queued` where an element waits that was submitted before the sweep was changed: it reads
    the sweep's file when its turn comes, and runs what the cell is then.
    """
    if run.status.state != STALE:
        return run
    elements = [submission.element(run.name) for submission in submissions if run.name in submission.cells]
    job = next((element for element in elements if element and jobs.get(element) in WAITING), None)
    return run if job is None else _now(run, state="queued", job=job, reason=f"stale before, {run.status.reason}")


def _behind_others(run: CellRun, job: str, before: str) -> CellRun:
    """Return a cell of a job that runs, and runs several."""
    if run.status.job == job and run.status.state != "requeued":
        return run  # it has had its turn, and the job goes on with the others
    return _now(run, state="queued", job=job, reason=before or "other cells of its job come first")


def _never_began(run: CellRun, submission: Submission, job: str) -> CellRun:
    """Return a cell whose job is gone."""
    if submission.cells_per_task > 1:
        return _now(run, reason=f"job {job} has ended before its turn")
    log = submission.log_of(run.cell.name)
    if log is not None and Path(log).parent.is_dir() and not Path(log).exists():
        return _now(run, reason=f"job {job} was cancelled in the queue")
    return _now(run, state="failed", job=job, reason="its job has left the queue, and the run never began", log=log)


def _now(run: CellRun, **changes: Any) -> CellRun:
    return replace(run, status=replace(run.status, **changes))
