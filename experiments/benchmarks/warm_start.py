"""What starting the runs of a sweep costs: CPU seconds of `fedlit sweep run --local`, cold and from a warm parent.

Three sweeps of one kind of cell, one after the other, in a temporary folder:

- cold: `--cold`, every cell imports everything itself;
- warm: from one parent that has imported everything;
- own work: the same cell twice in one process; the second one finds everything imported and every cache filled, and its
  CPU time is what a cell takes without any start. Garbage of the first one, and what imports made, is left out of its
  collections: looking through half a million objects of libraries again and again is a cost of importing them.

Start-up is the CPU time of a sweep, its children included, less the own work of its cells. CPU time counts, since other
work on the machine hardly changes it; wall time is shown beside it. A sweep of many cells is computed from two sizes:
the cells' share is linear, what the command and the parent take is not.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lines import Line, machine

REPOSITORY = Path(__file__).resolve().parents[2]
CELL = [
    *("experiment=demo", "num_rounds=1", "local.steps=1", "eval.max_examples=2", "eval.max_new_tokens=4"),
    *("logging.wandb=disabled", "logging.loggers=[]"),
]
OWN_WORK = """
import gc, json, runpy, sys, time
cell = json.loads(sys.argv[1])
for name in ("first", "second"):
    sys.argv = ["fedlit", "run", *cell, f"run.name={name}"]
    gc.collect()
    gc.freeze()
    began_s = time.process_time()
    try:
        runpy.run_module("fedlit", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, end.code
print(time.process_time() - began_s)
"""
TARGET = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Of a sweep with all its processes."""

    cpu_s: float
    wall_s: float


def sweep(repository: Path, num_cells: int, *options: str) -> Cost:
    """Run a sweep of a checkout to its end."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = ", ".join(map(str, range(num_cells)))
        (Path(folder) / "short.yaml").write_text(f"# short cells. More\nexperiment: demo\naxes:\n  seed: [{seeds}]\n")
        words = ["-m", "fedlit", "sweep", "run", "short.yaml", "--local", *options, *CELL[1:]]
        if not (repository / "fedlit" / "__main__.py").exists():  # before there was the command
            words = [str(repository / "experiments" / "sweep.py"), *words[3:]]
        before, began_s = os.times(), time.perf_counter()
        run([sys.executable, *words], folder, repository)
        after = os.times()
    user_s, system_s = (getattr(after, key) - getattr(before, key) for key in ("children_user", "children_system"))
    return Cost(cpu_s=user_s + system_s, wall_s=time.perf_counter() - began_s)


def own_work(repository: Path) -> float:
    """Return the CPU seconds of a cell in a process that has run one before."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", OWN_WORK, json.dumps(CELL)]
        done = run(words, folder, repository)
    return float(done.stdout.splitlines()[-1])


def run(words: list[str], folder: str, repository: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of a checkout to its end, with one thread: a second one would count its waiting."""
    own = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, cwd=folder, env=own, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    return done


def startup_s(few: Cost, many: Cost, sizes: tuple[int, int], num_cells: int, own_s: float) -> float:
    """Return the CPU seconds of starting a sweep, from two sweeps of other sizes."""
    per_cell_s = (many.cpu_s - few.cpu_s) / (sizes[1] - sizes[0])
    return few.cpu_s + per_cell_s * (num_cells - sizes[0]) - own_s * num_cells


def main() -> int:
    """Measure, print and return 0 if the target was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20, help="of the sweep that is computed (default: 20)")
    parser.add_argument("--sizes", type=int, nargs=2, default=(2, 6), help="of the sweeps that are run (default: 2 6)")
    parser.add_argument("--whole", action="store_true", help="run the warm sweep in its full size")
    parser.add_argument("--before", type=Path, default=REPOSITORY, help="checkout of the cold side (default: this one)")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--quick", action="store_true", help="sweeps of 1 and 2 cells: shows that it runs")
    options = parser.parse_args()
    sizes = (1, 2) if options.quick else (options.sizes[0], options.sizes[1])
    own_s = own_work(REPOSITORY)
    print(f"own work of a cell: {own_s:.2f} s of CPU", flush=True)
    cold_options = ["--cold"] if options.before == REPOSITORY else []
    costs: dict[str, list[Cost]] = {"cold": [], "warm": []}
    found = {}
    for side, repository, words in (("cold", options.before, cold_options), ("warm", REPOSITORY, [])):
        whole = side == "warm" and options.whole
        for size in (options.cells,) if whole else sizes:
            costs[side].append(sweep(repository, size, *words))
            last = costs[side][-1]
            print(f"{side}, {size} cells: {last.cpu_s:.1f} s of CPU, {last.wall_s:.1f} s by the clock", flush=True)
        if whole:
            found[side] = costs[side][0].cpu_s - own_s * options.cells
        else:
            found[side] = startup_s(*costs[side], sizes, options.cells, own_s)
        print(f"{side}, start-up of {options.cells} cells: {found[side]:.1f} s of CPU", flush=True)
    ratio = found["warm"] / found["cold"]
    print(f"warm over cold: {ratio:.3f}, {'met' if ratio <= TARGET else 'not met'} ({TARGET})")
    if options.json:
        table = {side: [asdict(cost) for cost in some] for side, some in costs.items()}
        line = Line(
            what=f"start of a sweep of {options.cells} short cells: a warm parent over cold starts",
            value=ratio,
            target=TARGET,
            note=f"{found['warm']:.1f} over {found['cold']:.1f} s of CPU; own work of a cell {own_s:.2f} s",
        )
        content = {"script": "warm_start", "machine": machine(), "lines": [asdict(line)], "own_s": own_s, **table}
        options.json.write_text(json.dumps({**content, "startup_s": found, "ratio": ratio}, indent=2))
    return int(ratio > TARGET)


if __name__ == "__main__":
    sys.exit(main())
