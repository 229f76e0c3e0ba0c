"""Cells that wait in SLURM's queue, which their run folders cannot know."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedlit.lab.sweeps.cells import CellRun
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
    cell `pending`. `stopped`: a run put itself back into the queue, where it is no more.

    Args:
        runs: read after the jobs, or a run that has just begun would look lost.
        submissions: the oldest first.
        jobs: of slurm.jobs_in_queue; None changes nothing.
    """
    return list(runs) if jobs is None else [_settled(run, submissions, jobs) for run in runs]


def _settled(run: CellRun, submissions: Sequence[Submission], jobs: Mapping[str, str]) -> CellRun:
    status, name = run.status, run.cell.name
    if status.state in ("done", "running"):
        return run
    own = [submission for submission in submissions if name in submission.cells]
    elements = [element for element in (status.job, *(submission.element(name) for submission in own)) if element]
    found = [element for element in elements if element in jobs]
    before = "" if status.state in ("pending", "requeued") else f"{status.state} before"
    for names, state in ((ALIVE, "starting"), (WAITING, "queued")):
        if job := next((element for element in found if jobs[element] in names), None):
            known = status.state if (status.state, state) == ("requeued", "queued") else state
            return replace(run, status=replace(status, state=known, job=job, reason=before or status.reason))
    if status.state == "requeued" and not found:
        return replace(run, status=replace(status, state="stopped", reason="its job has left the queue"))
    if status.state == "pending" and own and not found:
        log = own[-1].log_of(name)
        if log is not None and Path(log).parent.is_dir() and not Path(log).exists():
            return replace(run, status=replace(status, reason=f"job {elements[-1]} was cancelled in the queue"))
        reason = "its job has left the queue, and the run never began"
        return replace(run, status=replace(status, state="failed", job=elements[-1], reason=reason, log=log))
    return run
