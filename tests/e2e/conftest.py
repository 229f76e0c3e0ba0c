"""Runs of the command line, as a user starts them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fresh_terminal import fresh_environment
from run_result import run_result

from fedlit.lab.sweeps.starting import EVERY_RUN
from fedlit.process.warm import Process, WarmParent, _adopt_orphans, start_cold

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "experiments" / "federate.py"
E2E = Path(__file__).resolve().parent
SMALL = [
    "num_clients=3",
    "num_rounds=3",
    "local.steps=2",
    "local.batch_size=4",
    "eval.max_examples=6",
    "eval.max_new_tokens=8",
    "eval.batch_size=3",
    "logging.wandb=disabled",
]


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(launcher: str, num_processes: int) -> list[str]:
    """Return the words that start the script under a launcher, up to its own arguments."""
    bin_folder = Path(sys.executable).parent
    if launcher == "fabric":
        options = ["--accelerator=cpu", f"--devices={num_processes}", f"--main-port={free_port()}"]
        return [str(bin_folder / "fabric"), "run", *options, str(SCRIPT)]
    if launcher == "torchrun":
        return [str(bin_folder / "torchrun"), "--standalone", f"--nproc-per-node={num_processes}", str(SCRIPT)]
    assert launcher == "python"
    return [sys.executable, str(SCRIPT), f"compute.devices={num_processes}"]


def environment() -> dict[str, str]:
    """Return an environment in which nothing of the test's own launcher is left, as on a user's fresh terminal."""
    return fresh_environment()


class CommandLine:
    """Starts federations whose run folders lie in one temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(
        self, name: str, *arguments: str, launcher: str = "python", num_processes: int = 1
    ) -> subprocess.Popen[str]:
        """Start a small federation called `name` and return its process, in a process group of its own."""
        words = [
            *command(launcher, num_processes),
            *merge(SMALL, arguments),
            f"run.dir={self.folder}",
            f"run.name={name}",
        ]
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, name: str, *arguments: str, launcher: str = "python", num_processes: int = 1
    ) -> subprocess.CompletedProcess[str]:
        """Run a small federation to its end."""
        process = self.start(name, *arguments, launcher=launcher, num_processes=num_processes)
        try:
            out, err = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def result(self, name: str) -> tuple[dict[str, bytes], list[str]]:
        """Return a run's final tensors and its server's, file by file, and its records without the times."""
        return run_result(self.folder / name)


class ForkedRun:
    """The processes of one run, forked from the warm parent."""

    def __init__(self, pids: list[int], outputs: list[Path], ask: Callable[[object], Any]) -> None:
        self.pids = pids
        self.outputs = outputs
        self._ask = ask

    def exit_codes(self) -> list[int | None]:
        """Return the exit code of every process, minus the number of the signal that ended it; None while it runs."""
        codes: list[int | None] = self._ask({"poll": self.pids})
        return codes

    def output(self) -> str:
        """Return what the processes wrote, one after the other."""
        return "\n".join(path.read_text() for path in self.outputs)

    def kill(self) -> list[int | None]:
        """SIGKILL every process that runs, wait for their ends and return the exit codes."""
        for pid, code in zip(self.pids, self.exit_codes(), strict=True):
            if code is None:
                os.kill(pid, signal.SIGKILL)
        while None in (codes := self.exit_codes()):
            time.sleep(0.005)
        return codes

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true or no process is left; fail if a process fails."""
        deadline = time.monotonic() + 180
        while not condition() and None in (codes := self.exit_codes()):
            if any(codes) or time.monotonic() > deadline:
                time.sleep(1.0)  # the others of its group may have more to say
                self.kill()
                pytest.fail(f"exit codes {codes}\n{self.output()}")
            time.sleep(0.005)


def warm_environment() -> dict[str, str]:
    """Return the environment of the warm parent, and of its runs as far as they are given no other."""
    own = environment()
    paths = [str(E2E), *filter(None, [own.get("PYTHONPATH")])]
    return {**own, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def warm_parent(folder: Path) -> WarmParent:
    """Start the product's warm parent in a folder; its imports take five seconds."""
    modules = (*EVERY_RUN, "galore_torch", "quick_runs")
    return WarmParent(modules, warm_environment(), pytest.fail, start_cold, folder=folder)


class Zygote:
    """Starts federations of several processes within milliseconds, from the product's warm parent.

    All work in one folder. parent: the one of the whole session; None for one of its own.
    """

    def __init__(self, folder: Path, parent: WarmParent | None = None) -> None:
        self.folder = folder
        self._environment = warm_environment()
        self._own = warm_parent(folder) if parent is None else None
        self._parent = self._own or parent
        self._runs: dict[int, Process] = {}

    def start(self, name: str, *arguments: str, num_processes: int = 1) -> ForkedRun:
        """Start a federation called `name`: of one process as plain python would, of several as torchrun would."""
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCHELASTIC_RUN_ID": name}
        size = str(num_processes)
        pids, outputs = [], []
        for rank in map(str, range(num_processes)):
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_RANK": "0"}
            outputs.append(self.folder / f"{name}-{rank}.txt")
            request = {
                "start": [*arguments, f"run.dir={self.folder}", f"run.name={name}"],
                "environment": {**rendezvous, **ranks} if num_processes > 1 else {},
                "output": str(outputs[-1]),
            }
            pids.append(self._ask(request)["pid"])
        return ForkedRun(pids, outputs, self._ask)

    def run(self, name: str, *arguments: str, num_processes: int = 1) -> str:
        """Run a federation to its end and return its output."""
        run = self.start(name, *arguments, num_processes=num_processes)
        run.wait_until(lambda: False)
        assert run.exit_codes() == [0] * num_processes, run.output()
        return run.output()

    def close(self) -> None:
        """End the parent and whatever it still runs."""
        for process in self._runs.values():
            process.send_signal(signal.SIGKILL)
        _adopt_orphans(False)
        if self._own is not None:
            self._own.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        """Start a process, {"start": [arguments], "environment": {...}, "output": file} -> {"pid": number}, or ask for
        exit codes, {"poll": [pids]}.
        """
        if "poll" in request:
            return [self._runs[pid].poll() for pid in request["poll"]]
        own = {**self._environment, **request["environment"]}
        _adopt_orphans(True)  # another parent that a test has closed has taken it back
        assert self._parent is not None
        words = ["in_folder", str(self.folder), "fedlit", "run", *request["start"]]
        process = self._parent(words, own, Path(request["output"]))
        while process.pid is None:
            assert process.poll() is None
            time.sleep(0.01)
        self._runs[process.pid] = process
        return {"pid": process.pid}


def merge(defaults: list[str], arguments: tuple[str, ...]) -> list[str]:
    """Return defaults and arguments, the arguments winning where both give a key."""
    given = {argument.split("=")[0] for argument in arguments}
    return [*(default for default in defaults if default.split("=")[0] not in given), *arguments]


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture(scope="module")
def module_command_line(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def session_parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmParent]:
    """The warm parent of every module's runs."""
    parent = warm_parent(tmp_path_factory.mktemp("warm"))
    yield parent
    parent.close()


@pytest.fixture(scope="module")
def zygote(session_parent: WarmParent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Start federations by forking, for a module's many small ones."""
    zygote = Zygote(tmp_path_factory.mktemp("runs"), session_parent)
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def forked_command_line(zygote: Zygote) -> CommandLine:
    """Read the results of the zygote's federations."""
    return CommandLine(zygote.folder)


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool], subprocess.Popen[str]], None]:
    """Wait until something is true of a running process."""

    def wait(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 180
        while not condition():
            assert process.poll() is None, f"ended early: {process.communicate()}"
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.02)

    return wait
