"""What a benchmark found: lines with a value, its interval and its target, printed as a table and kept as JSON.

Every script of this folder prints these lines and, with --json, writes them, so that `make bench` can put all of them
into one table.
"""

import argparse
import datetime
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

NULL_TOLERANCE = 0.02
"""A null control, one side against itself, that is further from 1 makes a ratio worthless."""

LIBRARIES = ("torch", "lightning", "transformers", "peft", "galore-torch", "torchmetrics")


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One measured value.

    what: in words. value: mostly a ratio of two sides measured in one process tree. unit: `x` for a ratio.
    interval: of the median, where there are pairs enough. null: ratio of one side to itself; None where nothing is
    timed. target: to be reached from the side that `better` names, `at most` or `at least`; None for a plain figure.
    note: sizes, absolute figures, and why a target is missed.
    """

    what: str
    value: float
    unit: str = "x"
    interval: tuple[float, float] | None = None
    null: float | None = None
    target: float | None = None
    better: str = "at most"
    note: str = ""

    @property
    def verdict(self) -> str:
        """Return `met`, `missed`, `invalid` (the null control is off) or nothing without a target."""
        if self.null is not None and abs(self.null - 1) > NULL_TOLERANCE:
            return "invalid"
        if self.target is None:
            return ""
        return (
            "met"
            if (self.value <= self.target if self.better == "at most" else self.value >= self.target)
            else "missed"
        )


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, load, libraries and the date."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    except OSError:
        models = []
    facts = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }
    installed = {name: metadata.version(name) for name in LIBRARIES if _is_installed(name)}
    if torch.cuda.is_available():
        facts["device"] = torch.cuda.get_device_name()
    return {**facts, **installed}


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def table(lines: Sequence[Line]) -> str:
    """Return the lines as a Markdown table."""
    rows = ["| what | measured | 95 % interval | null | target | verdict | note |", "|---|---|---|---|---|---|---|"]
    for line in lines:
        interval = "" if line.interval is None else f"{_short(line.interval[0])} to {_short(line.interval[1])}"
        goal = "" if line.target is None else f"{line.better} {_short(line.target)}"
        null = "" if line.null is None else f"{line.null:.3f}"
        value = f"{_short(line.value)} {'' if line.unit == 'x' else line.unit}".strip()
        rows.append(f"| {line.what} | {value} | {interval} | {null} | {goal} | {line.verdict} | {line.note} |")
    return "\n".join(rows)


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every script takes: --json FILE and --quick."""
    parser.add_argument("--json", type=Path, help="file for the lines and the machine they were measured on")
    parser.add_argument("--quick", action="store_true", help="few repeats and small sizes: shows that it runs")


def tell(name: str, lines: Sequence[Line], arguments: argparse.Namespace) -> None:
    """Print a script's lines and write them to the file that --json names."""
    facts = machine()
    print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    print(table(lines))
    if arguments.json is not None:
        content = {"script": name, "machine": facts, "lines": [asdict(line) for line in lines]}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
