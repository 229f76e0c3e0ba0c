"""How a run stands, from what its folder holds."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fedlit.store.lock import PATH as LOCK_PATH
from fedlit.store.lock import RunLock, take_lock
from fedlit.store.status import PATH, STATES, RunStatus, ended, first_status, read_status, to_json

STEP = "slurmstepd: error: *** STEP 5.0 ON n1 CANCELLED AT 2026-11-21T09:40:00"


DEEP = "[" * 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with the records of the untrained model and of two rounds."""
    path = tmp_path / "run"
    path.mkdir()
    (path / "metrics.jsonl").write_text("".join(f'{{"round": {number}}}\n' for number in range(3)))
    return path


@pytest.fixture
def lock(folder: Path) -> Iterator[RunLock]:
    held = take_lock(folder)
    yield held
    held.release()


def write(folder: Path, status: RunStatus) -> None:
    (folder / PATH).write_text(to_json(status))


def started(folder: Path, log: Path | None = None, job: str | None = None) -> RunStatus:
    """Write the status of a run that has started and return it."""
    environ = {"FEDLIT_JOB_LOG": str(log)} if log else {}
    status = first_status(10, environ | ({"SLURM_JOB_ID": job} if job else {}))
    write(folder, status)
    return status


def test_no_folder_and_an_empty_one_are_pending(tmp_path: Path) -> None:
    assert read_status(tmp_path / "missing") == RunStatus()
    assert read_status(tmp_path) == RunStatus()


def test_a_run_that_holds_its_lock_is_running(folder: Path, lock: RunLock) -> None:
    assert read_status(folder).state == "running"  # before it has written its status
    status = started(folder)
    read = read_status(folder)
    assert (read.state, read.num_finished_rounds, read.num_rounds) == ("running", 2, 10)
    assert read.host == status.host
    write(folder, ended(status, "stopped"))  # of the attempt before
    assert read_status(folder).state == "running"


def test_a_run_whose_lock_nobody_holds_was_killed(folder: Path) -> None:
    started(folder)
    read = read_status(folder)
    assert (read.state, read.reason) == ("killed", "it ended without a word after round 2")
    process = subprocess.Popen(["true"])
    process.wait()
    held = take_lock(folder)
    left = replace(held.holder, pid=process.pid)
    held.release()
    (folder / LOCK_PATH).write_text(json.dumps(asdict(left)))
    assert read_status(folder).state == "killed"


@pytest.mark.parametrize("state", [state for state in STATES if state not in ("pending", "running")])
def test_every_end_is_read_back(folder: Path, state: str) -> None:
    write(folder, ended(started(folder, job="7"), state, "because\nof this"))
    read = read_status(folder)
    assert (read.state, read.reason, read.job) == (state, "because of this", "7")
    assert "num_finished_rounds" not in json.loads((folder / PATH).read_text())


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=5.0. Some of the step tasks have been OOM Killed.", 0),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in step 5.0", 0),
        ("srun: error: n1: task 0: Out Of Memory", 0),
        (f"{STEP} DUE TO TIME LIMIT ***", 1),
        (f"{STEP} ***", 2),
    ],
)
def test_the_jobs_log_tells_why_it_was_killed(folder: Path, tmp_path: Path, line: str, state: int) -> None:
    log = tmp_path / "job.out"
    log.write_text("")
    started(folder, log)
    log.write_text("round 2\n" * 20_000 + line + "\n")
    assert read_status(folder).state == ("out_of_memory", "timed_out", "killed")[state]


def test_what_the_log_says_of_an_earlier_attempt_does_not_count(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "job.out"
    log.write_text(f"{STEP} DUE TO TIME LIMIT ***\n")
    started(folder, log)
    assert read_status(folder).state == "killed"
    with log.open("a") as file:
        file.write(f"{STEP} DUE TO TIME LIMIT ***\n")
    assert read_status(folder).state == "timed_out"


def test_stopped_by_the_sigterm_of_a_time_limit(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "job.out"
    write(folder, ended(started(folder, log), "stopped", "SIGTERM after round 2"))
    assert read_status(folder).state == "stopped"
    log.write_text(f"{STEP} DUE TO TIME LIMIT ***\n")
    read = read_status(folder)
    assert (read.state, read.reason) == ("timed_out", "SIGTERM after round 2")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", DEEP, '{"state": "unheard of"}', '{"state": 1}', "\x00\x00"]
)
def test_a_damaged_status_is_as_good_as_none(folder: Path, content: str) -> None:
    (folder / PATH).write_text(content)
    assert read_status(folder).state == "pending"
    (folder / "config.yaml").touch()
    assert read_status(folder).state == "stopped"
    (folder / "adapter").mkdir()
    read = read_status(folder)
    assert (read.state, read.num_finished_rounds) == ("done", 2)


@pytest.mark.parametrize("name", [PATH, "metrics.jsonl", "lock.json"])
def test_a_folder_in_the_place_of_a_file_is_as_good_as_none(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    assert read_status(tmp_path).state == "pending"


def test_a_log_that_is_no_path_tells_nothing(folder: Path) -> None:
    (folder / PATH).write_text('{"state": "running", "log": "a\\u0000b", "log_start_bytes": true}')
    assert read_status(folder).state == "killed"


def test_entries_of_a_wrong_type_are_left_out(folder: Path) -> None:
    (folder / PATH).write_text('{"state": "failed", "num_rounds": "ten", "reason": null, "job": "7", "new": 1}')
    assert replace(read_status(folder), updated_s=None) == RunStatus(state="failed", job="7", num_finished_rounds=2)


def test_a_torn_line_is_no_finished_round(folder: Path) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"round": 3')
    assert read_status(folder).num_finished_rounds == 2


def test_the_last_change_is_that_of_status_or_record(folder: Path) -> None:
    status = started(folder)
    assert status.updated_s is not None
    os.utime(folder / "metrics.jsonl", (0, 0))
    assert read_status(folder).updated_s == status.updated_s
    os.utime(folder / "metrics.jsonl", (status.updated_s + 100, status.updated_s + 100))
    assert read_status(folder).updated_s == pytest.approx(status.updated_s + 100)


def test_five_hundred_cells_take_no_time(tmp_path: Path) -> None:
    """By this process's own time, which others do not stretch."""
    line = json.dumps({"round": 0, **{f"client/{number}/global/loss": 0.123456789 for number in range(60)}}) + "\n"
    folders = [tmp_path / str(number) for number in range(500)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "metrics.jsonl").write_text(line * 20)
        started(folder, job=str(number))
    begun_s = time.process_time()
    assert {read_status(folder).state for folder in folders} == {"killed"}
    assert time.process_time() - begun_s < 0.5
