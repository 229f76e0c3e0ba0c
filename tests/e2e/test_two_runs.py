"""Processes of two runs that meet at one port refuse, and jobs whose ids end alike do not meet."""

import os
import time
from pathlib import Path

from conftest import SMALL, ForkedRun, Zygote, free_port, merge

from fedlit.commands.endings import USER_ERROR_EXIT_CODE
from fedlit.process.interrupt import LOST_PEER_EXIT_CODE
from fedlit.process.slurm import main_port

HOST = "127.0.0.1"


def task(zygote: Zygote, job: int, rank: int, *arguments: str, port: int | None = None) -> ForkedRun:
    """Start one of the two tasks of a SLURM job, its variables set as srun sets them."""
    environment = {
        "MASTER_ADDR": HOST,
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NAME": "fedlit",
        "SLURM_STEP_ID": "0",
        "SLURM_NNODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        **({} if port is None else {"MASTER_PORT": str(port)}),
    }
    output = zygote.folder / f"job-{job}-{rank}-{time.monotonic_ns()}.txt"
    words = [*merge(SMALL, ("num_rounds=1", *arguments)), f"run.dir={zygote.folder}"]
    request = {"start": words, "environment": environment}
    return ForkedRun([zygote._ask({**request, "output": str(output)})["pid"]], [output], zygote._ask)


def ends(*runs: ForkedRun) -> list[int | None]:
    """Wait for the ends of all processes and return their exit codes."""
    deadline = time.monotonic() + 90
    while None in (codes := [run.exit_codes()[0] for run in runs]):
        assert time.monotonic() < deadline, "\n".join(run.output() for run in runs)
        time.sleep(0.02)
    return codes


def only_line(run: ForkedRun) -> str:
    (line,) = run.output().splitlines()
    return line


def test_tasks_of_two_jobs_at_one_port_refuse_before_anything_is_trained(zygote: Zygote) -> None:
    """As Lightning's port had it: 15000 and the last four digits of both ids."""
    port = free_port()
    first = task(zygote, 1230007, 0, "run.name=plain", port=port)
    second = task(zygote, 1240007, 1, "run.name=other", "local.lr=0.5", port=port)
    assert ends(first, second) == [USER_ERROR_EXIT_CODE] * 2, first.output() + second.output()
    for rank, run in enumerate((first, second)):
        line = only_line(run)
        assert line.startswith(f"error: process {rank} of 2: processes of different runs have met at {HOST}:{port}: ")
        assert "plain (SLURM job 1230007.0, settings " in line
        assert "other (SLURM job 1240007.0, settings " in line
        assert len(line) <= 400
    assert not list(zygote.folder.glob("*/metrics.jsonl"))


def test_equal_commands_of_two_jobs_are_two_runs(zygote: Zygote) -> None:
    port = free_port()
    tasks = [task(zygote, job, rank, "run.name=equal", port=port) for rank, job in enumerate((1230007, 1240007))]
    assert ends(*tasks) == [USER_ERROR_EXIT_CODE] * 2
    assert not (zygote.folder / "equal" / "metrics.jsonl").exists()


def test_jobs_whose_ids_end_alike_do_not_meet(zygote: Zygote) -> None:
    """Each waits at a port of its own, for as long as a start may take."""
    begun_s = time.monotonic()
    first = task(zygote, 1230007, 0, "run.name=plain", "compute.start_timeout_s=2")
    second = task(zygote, 1240007, 1, "run.name=other", "local.lr=0.5", "compute.start_timeout_s=2")
    assert ends(first, second) == [LOST_PEER_EXIT_CODE] * 2, first.output() + second.output()
    assert time.monotonic() - begun_s < 45
    for run in (first, second):
        (line,) = (line for line in run.output().splitlines() if line.startswith("lost: "))
        assert "not all processes of the run were there after 2 s (compute.start_timeout_s)" in line
        assert "Traceback" not in run.output()


def test_the_tasks_of_one_job_meet_at_its_port(zygote: Zygote) -> None:
    ids = (1230000 + os.getpid(), 1230000 + os.getpid() + 10000)
    tasks = [task(zygote, job, rank, f"run.name=run-{job}") for job in ids for rank in (0, 1)]
    assert ends(*tasks) == [0] * 4, "\n".join(run.output() for run in tasks)
    assert len({main_port({"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": "0"}) for job in ids}) == 2
    for job in ids:
        assert Path(zygote.folder / f"run-{job}" / "adapter").is_dir()
