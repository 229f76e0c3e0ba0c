"""Sides of a comparison that live in processes of their own and take turns.

A side is a group of processes that torchrun could have started: each has its place in the environment. The parent gives
a turn to one side after the other, so that both are measured within the same seconds of a shared machine, and neither
has the other's libraries, memory or settings in its process.
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paired_timing import Elapsed

REPOSITORY = Path(__file__).resolve().parents[2]
TURN_S = 900.0
"""Longest wait for a turn: the first one holds the start of the libraries."""


class SideFailed(RuntimeError):
    """A process of a side has ended, or gives no answer."""


class Turns:
    """A worker's end: it does one turn each time the parent says so, and tells what the turn took.

    Standard output is the channel; what libraries print goes to standard error.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        self._channel = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._cpu_s: float | None = None
        self._wall_s = 0.0

    def next(self, parts: Mapping[str, float] | None = None) -> None:
        """End the turn before, if there was one, and wait for the next; the process ends when the parent is done.

        parts: CPU seconds of pieces of the turn, by name.
        """
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        if self._cpu_s is not None:
            told = {"cpu_s": cpu_s - self._cpu_s, "wall_s": wall_s - self._wall_s, "parts": dict(parts or {})}
            self._channel.write(json.dumps(told) + "\n")
            self._channel.flush()
        if not sys.stdin.readline():
            os._exit(0)  # in the middle of a run, whose end is not measured
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()


class Side:
    """The parent's end: the processes of one side.

    Args:
        words: after `python`; every process gets the same.
        num_processes: of the group.
        log: file for what they print.
    """

    def __init__(self, words: Sequence[str], num_processes: int, log: Path) -> None:
        self._log = log
        self.parts: list[Mapping[str, float]] = []
        port = str(_free_port())
        with log.open("w") as file:
            self._workers = [
                subprocess.Popen(
                    [sys.executable, *words],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    text=True,
                    env={**os.environ, **_place(rank, num_processes, port)},
                )
                for rank in range(num_processes)
            ]

    def turn(self) -> Elapsed:
        """Let all processes do one turn; return the CPU seconds of all of them, and the longest time by the clock."""
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        told = [self._answer(worker) for worker in self._workers]
        self.parts.append(_added([each["parts"] for each in told]))
        return Elapsed(cpu_s=sum(each["cpu_s"] for each in told), wall_s=max(each["wall_s"] for each in told))

    def _answer(self, worker: "subprocess.Popen[str]") -> dict[str, Any]:
        assert worker.stdout is not None
        ready, _, _ = select.select([worker.stdout], [], [], TURN_S)
        line = worker.stdout.readline() if ready else ""
        if not line:
            self.close()
            raise SideFailed(f"a process gave no answer; the end of {self._log}:\n{self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.close()
        for worker in self._workers:
            try:
                worker.wait(timeout=30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def _place(rank: int, num_processes: int, port: str) -> dict[str, str]:
    """Return what torchrun tells a process of its place, on this machine alone."""
    return {
        "TORCHELASTIC_RUN_ID": "benchmark",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _added(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {
        name: sum(part.get(name, 0.0) for part in parts) for name in dict.fromkeys(n for part in parts for n in part)
    }
