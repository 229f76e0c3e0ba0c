"""Cells one after the other in one job, with a small module in the place of a federation and of SLURM."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedlit.config import load_config, to_yaml
from fedlit.errors import UserError
from fedlit.lab.sweeps import starting
from fedlit.lab.sweeps.in_job import require_one_task, run_in_job
from fedlit.lab.sweeps.local import LocalRun

REPOSITORY = Path(__file__).parents[4]
STUB = """
import json, os, signal, sys, time
from pathlib import Path

words = dict(word.split("=", 1) for word in sys.argv[1:])
folder = Path(words["folder"])
folder.mkdir(parents=True, exist_ok=True)
signals = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: signals.append(number))
starts = folder / "starts"
starts.write_text(starts.read_text() + "+" if starts.exists() else "+")

def end(state, code, reason=""):
    status = {"state": state, "num_rounds": 1, "job": "7_1", "reason": reason}
    folder.joinpath("status.json").write_text(json.dumps(status))
    sys.exit(code)

print("run", folder.name, os.environ.get("SLURM_JOB_ID"), os.environ.get("FEDLIT_JOB_LOG"), flush=True)
folder.joinpath("here").touch()
if words["do"] == "fail":
    end("diverged", 3, "a loss is not finite")
if words["do"] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if words["do"] in ("wait", "saves"):
    while not signals:
        time.sleep(0.01)
    folder.joinpath("signals").write_text(json.dumps(signals))
    if words["do"] == "saves":
        os.system("scontrol requeue 7_1")
        end("requeued", 75)
    end("timed_out", 5) if signals == [signal.SIGUSR1] else end("stopped", 75)
folder.joinpath("config.yaml").write_text(folder.with_suffix(".yaml").read_text())
end("done", 0)
"""


@pytest.fixture(autouse=True, params=["cold", "warm"])
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{REPOSITORY}")
    monkeypatch.setattr(starting, "COMMAND", ("stub",))
    monkeypatch.setattr(starting, "modules_of", lambda _configs: ())
    monkeypatch.setenv("FEDLIT_WARM", str(int(request.param == "warm")))
    environment = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_NTASKS": "1"}
    for name, text in {**environment, "FEDLIT_JOB_LOG": "job.log"}.items():
        monkeypatch.setenv(name, text)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., LocalRun]:
    def make_run(name: str, do: str = "end", *settings: str) -> LocalRun:
        folder = tmp_path / "runs" / name
        folder.parent.mkdir(exist_ok=True)
        config = load_config(list(settings))
        folder.with_suffix(".yaml").write_text(to_yaml(config))
        return LocalRun(name=name, arguments=(f"folder={folder}", f"do={do}"), config=config, folder=folder)

    return make_run


@pytest.fixture
def later() -> Iterator[Callable[[Path, int], None]]:
    """Send this process a signal once a file is there."""
    threads = []

    def send(path: Path, number: int) -> None:
        def wait() -> None:
            while not path.exists():
                time.sleep(0.01)
            os.kill(os.getpid(), number)

        threads.append(threading.Thread(target=wait, daemon=True))
        threads[-1].start()

    yield send
    for thread in threads:
        thread.join(10)


def states(runs: list[LocalRun], said: list[str]) -> list[str]:
    return [outcome.state for outcome in run_in_job(runs, said.append)]


def requests(tmp_path: Path) -> list[str]:
    path = tmp_path / "asked"
    return path.read_text().splitlines() if path.exists() else []


def test_a_failure_does_not_keep_the_next_from_beginning(
    make: Callable[..., LocalRun], capfd: pytest.CaptureFixture[str]
) -> None:
    """Each writes to the job's console and sees the job."""
    runs, said = [make("a"), make("b", "fail"), make("c", "kill"), make("d")], list[str]()
    assert states(runs, said) == ["done", "failed", "failed", "done"]
    assert capfd.readouterr().out.splitlines() == [f"run {name} 9 job.log" for name in "abcd"]
    assert "[2/4] b: failed after 0 s (exit code 3): a loss is not finite" in said
    assert "[3/4] c: failed after 0 s (exit code -9): exit code -9" in said
    assert not runs[0].log.exists()


def test_a_job_that_is_back_goes_on_with_what_is_not_finished(make: Callable[..., LocalRun]) -> None:
    """Not with what would only fail again; what was killed may have been unlucky."""
    runs, said = [make("a"), make("b", "fail"), make("c", "kill"), make("d")], list[str]()
    states(runs, said)
    said.clear()
    assert states(runs, said) == ["done", "failed", "failed", "done"]
    assert [(run.folder / "starts").read_text() for run in runs] == ["+", "+", "++", "+"]
    assert "[2/4] b: diverged before in this job, left" in said


def test_another_job_tries_what_failed(make: Callable[..., LocalRun], monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make("b", "fail"), make("c")]
    states(runs, [])
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "8")
    assert states(runs, []) == ["failed", "done"]
    assert [(run.folder / "starts").read_text() for run in runs] == ["++", "+"]


def test_the_time_limit_is_the_affair_of_the_cell_at_work(
    make: Callable[..., LocalRun], later: Callable[..., None], tmp_path: Path
) -> None:
    runs = [make("a"), make("b", "saves"), make("c")]
    later(runs[1].folder / "here", signal.SIGUSR1)
    assert states(runs, []) == ["done", "stopped", "not begun"]
    assert json.loads((runs[1].folder / "signals").read_text()) == [signal.SIGUSR1]
    assert requests(tmp_path) == ["requeue 7_1"]
    assert not runs[2].folder.exists()


def test_a_cell_without_a_round_is_put_back_if_another_has_got_somewhere(
    make: Callable[..., LocalRun], later: Callable[..., None], tmp_path: Path
) -> None:
    runs, said = [make("a"), make("b", "wait"), make("c")], list[str]()
    later(runs[1].folder / "here", signal.SIGUSR1)
    assert states(runs, said) == ["done", "stopped", "not begun"]
    assert requests(tmp_path) == ["requeue 7_1"]
    assert said[-1].startswith("time limit: the job is back in the queue")
    (runs[1].folder / "here").unlink()
    later(runs[1].folder / "here", signal.SIGUSR1)  # a whole job's time for less than a round of b
    assert states(runs, said) == ["done", "timed_out", "not begun"]
    assert requests(tmp_path) == ["requeue 7_1"]
    assert said[-1] == "time limit: the job is not back in the queue (nothing was reached before it)"


def test_requeueing_can_be_left_to_the_user(
    make: Callable[..., LocalRun], later: Callable[..., None], tmp_path: Path
) -> None:
    runs, said = [make("a"), make("b", "wait", "run.requeue=false")], list[str]()
    later(runs[1].folder / "here", signal.SIGUSR1)
    assert states(runs, said) == ["done", "timed_out"]
    assert requests(tmp_path) == []
    assert said[-1].endswith("(run.requeue=false)")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all(make: Callable[..., LocalRun], later: Callable[..., None], number: int) -> None:
    runs, handler = [make("a", "wait"), make("b")], signal.getsignal(number)
    later(runs[0].folder / "here", number)
    assert states(runs, []) == ["stopped", "not begun"]
    assert json.loads((runs[0].folder / "signals").read_text()) == [number]
    assert signal.getsignal(number) == handler


def test_several_processes_are_refused() -> None:
    require_one_task(2, {})
    require_one_task(2, {"SLURM_NTASKS": "1", "WORLD_SIZE": "one"})
    for environment in ({"SLURM_NTASKS": "2"}, {"WORLD_SIZE": "2"}):
        with pytest.raises(UserError, match=r"--cells-per-task=3 .* this job has 2; give --ntasks-per-node=1"):
            require_one_task(3, environment)
