"""Several cells in one task of a job, one after the other, each in a process and a run folder of its own.

The console is the job's. A cell that fails does not keep the next from beginning. On the time limit (SIGUSR1) the cell
at work saves its rounds and puts the job back into the queue; where it has none to save, and an earlier cell has got
somewhere since the job began, this process does. A job that is back goes on with what is not finished.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from fedlit.errors import UserError
from fedlit.lab.sweeps.local import POLL_S, LocalRun, Outcome
from fedlit.lab.sweeps.starting import Beginner, beginner
from fedlit.lab.sweeps.tables import duration
from fedlit.process import slurm
from fedlit.process.interrupt import collected
from fedlit.process.warm import Process
from fedlit.store.status import read_status

_SETTLED = ("failed", "diverged", "out_of_memory")
"""Ends that a second start in one job would only repeat."""


def require_one_task(num_cells: int, environ: Mapping[str, str] = os.environ) -> None:
    """Raise UserError where several processes would each run the cells."""
    world = environ.get("WORLD_SIZE", "")
    num_tasks = max(slurm.num_tasks(environ), int(world) if world.isdecimal() else 1)
    if num_tasks > 1:
        raise UserError(
            f"--cells-per-task={num_cells} runs its cells in one process, and this job has {num_tasks}; "
            "give --ntasks-per-node=1 and --nodes=1, or leave --cells-per-task out"
        )


def run_in_job(runs: Sequence[LocalRun], say: Callable[[str], None], *, warm: bool = True) -> list[Outcome]:
    """Run federations one after the other and return how each ended, in their order.

    Beside the states of `run_locally` there is `timed_out`: the time limit came before anything was reached.

    Args:
        runs: with folders of their own.
        say: gets a line whenever a run begins or ends.
        warm: fork the runs from one process that has imported everything, where that can be done.
    """
    outcomes: list[Outcome] = []
    with (
        collected(signal.SIGINT, signal.SIGTERM, signal.SIGUSR1) as asked,
        beginner([run.config for run in runs], say, warm=warm, in_job=True) as begins,
    ):
        for place, run in enumerate(runs):
            title = f"[{place + 1}/{len(runs)}] {run.name}"
            if asked:
                outcomes.append(Outcome(run=run, state="not begun"))
            elif left := _left(run):
                say(f"{title}: {left.reason}")
                outcomes.append(left)
            else:
                outcomes.append(_run(begins, run, title, asked, say, last=place + 1 == len(runs)))
    if signal.SIGUSR1 in asked:
        return _after_time_limit(outcomes, say)
    return outcomes


def _left(run: LocalRun) -> Outcome | None:
    """Return the outcome of a run that need not be started."""
    if run.is_done():
        return Outcome(run=run, state="done", reason="is done already")
    status, job = read_status(run.folder), slurm.job_id(os.environ)
    if job is not None and status.job == job and status.state in _SETTLED:
        return Outcome(run=run, state="failed", reason=f"{status.state} before in this job, left")
    return None


def _run(
    begins: Beginner, run: LocalRun, title: str, asked: list[int], say: Callable[[str], None], *, last: bool
) -> Outcome:
    going_on, started_s = read_status(run.folder).num_finished_rounds, time.monotonic()
    say(f"{title}: {f'goes on after round {going_on}' if going_on else 'begins'}")
    (process,) = begins.begin(run.name, run.arguments, run.log, 1, None, last=last)
    code = _wait(process, asked)
    status, length = read_status(run.folder), duration(time.monotonic() - started_s)
    if code == 0:
        say(f"{title}: done in {length}")
        return Outcome(run=run, state="done")
    if asked or status.state == "stopped":
        say(f"{title}: stopped; {status.num_finished_rounds} finished rounds are saved")
        return Outcome(run=run, state="stopped", reason=status.state)
    reason = status.reason or f"exit code {code}"
    say(f"{title}: failed after {length} (exit code {code}): {reason}")
    return Outcome(run=run, state="failed", reason=reason)


def _wait(process: Process, asked: Sequence[int]) -> int:
    """Return a process's exit code; every signal is passed on."""
    num_passed_on = 0
    while (code := process.poll()) is None:
        while num_passed_on < len(asked):
            process.send_signal(asked[num_passed_on])
            num_passed_on += 1
        time.sleep(POLL_S)
    return code


def _after_time_limit(outcomes: list[Outcome], say: Callable[[str], None]) -> list[Outcome]:
    """Put the job back into the queue, if no run has done so and that is of use."""
    early = [place for place, outcome in enumerate(outcomes) if outcome.state in ("stopped", "not begun")]
    if not early or any(outcome.reason == "requeued" for outcome in outcomes):
        return outcomes
    first = outcomes[early[0]]
    # A run that was left as it is has not got anywhere in this job.
    got_somewhere = any(outcome.state in ("done", "failed") and not outcome.reason for outcome in outcomes)
    problem = "nothing was reached before it" if not got_somewhere else None
    if problem is None and not first.run.config.run.requeue:
        problem = "run.requeue=false"
    problem = problem or slurm.requeue(os.environ)
    if problem is None:
        say("time limit: the job is back in the queue and goes on with what is not finished")
        return outcomes
    say(f"time limit: the job is not back in the queue ({problem})")
    return [
        Outcome(run=outcome.run, state="timed_out", reason=problem) if outcome is first else outcome
        for outcome in outcomes
    ]
