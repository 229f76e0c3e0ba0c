"""A logger from outside that notes, after each round, what the run's processes have used: CPU seconds and memory.

    fedlit run ... plugins=[meter] logging.loggers=[meter]     with METER=<file> in the environment

Process 0 reads /proc for itself and the processes that it has started; so it sees one machine, and Linux alone.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlit.plugins import Callback, Sample, register

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all below it that live."""
    yield pid
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = file.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from tree(int(child))


def cpu_seconds(pid: int) -> float:
    """Return user and system time of all threads of a process, in nanoseconds' precision where the kernel has it."""
    total = 0.0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(file.read_text().split()[0]) / 1e9
        except (OSError, ValueError, IndexError):
            continue
    return total


def proportional_bytes(pid: int) -> int:
    """Return a process's memory, what it shares with others divided among them; 0 of one that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


@register("logger", "meter")
@dataclass
class Meter(Callback):
    """Adds a line for each round to the file that METER names: round, cpu_s and wall_s since the start, pss_mb."""

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        """Note what has been used up to here."""
        pids = list(tree(os.getpid()))
        line = {
            "round": record["round"],
            "cpu_s": sum(map(cpu_seconds, pids)),
            "wall_s": time.monotonic(),
            "pss_mb": sum(map(proportional_bytes, pids)) / 1e6,
            "num_tokens": record.get("clients/num_tokens"),
        }
        with Path(os.environ["METER"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
