"""All benchmarks of this folder, one after the other, in one table: `make bench`, or `python bench.py --quick`.

Each script is a process of its own with one thread, which prints its own report and hands its lines over as JSON. One
that fails, or that is not there, is told at the end and keeps no other from being measured. The exit code is 0 if all
that were asked for gave their lines, whether or not these meet their targets.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lines import Line, machine, table

HERE = Path(__file__).resolve().parent
LIMIT_S = 3600.0
"""Longest time of one script."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """One benchmark: its file's name without .py, what it shows, and its words besides --json and --quick."""

    name: str
    shows: str
    words: Sequence[str] = ()
    needs_cuda: bool = False


SCRIPTS = (
    Script(name="federation", shows="a whole federation over a bare two-process loop, few clients and many"),
    Script(name="local_training", shows="local steps over a bare loop of steps"),
    Script(name="clients", shows="several clients in one forward pass over one after the other"),
    Script(name="private", shows="clients' own models, several in one forward pass"),
    Script(name="per_example", shows="steps by DP-SGD over plain ones"),
    Script(name="labelled", shows="logits at labelled positions over all logits"),
    Script(name="mean", shows="the fixed-point sum over a float32 all-reduce"),
    Script(name="noise", shows="discrete Gaussian noise over NumPy's normal floats"),
    Script(name="private_rounds", shows="rounds under client-level privacy, and under masks, over plain ones"),
    Script(name="masks", shows="a round with secure aggregation over a plain one"),
    Script(name="aggregation", shows="rules from factors over dense products"),
    Script(name="analysis", shows="the default analyses over the local steps of a round"),
    Script(name="galore", shows="the randomised SVD of GaLore over the full one"),
    Script(name="evaluation", shows="generation in batches, on two processes, and of clients' own models"),
    Script(name="checkpoint", shows="bytes and time of a checkpoint"),
    Script(name="memory", shows="memory of many clients over one, and of two processes"),
    Script(name="growth", shows="time and memory against clients, processes, rank, length and layers"),
    Script(name="startup", shows="what a start costs"),
    Script(name="warm_start", shows="starts of a sweep's cells from one parent"),
    Script(name="gpu", shows="rounds of billion-parameter models on one GPU", needs_cuda=True),
)


@dataclass(kw_only=True, slots=True)
class Found:
    """What the scripts gave: lines by script, the machine as each saw it, and why others gave nothing."""

    lines: dict[str, list[Line]] = field(default_factory=dict)
    machines: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def measure(scripts: Sequence[Script], folder: Path, *, quick: bool, has_cuda: bool) -> Found:
    """Run the scripts of a folder; what they print is printed."""
    found = Found()
    for script in scripts:
        path = folder / f"{script.name}.py"
        if not path.is_file():
            found.left_out[script.name] = "there is no such script yet"
        elif script.needs_cuda and not has_cuda:
            found.left_out[script.name] = "it needs a CUDA device"
        else:
            print(f"\n{script.name}: {script.shows}", flush=True)
            _run(script, path, found, quick=quick)
    return found


def _run(script: Script, path: Path, found: Found, *, quick: bool) -> None:
    """Run one script and take its lines in, or why there are none."""
    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lines.json"
        words = [sys.executable, str(path), *script.words, "--json", str(out), *(["--quick"] if quick else [])]
        try:
            code = subprocess.run(words, env=environment(path), timeout=LIMIT_S, check=False).returncode
            content = json.loads(out.read_text(encoding="utf-8"))
            found.lines[script.name] = [read_line(line) for line in content["lines"]]
            found.machines[script.name] = content["machine"]
        except subprocess.TimeoutExpired:
            found.failed[script.name] = f"no end after {LIMIT_S:.0f} s"
        except (OSError, ValueError, KeyError, TypeError):
            found.lines.pop(script.name, None)
            found.failed[script.name] = f"it gave no lines, and ended with code {code}"
    found.seconds[script.name] = time.perf_counter() - began_s


def environment(path: Path) -> dict[str, str]:
    """Return the environment of a script: this tree's fedlit, one thread."""
    before = os.environ.get("PYTHONPATH")
    own = os.pathsep.join([str(path.parents[2]), *([before] if before else [])])
    return {**os.environ, "PYTHONPATH": own, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def read_line(content: Mapping[str, Any]) -> Line:
    """Return a line from its JSON."""
    interval = content.get("interval")
    return Line(**{**content, "interval": None if interval is None else (interval[0], interval[1])})


def report(found: Found) -> str:
    """Return the machine, the table of all lines, and what is not in it."""
    facts = next(iter(found.machines.values()), machine())
    parts = [", ".join(f"{key} {value}" for key, value in facts.items()), ""]
    parts.append(table([line for lines in found.lines.values() for line in lines]))
    loads = [facts["load"] for facts in found.machines.values() if "load" in facts]
    if loads:
        parts += ["", f"load at the end of each script: {min(loads)} to {max(loads)}"]
    parts += [f"left out: {name}.py ({reason})" for name, reason in found.left_out.items()]
    parts += [f"FAILED: {name}.py ({reason})" for name, reason in found.failed.items()]
    return "\n".join(parts)


def main(words: Sequence[str]) -> int:
    """Run what was asked for, print the table, and return 1 if a script failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [script.name for script in SCRIPTS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    parser.add_argument("--out", type=Path, help="JSON file for all lines")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats: shows that all of it runs")
    given = parser.parse_args(words)
    scripts = [script for script in SCRIPTS if given.only is None or script.name in given.only]
    found = measure(scripts, HERE, quick=given.quick, has_cuda=torch.cuda.is_available())
    print(f"\n{report(found)}")
    if given.out is not None:
        given.out.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
    return 1 if found.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
