"""Runs side by side on this machine, with a small script in the place of a federation."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedlit.config import load_config, to_yaml
from fedlit.errors import UserError
from fedlit.lab.sweeps import local, starting
from fedlit.lab.sweeps.local import LocalRun, Outcome, device_masks, run_locally, visible_gpus
from fedlit.store.status import JOB_LOG_VARIABLE, read_status

REPOSITORY = Path(__file__).parents[4]
# What a run does, as far as the runner sees it: a line per process, then its arguments say how it goes on.
STUB = """
import os, signal, sys, time
from pathlib import Path

words = dict(word.split("=", 1) for word in sys.argv[1:])
folder = Path(words["folder"])
folder.mkdir(parents=True, exist_ok=True)
signals = []
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda number, frame: signals.append(number))
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "SLURM_NTASKS", "FEDLIT_JOB_LOG")
rank = os.environ.get("RANK", "0")
folder.joinpath(f"rank{rank}").write_text("\\n".join(os.environ.get(name, "") for name in names))
print("process", rank, flush=True)
if words["do"] == "fail" and rank == words.get("who", rank):
    print("error: this cannot be\\nand more", flush=True)
    sys.exit(2)
if words["do"] in ("wait", "fail"):
    while not signals:
        time.sleep(0.01)
    time.sleep(0.5)  # a second signal would come now
    folder.joinpath(f"stopped{rank}").write_text(str(len(signals)))
    sys.exit(75)
if words["do"] == "meet":
    folder.joinpath("here").touch()
    while len(list(folder.parent.glob("*/here"))) < 2:
        time.sleep(0.01)
folder.joinpath("status.json").write_text('{"state": "done", "num_rounds": 1}')
folder.joinpath("config.yaml").write_text(folder.with_suffix(".yaml").read_text())
"""


@pytest.fixture(autouse=True, params=["cold", "warm"])
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{REPOSITORY}")
    monkeypatch.setattr(starting, "COMMAND", ("stub",))
    monkeypatch.setattr(starting, "modules_of", lambda _configs: ())
    monkeypatch.setenv("FEDLIT_WARM", str(int(request.param == "warm")))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., LocalRun]:
    def make_run(name: str, do: str = "end", who: str = "0", *settings: str) -> LocalRun:
        folder = tmp_path / "runs" / name
        folder.parent.mkdir(exist_ok=True)
        config = load_config(list(settings))
        folder.with_suffix(".yaml").write_text(to_yaml(config))
        return LocalRun(
            name=name, arguments=(f"folder={folder}", f"do={do}", f"who={who}"), config=config, folder=folder
        )

    return make_run


@pytest.fixture
def said() -> list[str]:
    return []


def run(
    runs: list[LocalRun], said: list[str], jobs: int = 1, devices: int = 1, gpus: list[str] | None = None
) -> list[str]:
    return states(run_locally(runs, device_masks(jobs, devices, gpus or []), devices, said.append))


def states(outcomes: list[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def environment(run: LocalRun, rank: int = 0) -> list[str]:
    return (run.folder / f"rank{rank}").read_text().split("\n")


def test_runs_end_in_order_and_done_ones_are_left_alone(make: Callable[..., LocalRun], said: list[str]) -> None:
    runs = [make("a"), make("b")]
    assert run(runs, said) == ["done", "done"]
    assert [line.split("] ")[1] for line in said[::2]] == ["a: begins", "b: begins"]
    (runs[0].folder / "rank0").unlink()
    said.clear()
    assert run(runs, said) == ["done", "done"]
    assert said == ["[1/2] a: is done already", "[2/2] b: is done already"]
    assert not (runs[0].folder / "rank0").exists()
    assert run([make("a", "end", "0", "num_rounds=9")], said) == ["done"]
    assert (runs[0].folder / "rank0").exists(), "a run with other settings was taken for this one"


def test_a_failure_tells_its_reason_and_does_not_hold_up_the_others(
    make: Callable[..., LocalRun], said: list[str]
) -> None:
    runs = [make("a", "fail"), make("b")]
    assert run(runs, said) == ["failed", "done"]
    assert said[1].endswith(f"(exit code 2): error: this cannot be; see {runs[0].log}")
    assert runs[0].log.read_text() == "process 0\nerror: this cannot be\nand more\n"
    run([make("a")], said)
    assert runs[0].log.read_text().endswith("and more\nprocess 0\n"), "the console of the first attempt is gone"


def test_runs_side_by_side(make: Callable[..., LocalRun], said: list[str]) -> None:
    """Each waits for the other to be there."""
    runs = [make("a", "meet"), make("b", "meet")]
    assert run(runs, said, jobs=2, gpus=["4", "5"]) == ["done", "done"]
    assert [environment(each)[4] for each in runs] == ["4", "5"]


def test_processes_of_a_run_share_a_port_that_no_other_run_has(
    make: Callable[..., LocalRun], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    runs = [make("a", "meet"), make("b", "meet"), make("c")]
    assert run(runs, said, jobs=2, devices=2) == ["done"] * 3
    seen = [[environment(each, rank) for rank in (0, 1)] for each in runs]
    assert [[one[:3] for one in each] for each in seen] == [[["0", "2", "0"], ["1", "2", "1"]]] * 3
    assert all(each[0][3] == each[1][3] for each in seen)
    assert len({each[0][3] for each in seen}) == 3
    assert {one[5] for each in seen for one in each} == {""}, "the launcher's own variables reached a run"
    assert {one[4] for each in seen for one in each} == {""}
    assert seen[0][0][6] == str(runs[0].log)
    alone = make("d")
    run([alone], said)
    assert environment(alone)[:4] == [""] * 4


def test_a_process_that_fails_ends_the_others_of_its_run(
    make: Callable[..., LocalRun], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "GRACE_S", 0.2)
    assert run([make("a", "fail", "1"), make("b")], said, devices=2) == ["failed", "done"]
    assert not list(make("a").folder.glob("stopped*"))


@pytest.fixture
def later() -> Iterator[Callable[[Callable[[], bool], int], None]]:
    """Send this process a signal once something is true."""
    threads = []

    def send(condition: Callable[[], bool], number: int) -> None:
        def wait() -> None:
            while not condition():
                time.sleep(0.01)
            os.kill(os.getpid(), number)

        threads.append(threading.Thread(target=wait, daemon=True))
        threads[-1].start()

    yield send
    for thread in threads:
        thread.join(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_stops_all_runs_once(
    make: Callable[..., LocalRun], said: list[str], later: Callable[..., None], number: int
) -> None:
    runs = [make("a", "wait"), make("b", "wait"), make("c")]
    handler = signal.getsignal(number)
    later(lambda: all((each.folder / f"rank{rank}").exists() for each in runs[:2] for rank in (0, 1)), number)
    assert run(runs, said, jobs=2, devices=2) == ["stopped", "stopped", "not begun"]
    assert [(each.folder / f"stopped{rank}").read_text() for each in runs[:2] for rank in (0, 1)] == ["1"] * 4
    assert not runs[2].folder.exists()
    assert "2 runs are going to stop at their next step" in "\n".join(said)
    assert signal.getsignal(number) == handler


def test_a_third_signal_kills(
    make: Callable[..., LocalRun], said: list[str], later: Callable[..., None], tmp_path: Path
) -> None:
    """The second one is passed on; a run that heeds neither is killed with the third."""
    (tmp_path / "stub.py").write_text(STUB.replace("while not signals:", "while True:"))
    runs = [make("a", "wait"), make("b")]
    later((runs[0].folder / "rank0").exists, signal.SIGINT)
    later(lambda: len(said) == 2, signal.SIGINT)
    later(lambda: len(said) == 3, signal.SIGINT)
    assert run(runs, said) == ["stopped", "not begun"]
    assert [line.split(";")[0] for line in said[2:4]] == ["interrupted at once", "killed"]


def test_a_killed_run_harms_no_other(make: Callable[..., LocalRun], said: list[str], tmp_path: Path) -> None:
    for number in (signal.SIGKILL, signal.SIGSEGV):
        (tmp_path / "stub.py").write_text(STUB.replace("sys.exit(2)", f"os.kill(os.getpid(), {int(number)})"))
        name = number.name.lower()
        assert run([make(name, "fail"), make(f"{name}-b", "meet"), make(f"{name}-c", "meet")], said, jobs=3) == [
            "failed",
            "done",
            "done",
        ]
        assert any(f"(exit code {-number}): error: this cannot be" in line for line in said)


def test_a_run_that_somebody_else_is_at_is_left_to_him(
    make: Callable[..., LocalRun], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make("a")
    other.folder.mkdir()

    def status(folder: Path) -> object:
        found = read_status(folder)
        return type(found)(state="running", host="elsewhere") if folder == other.folder else found

    monkeypatch.setattr(local, "read_status", status)
    assert run([other, make("b")], said) == ["running", "done"]
    assert "running elsewhere (host elsewhere)" in said[0]
    assert not (other.folder / "rank0").exists()


def test_gpus_are_dealt_to_the_runs() -> None:
    assert device_masks(2, 2, ["0", "1", "2", "3", "4"]) == ["0,1", "2,3"]
    assert device_masks(3, 1, []) == [None] * 3
    with pytest.raises(UserError, match=r"--jobs=3 with --devices=2 takes more than 5 GPUs; give --jobs=2"):
        device_masks(3, 2, list("01234"))
    with pytest.raises(UserError, match=r"give --devices=1"):
        device_masks(1, 2, ["0"])


def test_gpus_are_counted_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/bash\nprintf 'GPU 0: A (UUID: x)\\n  MIG 1g\\nGPU 1: A (UUID: y)\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert visible_gpus({}) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, GPU-7"}) == ["3", "GPU-7"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == []
    monkeypatch.setenv("PATH", "/nowhere")
    assert visible_gpus({}) == []
    heavy = "('torch', 'lightning')"
    code = f"import sys, fedlit.lab.sweeps.local; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_console_is_where_a_status_looks_for_it() -> None:
    assert JOB_LOG_VARIABLE == "FEDLIT_JOB_LOG"


def test_a_lost_process_is_not_the_reason_of_another_s_failure(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("ValueError: a bug\nlost: process 0 of 2: another process of the run is gone\n")
    assert local._last_error(log, 0) == "ValueError: a bug"
    log.write_text("lost: process 0 of 2: another process of the run is gone\n")
    assert local._last_error(log, 0).startswith("lost: process 0 of 2")


def test_a_cancelled_run_is_stopped_once_and_no_cancelled_one_begins(
    make: Callable[..., LocalRun], said: list[str]
) -> None:
    runs = [make("a", "wait"), make("b"), make("c")]
    masks = device_masks(1, 2, [])

    def cancelled(name: str) -> bool:
        return name in "ab" and all((runs[0].folder / f"rank{rank}").exists() for rank in (0, 1))

    outcomes = run_locally(runs, masks, 2, said.append, cancelled=cancelled)
    assert states(outcomes) == ["stopped", "not begun", "done"]
    assert [(runs[0].folder / f"stopped{rank}").read_text() for rank in (0, 1)] == ["1", "1"]
    assert not runs[1].folder.exists()
    assert "[2/3] b: was cancelled, not begun" in said
