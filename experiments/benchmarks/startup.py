"""What a start of fedlit costs before it does anything: CPU seconds of short commands, and of what they import.

    python experiments/benchmarks/startup.py --before ../fedlit-before --repeats 5
    python experiments/benchmarks/startup.py --imports --top 15

Both trees run under this Python, in turn, each command in a process of its own. User and system time count, of the
process and its children, since a shared machine changes the wall clock more than an import does.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lines import Line, add_arguments, tell

HERE = Path(__file__).resolve().parents[2]
ONE_ROUND = [
    "experiment=demo",
    "num_rounds=1",
    "num_clients=2",
    "cohort_size=2",
    "local.steps=1",
    "local.batch_size=1",
    "eval.max_examples=1",
    "eval.max_new_tokens=1",
    "logging.wandb=disabled",
]
CASES: Mapping[str, Sequence[str]] = {
    "help": ["-m", "fedlit", "--help"],
    "sweep status": ["experiments/sweep.py", "status", "demo"],
    "import fedlit.launch": ["-c", "import fedlit.launch"],
    "dry run": ["experiments/federate.py", "experiment=demo", "dry_run=true"],
    "run of one step": ["experiments/federate.py", *ONE_ROUND],
}
"""Words after `python`; a script is that of the tree."""

TIMED_IMPORTS = """
import atexit, importlib._bootstrap as bootstrap, json, os, sys, time
inner, stack, found = bootstrap._find_and_load, [0.0], {}
def timed(name, import_):
    start = time.process_time()
    stack.append(0.0)
    try:
        return inner(name, import_)
    finally:
        whole, inside = time.process_time() - start, stack.pop()
        stack[-1] += whole
        found.setdefault(name, [whole, whole - inside])
bootstrap._find_and_load = timed
atexit.register(lambda: os.getpid() == owner and open(os.environ["IMPORT_TIMES"], "w").write(json.dumps(found)))
owner = os.getpid()
"""
"""A sitecustomize.py that writes (CPU seconds with all that it imports, its own alone) of each module."""


def command(tree: Path, words: Sequence[str]) -> list[str]:
    """Return the words that start a case of a tree."""
    return [sys.executable, *(str(tree / word) if word.startswith("experiments/") else word for word in words)]


def environment(tree: Path, *, before: Sequence[Path] = ()) -> dict[str, str]:
    """Return an environment in which `fedlit` is the tree's."""
    path = os.pathsep.join(map(str, (*before, tree)))
    # As on a user's machine, where a start finds the bytecode of the one before.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def cpu_seconds(tree: Path, words: Sequence[str]) -> float | None:
    """Return user and system time of one start; None if this tree does not know the command."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command(tree, words), cwd=folder, env=environment(tree), stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime if process.returncode == 0 else None


def import_times(tree: Path, words: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return what each module cost, (with what it imports, alone), in CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(TIMED_IMPORTS)
        environ = {**environment(tree, before=[Path(folder)]), "IMPORT_TIMES": f"{folder}/times.json"}
        subprocess.run(command(tree, words), cwd=folder, env=environ, capture_output=True, check=True)
        times = json.loads((Path(folder) / "times.json").read_text())
    return {name: (whole, alone) for name, (whole, alone) in times.items()}


def by_package(times: Mapping[str, tuple[float, float]]) -> list[tuple[str, float, float]]:
    """Return (package, cumulative, own) in CPU seconds, the dearest first.

    own: of all modules of a package. cumulative: of its first import, with everything that was not there yet.
    """
    own: dict[str, float] = {}
    for name, (_, alone) in times.items():
        package = name.partition(".")[0]
        own[package] = own.get(package, 0.0) + alone
    rows = [(package, times.get(package, (0.0, 0.0))[0], seconds) for package, seconds in own.items()]
    return sorted(rows, key=lambda row: max(row[1:]), reverse=True)


def show_imports(trees: Mapping[str, Path], cases: Sequence[str], top: int) -> None:
    """Print a table of packages for each case."""
    for case in cases:
        tables = {name: by_package(import_times(tree, CASES[case])) for name, tree in trees.items()}
        print(f"\n{case}: CPU seconds of imports, with what they import (own modules alone)")
        for name, rows in tables.items():
            told = ", ".join(f"{package} {whole:.2f} ({own:.2f})" for package, whole, own in rows[:top])
            print(f"  {name:7}{sum(own for _, _, own in rows):6.2f}  {told}")


def show_seconds(trees: Mapping[str, Path], cases: Sequence[str], repeats: int) -> list[Line]:
    """Print the medians of interleaved starts, and their ratio where there are two trees; return their lines."""
    lines = []
    for case in cases:
        seconds: dict[str, list[float]] = {name: [] for name in trees}
        for tree in trees.values():
            cpu_seconds(tree, CASES[case])  # the first start compiles
        for _ in range(repeats):
            for name, tree in trees.items():
                if (found := cpu_seconds(tree, CASES[case])) is not None:
                    seconds[name].append(found)
        medians = {name: statistics.median(values) if values else None for name, values in seconds.items()}
        cells = [f"{name} {'-' if value is None else f'{value:.2f}'}" for name, value in medians.items()]
        before, after = medians.get("before"), medians["after"]
        ratio = f"  ratio {after / before:.2f}" if before and after else ""
        print(f"{case:22}{'  '.join(cells)}{ratio}")
        if after is not None:
            told = f"median of {repeats}; before: {before:.2f}" if before else f"median of {repeats}"
            lines.append(Line(what=f"start: {case}", value=after, unit="s of CPU", note=told))
    return lines


def main() -> None:
    """Read the words and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another tree, for comparison")
    parser.add_argument("--repeats", type=int, default=3, help="starts of each tree")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--imports", action="store_true", help="packages and their cost in place of whole starts")
    parser.add_argument("--top", type=int, default=15, help="packages shown")
    add_arguments(parser)
    given = parser.parse_args()
    if given.quick:
        given.cases, given.repeats = ["help", "sweep status"], 1
    trees = {} if given.before is None else {"before": given.before.resolve()}
    trees["after"] = HERE
    if given.imports:
        show_imports(trees, given.cases, given.top)
    else:
        tell("startup", show_seconds(trees, given.cases, given.repeats), given)


if __name__ == "__main__":
    main()
