"""What `sweep cancel` ends: this sweep's elements and runs of this machine, by their records and their locks alone."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fedlit.commands.sweep import main
from fedlit.config import Sweep, load_sweep
from fedlit.errors import UserError
from fedlit.lab.sweeps.cancelling import Cancelled, Running, elements, running, stop, write_down
from fedlit.lab.sweeps.cells import cell_runs
from fedlit.lab.sweeps.records import Submission
from fedlit.store.lock import this_process

OWN = "experiment: demo\naxes:\n  method: [fedit, ffa_lora]\n  seed: [0, 1]\n"
NAMES = ("own-fedit-seed0", "own-fedit-seed1", "own-ffa_lora-seed0", "own-ffa_lora-seed1")
SUBMITTED = Submission(job="7", submitted_s=0.0, indices=(0, 1, 2, 3), cells=NAMES, overrides=())

SLEEPER = """
import json, os, signal, sys, time
from pathlib import Path
from fedlit.store.lock import take_lock
caught = []
signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
folder = Path(sys.argv[1])
folder.mkdir(parents=True)
lock = take_lock(folder, environ=json.loads(sys.argv[2]))
(folder / "ready").touch()
while not caught:
    time.sleep(0.02)
lock.release()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(OWN)
    return load_sweep("own.yaml")


@pytest.fixture
def sleeper() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return a function that starts a process which holds a run folder's lock until it gets SIGTERM."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(folder: Path, **environ: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", SLEEPER, str(folder), json.dumps(environ)])
        begun.append(process)
        until = time.monotonic() + 20
        while not (folder / "ready").exists() and time.monotonic() < until:
            time.sleep(0.02)
        assert (folder / "ready").exists()
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts an squeue with these lines, and an scancel that writes its words down, into PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(queue: str) -> None:
        for name, text in {"squeue": f"printf '{queue}'", "scancel": 'echo "$@" >> scancelled'}.items():
            (folder / name).write_text(f"#!/bin/bash\n{text}\n")
            (folder / name).chmod(0o755)

    return install


def submit(*submissions: Submission) -> None:
    Path("runs/own").mkdir(parents=True, exist_ok=True)
    Path("runs/own/submissions.jsonl").write_text("".join(json.dumps(asdict(each)) + "\n" for each in submissions))


def scancelled() -> list[str]:
    return Path("scancelled").read_text().split() if Path("scancelled").exists() else []


def test_only_elements_of_this_sweeps_submissions_are_cancelled(own: Sweep, slurm: Callable[[str], None]) -> None:
    submit(SUBMITTED)
    slurm("7_0 RUNNING\\n7_3 PENDING\\n8_1 RUNNING\\n7 PENDING\\n9_0 PENDING\\n")
    assert main(["cancel", "own.yaml", "--yes"]) == 0
    assert scancelled() == ["7_0", "7_3"]


@pytest.mark.parametrize("words", [["0"], ["own-fedit-seed0"], ["method=fedit"]])
def test_cells_are_picked(own: Sweep, slurm: Callable[[str], None], words: list[str]) -> None:
    submit(SUBMITTED)
    slurm("7_0 RUNNING\\n7_3 PENDING\\n")
    assert main(["cancel", "own.yaml", *words, "--yes"]) == 0
    assert scancelled() == ["7_0"]


def test_cells_that_the_sweep_has_no_more_are_cancelled_with_the_whole_of_it(
    own: Sweep, slurm: Callable[[str], None]
) -> None:
    submit(replace(SUBMITTED, cells=("own-gone-seed0", *NAMES[1:])))
    slurm("7_0 PENDING\\n7_1 PENDING\\n")
    assert main(["cancel", "own.yaml", "0-3", "--yes"]) == 0
    assert scancelled() == ["7_1"]
    assert main(["cancel", "own.yaml", "--yes"]) == 0
    assert scancelled() == ["7_1", "7_1", "7_0"] or scancelled() == ["7_1", "7_0", "7_1"]


def test_an_element_with_other_cells_is_refused(own: Sweep) -> None:
    runs = cell_runs(own)
    shared = replace(SUBMITTED, cells_per_task=2)
    with pytest.raises(UserError, match="job 7_0 runs 2 cells, own-fedit-seed1 among them, which is not named"):
        elements(runs[:1], [shared], {"7_0": "PENDING"}, whole=False)
    (both,) = elements(runs[:2], [shared], {"7_0": "PENDING"}, whole=False)
    assert both.cells == NAMES[:2]


def test_a_run_of_this_machine_gets_one_sigterm_and_no_other_process_does(
    own: Sweep, sleeper: Callable[..., subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, other = sleeper(Path("runs/own") / NAMES[1]), sleeper(Path("runs/own") / NAMES[2])
    assert main(["cancel", "own.yaml", "1", "--yes"]) == 0
    assert wanted.wait(20) == 0
    assert other.poll() is None
    assert "1 run of this machine going to stop; finished rounds are saved" in capsys.readouterr().out
    assert main(["cancel", "own.yaml", "1", "--yes"]) == 0
    assert other.poll() is None


def test_a_lock_of_another_host_or_job_is_told_and_left(
    own: Sweep, sleeper: Callable[..., subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    in_job = sleeper(Path("runs/own") / NAMES[0], SLURM_JOB_ID="12")
    elsewhere = Path("runs/own") / NAMES[1]
    elsewhere.mkdir()
    held = replace(this_process({}), host="node9", machine="another")
    (elsewhere / "lock.json").write_text(json.dumps(asdict(held)))
    assert main(["cancel", "own.yaml", "--yes"]) == 1
    told = capsys.readouterr().out
    assert "is in job 12, which this sweep did not submit; use scancel 12" in told
    assert "is at work on host node9; cancel it there" in told
    assert in_job.poll() is None


def test_a_lock_whose_process_is_gone_or_another_is_nobodys(own: Sweep) -> None:
    """The number of a dead run's process may be another's by now."""
    folder = Path("runs/own") / NAMES[0]
    folder.mkdir(parents=True)
    bystander = subprocess.Popen(["sleep", "30"])
    try:
        held = replace(this_process({}), pid=bystander.pid)  # with this process's own beginning
        (folder / "lock.json").write_text(json.dumps(asdict(held)))
        assert running(cell_runs(own), None, []) == []
        assert not stop(Running(folder=folder, holder=held, out_of_reach=""))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_without_a_terminal_it_needs_a_yes(
    own: Sweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, slurm: Callable[[str], None]
) -> None:
    submit(SUBMITTED)
    slurm("7_0 RUNNING\\n")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(["cancel", "own.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "give --yes" in error
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "no")
    assert main(["cancel", "own.yaml"]) == 1
    assert scancelled() == [] and not Path("runs/own/cancelled.jsonl").exists()
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    assert main(["cancel", "own.yaml"]) == 0
    assert scancelled() == ["7_0"]


def test_nothing_to_cancel_says_so(own: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", "own.yaml", "--yes"]) == 0
    assert "nothing to cancel" in capsys.readouterr().out
    assert not Path("runs").exists()


def test_what_was_cancelled_before_is_wanted_again(own: Sweep) -> None:
    folder = Path("runs/own")
    folder.mkdir(parents=True)
    write_down(folder, {"a"})
    time.sleep(0.02)
    cancelled = Cancelled(folder)
    assert not cancelled("a")
    time.sleep(0.02)
    write_down(folder, {"b"})
    with (folder / "cancelled.jsonl").open("a") as file:
        file.write("no line of ours\n{}\n")
    assert cancelled("b") and not cancelled("a")
    write_down(folder, None)
    assert cancelled("a")
