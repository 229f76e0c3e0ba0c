"""What SLURM says of this process and of its jobs: the environment of a job, `squeue` and `scontrol`.

Sources: the manual pages of sbatch, srun, squeue and scontrol (22.05 to 24.11), and
lightning/fabric/plugins/environments/slurm.py for when Fabric takes its processes from SLURM.
"""

import signal
import subprocess
from collections.abc import Mapping

_ANSWER_S = 30
"""Longest wait for the controller."""

_INTERACTIVE_NAMES = ("bash", "interactive")
"""Names of jobs in which Fabric makes its own processes."""


def job_id(environ: Mapping[str, str]) -> str | None:
    """Return the id of this process's job, `7_2` for an element of an array, None outside SLURM.

    The last element of an array has the array's own number as SLURM_JOB_ID: that number would mean the whole array.
    """
    if "SLURM_ARRAY_JOB_ID" in environ and "SLURM_ARRAY_TASK_ID" in environ:
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ.get("SLURM_JOB_ID")


def restart_count(environ: Mapping[str, str]) -> int:
    """Return how often this process's job was put back into the queue."""
    return _number(environ, "SLURM_RESTART_COUNT", 0)


def makes_processes(environ: Mapping[str, str]) -> bool:
    """Tell whether a run takes its processes from SLURM, by Fabric's own rule; torchrun and `fabric run` go first."""
    return (
        "TORCHELASTIC_RUN_ID" not in environ
        and "SLURM_NTASKS" in environ
        and environ.get("SLURM_JOB_NAME") not in _INTERACTIVE_NAMES
    )


def is_srun_task(environ: Mapping[str, str]) -> bool:
    """Tell whether srun started this process; the shell of a batch script belongs to no step."""
    return "SLURM_STEP_ID" in environ


def num_tasks(environ: Mapping[str, str]) -> int:
    """Return the number of tasks that srun starts."""
    return _number(environ, "SLURM_NTASKS", 1)


def task_shape(environ: Mapping[str, str]) -> tuple[int, int]:
    """Return (tasks on a node, nodes)."""
    return _number(environ, "SLURM_NTASKS_PER_NODE", 1), _number(environ, "SLURM_NNODES", 1)


def step(environ: Mapping[str, str]) -> str | None:
    """Return the step of this process's job, `1230007.0`, which its tasks alone share; None outside SLURM."""
    job = job_id(environ)
    return None if job is None else f"{job}.{environ.get('SLURM_STEP_ID', 'batch')}"


def main_port(environ: Mapping[str, str]) -> int:
    """Return the port at which the tasks of a step meet, from 12000 to 32010: above the well-known ports, below those
    that Linux gives to outgoing connections.

    Lightning takes the last four digits of the job's id, which jobs 1230007 and 1240007 share. Here jobs of one cluster
    share a port if their ids differ by a multiple of 20011, a prime. Each element of an array has an id of its own in
    SLURM_JOB_ID, so its number in the array needs no place.
    """
    return 12_000 + (_number(environ, "SLURM_JOB_ID", 0) + 7_919 * _number(environ, "SLURM_STEP_ID", 0)) % 20_011


def requeue(environ: Mapping[str, str]) -> str | None:
    """Put this process's job back into the queue; return what went wrong in one line, None if nothing did.

    SLURM then sends SIGTERM to every task of the job.
    """
    job = job_id(environ)
    if job is None:
        return "no SLURM job"
    try:
        done = _ask("scontrol", "requeue", job)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"scontrol requeue {job}: {error}"
    # Its own request may end scontrol, which is a process of the job, before it has read the answer.
    if done.returncode in (0, -signal.SIGTERM):
        return None
    return f"scontrol requeue {job}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}"


def is_alive(job: str) -> bool | None:
    """Tell whether a job has processes; None where squeue is missing or does not answer."""
    try:
        done = _ask("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%T")
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return False if "Invalid job id" in done.stderr else None
    return any(state != "PENDING" for state in done.stdout.split())


def jobs_in_queue() -> dict[str, str] | None:
    """Return the state of each of this user's jobs by id, `7_2` for an element of an array; None as `is_alive`."""
    try:
        done = _ask("squeue", "--noheader", "--array", "--me", "--format=%i %T")
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return {words[0]: words[1] for words in map(str.split, done.stdout.splitlines()) if len(words) == 2}


def _ask(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=_ANSWER_S)


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "")
    return int(text) if text.isdecimal() else default
