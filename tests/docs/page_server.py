"""Runs the commands of a page: real bash, whose `fedlit` and `python` are forked from the product's warm parent."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fresh_terminal import fresh_environment
from page_words import with_short_values
from pages import REPOSITORY

from fedlit.lab.sweeps.starting import EVERY_RUN
from fedlit.process.warm import ForkedRun, WarmParent, start_cold

HERE = Path(__file__).resolve().parent
FORKED = ("fedlit", "python", "python3")
LAUNCHERS = ("fabric", "torchrun")
OF_SLURM = ("sbatch", "srun", "salloc", "scancel", "sacct", "squeue", "scontrol")


def environment() -> dict[str, str]:
    """Return the environment of a user's fresh terminal, without a network."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(HERE)])}
    return {**fresh_environment("FEDLIT_", "PYTEST", "COV_"), **own}


class PageServer:
    """Answers the shims of one bash after the other. folder: for its socket, its shims and the parent."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "bin"
        self._bin.mkdir()
        interpreter = f"#!{Path(sys.executable).resolve()} -ISs\n"
        for name in (*FORKED, *LAUNCHERS, *OF_SLURM):
            path = self._bin / name
            path.write_text(interpreter + (HERE / "shim.py").read_text(encoding="utf-8"), encoding="utf-8")
            path.chmod(0o755)
        self._environment = environment()
        self._folder = folder
        self._parent: WarmParent | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._address = str(folder / "s")
        self._socket.bind(self._address)
        self._socket.listen()

    def run(self, script: str, folder: Path, timeout_s: float) -> None:
        """Run a script of bash to its end, answering its shims."""
        path = f"{self._bin}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {**self._environment, "PATH": path, "PAGES_SOCKET": self._address}
        bash = subprocess.Popen(["bash", "-c", script], cwd=folder, env=own, stdin=subprocess.DEVNULL, process_group=0)
        at_work: list[tuple[socket.socket, ForkedRun, bool]] = []
        deadline = time.monotonic() + timeout_s
        try:
            while bash.poll() is None or at_work:
                if time.monotonic() > deadline:
                    pytest.fail(f"the page takes more than {timeout_s:.0f} s")
                if select.select([self._socket], [], [], 0.005)[0]:
                    asked, _ = self._socket.accept()
                    at_work += self._begin(asked)
                at_work = [entry for entry in map(self._told, at_work) if entry is not None]
        finally:
            for _, run, _ in at_work:
                run.send_signal(signal.SIGKILL)
            if bash.poll() is None:
                os.killpg(bash.pid, signal.SIGKILL)
                bash.wait()

    def close(self) -> None:
        """End the parent."""
        self._socket.close()
        if self._parent is not None:
            self._parent.close()

    def _begin(self, asked: socket.socket) -> list[tuple[socket.socket, ForkedRun, bool]]:
        """Do what a shim asks for: fork it, or answer at once."""
        with asked.makefile() as lines:
            request = json.loads(lines.readline())
        answer = self._answer(request)
        if answer is not None:
            asked.sendall(json.dumps(answer).encode() + b"\n")
            asked.close()
            return []
        own = {name: text for name, text in request["environment"].items() if name != "PAGES_SOCKET"}
        del request["environment"]
        request["socket"] = self._address
        console = Path(request["console"]) if "console" in request else None
        if self._parent is None:  # some pages need none of it
            modules = (*EVERY_RUN, "galore_torch", "page_preload")
            self._parent = WarmParent(modules, self._environment, pytest.fail, start_cold, folder=self._folder)
        run = self._parent(["page_words", json.dumps(request)], own, console)
        return [(asked, run, False)]

    @staticmethod
    def _told(entry: tuple[socket.socket, ForkedRun, bool]) -> tuple[socket.socket, ForkedRun, bool] | None:
        """Tell a shim what its process has come to; None once it has ended."""
        asked, run, has_pid = entry
        code = run.poll()
        if run.pid is not None and not has_pid:
            asked.sendall(json.dumps({"pid": run.pid}).encode() + b"\n")
            has_pid = True
        if code is None:
            return asked, run, has_pid
        asked.sendall(json.dumps({"code": code if code >= 0 else 128 - code}).encode() + b"\n")
        asked.close()
        return None

    def _answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Return what a shim is to do itself; None if its words are to be forked."""
        if request["name"] == "run":
            return None
        name, words, mark = request["name"], request["words"], request["environment"].get("PAGES_MARK", "")
        if name in OF_SLURM or (mark in ("dry", "slurm") and name in LAUNCHERS):
            return {"code": 0}  # checked by command_check alone
        if name in LAUNCHERS:
            words = with_short_values(words) if mark == "short" else words
            return {"exec": [str(shutil.which(name, path=str(Path(sys.executable).parent))), *words]}
        if name != "fedlit" and (not words or (words[0] not in ("-", "-c") and not words[0].endswith(".py"))):
            return {"exec": [sys.executable, *words]}
        return _only_looked_at(request, name, words, mark) if mark in ("dry", "slurm") else None


def _only_looked_at(request: dict[str, Any], name: str, words: list[str], mark: str) -> dict[str, Any] | None:
    """Return the answer to a command of a block that is marked `dry` or `slurm`, or change its words.

    A run whose rows are in no file of the reader's has `dry_run=true`; what submits, sends or downloads `--dry-run`;
    other work has been checked by command_check, and is left out here.
    """
    if name != "fedlit":
        return {"code": 0}
    if words[:2] == ["sweep", "submit"] and any("path=" in word for word in words):
        return {"code": 0}
    if words[:2] == ["sweep", "submit"] or words[:1] in (["fetch"], ["push"]):
        request["words"] = [*words, *([] if "--dry-run" in words else ["--dry-run"])]
    elif words[:1] == ["run"] and mark == "dry" and not any("path=" in word for word in words):
        request["words"] = [*words, "dry_run=true"]
    elif mark == "dry" or words[:1] in (["run"], ["compare"]) or words[:2] == ["sweep", "run"]:
        return {"code": 0}
    return None
