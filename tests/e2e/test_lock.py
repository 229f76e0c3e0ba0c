"""Who runs in a folder, how the run stands there, and what a time limit does to it."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from conftest import SMALL, ForkedRun, Zygote, free_port, merge

from fedlit.commands.endings import OUT_OF_MEMORY_EXIT_CODE, TIMED_OUT_EXIT_CODE, USER_ERROR_EXIT_CODE
from fedlit.process.interrupt import STOPPED_EXIT_CODE
from fedlit.store.status import RunStatus, read_status

LONG = ["num_rounds=200", "eval.every=200"]
"""Far more rounds than any of these runs gets to."""


def start(
    zygote: Zygote, name: str, *arguments: str, environment: dict[str, str] | None = None, num_processes: int = 1
) -> ForkedRun:
    """Start a small federation as torchrun would, with some more variables."""
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "TORCHELASTIC_RUN_ID": name,
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "GROUP_RANK": "0",
        **(environment or {}),
    }
    words = [*merge(SMALL, arguments), f"run.dir={zygote.folder}", f"run.name={name}"]
    pids, outputs = [], []
    for rank in range(num_processes):
        outputs.append(zygote.folder / f"{name}-{time.monotonic_ns()}-{rank}.txt")
        own = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        pids.append(zygote._ask({"start": words, "environment": own, "output": str(outputs[-1])})["pid"])
    return ForkedRun(pids, outputs, zygote._ask)


def wait(run: ForkedRun) -> list[int | None]:
    """Wait for the end of a run, whatever it is, and return the exit codes."""
    deadline = time.monotonic() + 120
    while None in (codes := run.exit_codes()):
        assert time.monotonic() < deadline, run.output()
        time.sleep(0.01)
    return codes


def finished(zygote: Zygote, name: str, number: int) -> bool:
    return (zygote.folder / name / "checkpoints" / f"round-{number:04d}").exists()


def status(zygote: Zygote, name: str) -> RunStatus:
    return read_status(zygote.folder / name)


@pytest.fixture
def scontrol(tmp_path: Path) -> Path:
    """An scontrol that notes what it is asked, and what status.json says at that moment; returns its folder."""
    program = tmp_path / "scontrol"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncp $RUN_FOLDER/status.json $RUN_FOLDER/lock.json {tmp_path}\n'
        f"test ! -e {tmp_path}/broken || {{ echo 'Unable to contact slurm controller' >&2; exit 1; }}\n"
    )
    program.chmod(0o755)
    return tmp_path


def job(zygote: Zygote, name: str, scontrol: Path) -> dict[str, str]:
    """Return the environment of an array's element."""
    return {
        "SLURM_JOB_ID": "9",
        "SLURM_ARRAY_JOB_ID": "9",
        "SLURM_ARRAY_TASK_ID": "4",
        "RUN_FOLDER": str(zygote.folder / name),
        "PATH": f"{scontrol}:{os.environ['PATH']}",
    }


@pytest.mark.parametrize("num_processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_second_run_refuses_and_the_first_goes_on(zygote: Zygote, num_processes: int) -> None:
    name = f"held-{num_processes}"
    first = start(zygote, name, *LONG)
    first.wait_until(lambda: finished(zygote, name, 1))
    second = start(zygote, name, *LONG, num_processes=num_processes)
    assert wait(second) == [USER_ERROR_EXIT_CODE] * num_processes
    (line,) = second.output().strip().splitlines()
    assert line.startswith(f"error: {zygote.folder / name} is in use by another run (host ")
    assert f"process {first.pids[0]}" in line
    assert status(zygote, name).state == "running"
    assert first.exit_codes() == [None]
    first.kill()
    read = status(zygote, name)
    assert (read.state, read.num_rounds) == ("killed", 200)
    assert read.num_finished_rounds >= 1


def test_a_time_limit_puts_the_job_back_and_it_goes_on(zygote: Zygote, scontrol: Path) -> None:
    """One process of two hears of the limit; SIGTERM follows while they end, as a requeue makes it."""
    name = "requeued"
    environment = job(zygote, name, scontrol)
    run = start(zygote, name, *LONG, environment=environment, num_processes=2)
    run.wait_until(lambda: finished(zygote, name, 1))
    os.kill(run.pids[1], signal.SIGUSR1)
    run.wait_until((scontrol / "asked").exists)
    for pid in run.pids:
        os.kill(pid, signal.SIGTERM)
    assert wait(run) == [STOPPED_EXIT_CODE] * 2, run.output()
    read = status(zygote, name)
    assert (read.state, read.job) == ("requeued", "9_4")
    assert (scontrol / "asked").read_text().splitlines()[-1] == "requeue 9_4"
    # Before the request, which ends the job, all is told, and nobody else can begin.
    assert json.loads((scontrol / "status.json").read_text())["state"] == "requeued"
    assert json.loads((scontrol / "lock.json").read_text())["job"] == "9_4"
    assert not (zygote.folder / name / "lock.json").exists()
    out = run.output()
    assert "stopped: SIGUSR1 after round" in out
    assert "job 9_4 is back in the queue" in out
    assert "Traceback" not in out
    run = start(zygote, name, *LONG, environment=environment | {"SLURM_RESTART_COUNT": "1"})
    run.wait_until(lambda: finished(zygote, name, read.num_finished_rounds + 1))
    assert status(zygote, name).state == "running"
    run.kill()
    notes = [line for line in run.output().splitlines() if "resumed" in line]
    assert [line.split(maxsplit=1)[1] for line in notes] == [f"resumed after round {read.num_finished_rounds} of 200"]


@pytest.mark.parametrize("case", [pytest.param("run.requeue=false", marks=pytest.mark.slow), "run.requeue=true"])
def test_a_job_that_is_not_put_back_says_so(zygote: Zygote, scontrol: Path, case: str) -> None:
    name = f"limited-{case}"
    (scontrol / "broken").touch()
    run = start(zygote, name, *LONG, case, environment=job(zygote, name, scontrol))
    run.wait_until(lambda: finished(zygote, name, 1))
    os.kill(run.pids[0], signal.SIGUSR1)
    assert wait(run) == [STOPPED_EXIT_CODE]
    read = status(zygote, name)
    assert read.state == "timed_out"
    assert read.num_finished_rounds >= 1
    told = "Unable to contact slurm controller), submit it again" if case.endswith("true") else "submit job 9_4 again"
    assert told in read.reason
    assert told in run.output()
    assert (scontrol / "asked").exists() == case.endswith("true")


def test_a_job_that_cannot_finish_a_round_is_not_put_back(zygote: Zygote, scontrol: Path) -> None:
    name = "too-short"
    run = start(zygote, name, "local.steps=100000", environment=job(zygote, name, scontrol))
    run.wait_until(lambda: finished(zygote, name, 0))
    os.kill(run.pids[0], signal.SIGUSR1)
    assert wait(run) == [TIMED_OUT_EXIT_CODE]
    read = status(zygote, name)
    assert (read.state, read.num_finished_rounds) == ("timed_out", 0)
    assert "timed out: not one round was finished in the" in run.output()
    assert not (scontrol / "asked").exists()


def test_a_signal_in_an_evaluation_cuts_it_short(zygote: Zygote) -> None:
    """The first evaluation would take minutes; half of it is left out, and nothing of it is recorded."""
    slow = ["eval.max_examples=null", "eval.batch_size=1", "eval.max_new_tokens=150", "partition.min_test_rows=300"]
    name = "evaluating"
    run = start(zygote, name, *slow, num_processes=2)
    run.wait_until((zygote.folder / name / "partition.json").exists)
    time.sleep(1.0)
    for pid in run.pids:
        os.kill(pid, signal.SIGTERM)
    assert wait(run) == [STOPPED_EXIT_CODE] * 2
    assert "SIGTERM before the first round's end" in run.output()
    assert not (zygote.folder / name / "metrics.jsonl").exists()
    assert status(zygote, name).state == "stopped"


def test_diverged_and_done_are_told(zygote: Zygote) -> None:
    assert wait(start(zygote, "wild", "local.lr=1e38")) == [3]
    read = status(zygote, "wild")
    assert read.state == "diverged"
    assert read.reason.startswith("round 1, client ")
    assert wait(start(zygote, "whole", "num_rounds=1")) == [0]
    assert (status(zygote, "whole").state, status(zygote, "whole").num_finished_rounds) == ("done", 1)


def test_out_of_memory_is_one_line_with_a_remedy(zygote: Zygote) -> None:
    """A factor of more bytes than a process can address."""
    run = start(zygote, "too-large", "method.lora_rank=2147483647")
    assert wait(run) == [OUT_OF_MEMORY_EXIT_CODE], run.output()
    assert "out of memory: process 0: " in run.output()
    assert "lower local.batch_size" in run.output()
    assert "Traceback" not in run.output()
    assert status(zygote, "too-large").state == "out_of_memory"


def test_a_mistake_that_the_first_process_finds_ends_all(zygote: Zygote) -> None:
    """Only process 0 starts W&B, here online without a login; nobody waits for it or misses it."""
    nowhere = {"WANDB_API_KEY": "", "NETRC": "/nonexistent", "HOME": str(zygote.folder)}
    run = start(zygote, "online", "logging.wandb=online", environment=nowhere, num_processes=2)
    assert wait(run) == [USER_ERROR_EXIT_CODE] * 2, run.output()
    assert run.output().count("error: W&B cannot start") == 1, run.output()
    assert "Traceback" not in run.output()
    assert status(zygote, "online").state == "failed"


def test_a_process_that_loses_another_says_so(zygote: Zygote) -> None:
    run = start(zygote, "lost", *LONG, num_processes=2)
    run.wait_until(lambda: finished(zygote, "lost", 1))
    os.kill(run.pids[1], signal.SIGKILL)
    assert wait(run)[1] == -signal.SIGKILL
    assert status(zygote, "lost").state == "failed"
    assert status(zygote, "lost").reason.startswith("another process of the run is gone")
