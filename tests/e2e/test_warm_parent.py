"""Runs of a sweep forked from one parent give the bytes of runs with an interpreter of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SMALL, environment, merge
from run_result import run_result

SWEEP = """\
# of two optimizers. More
experiment: demo
axes:
  method: [fedit, fedftg]
"""
QUICK = merge(SMALL, ("num_rounds=2", "num_clients=2", "eval.max_new_tokens=4", "logging.loggers=[]"))


def command(folder: Path, *words: str) -> list[str]:
    (folder / "own.yaml").write_text(SWEEP)
    return [sys.executable, "-m", "fedlit", "sweep", "run", "own.yaml", "--local", *words]


def sweep(folder: Path, *words: str, **variables: str) -> str:
    own = {**environment(), "HF_HUB_OFFLINE": "1", **variables}
    done = subprocess.run(command(folder, *words), cwd=folder, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def exported(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "adapter").iterdir() if path.is_file()}


def same(one: Path, other: Path) -> None:
    assert run_result(one) == run_result(other)
    assert exported(one)
    assert exported(one) == exported(other)


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_warm_runs_have_the_bytes_of_cold_ones(tmp_path: Path, num_processes: int) -> None:
    """Without OMP_NUM_THREADS, as on a user's terminal, so that libraries start the threads they like to."""
    words = [f"--devices={num_processes}", *QUICK]
    warm = sweep(tmp_path, "--jobs=2", *words, "run.dir=warm")
    cold = sweep(tmp_path, "--jobs=2", "--cold", *words, "run.dir=cold")
    assert warm.splitlines()[-2] == cold.splitlines()[-2] == "2 cells: 2 done"
    for method in ("fedit", "fedftg"):
        same(tmp_path / "warm" / f"own-{method}", tmp_path / "cold" / f"own-{method}")
        told = [(tmp_path / name / f"own-{method}.log").read_text().splitlines() for name in ("warm", "cold")]
        shape = [[line.split()[0] for line in lines if line.strip()] for lines in told]
        assert shape[0] == shape[1], "the consoles differ"


@pytest.mark.slow
def test_a_killed_parent_and_a_killed_run_cost_nothing_else(tmp_path: Path) -> None:
    """The run that was forked goes on, the next one starts cold, and one line says so."""
    process = subprocess.Popen(
        command(tmp_path, *merge(QUICK, ("local.steps=20",)), "run.dir=runs"),
        cwd=tmp_path,
        env={**environment(), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "runs" / "own-fedit.log"
    deadline = time.monotonic() + 240
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server, _run = children(process.pid)
    os.kill(server, signal.SIGKILL)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "1/2] own-fedit: done" in said
    assert "the warm parent is of no use (it ended with code -9); further runs start cold" in said
    assert "2/2] own-fedftg: done" in said


def children(pid: int) -> list[int]:
    """Return the children of a process, the oldest first."""
    found = [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return sorted(found, key=lambda child: int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[19]))
