"""Every method side by side on one data set and model: a table in Markdown.

    python experiments/compare.py data=medquad data.path=medquad.jsonl.gz model=hf model.path=stories260k

All arguments but --methods, --lrs, --devices and --jobs are those of federate.py and hold for every run. A run that is
there already is taken up, so the same command goes on after an interruption. With several learning rates every method
shows the one with the lowest loss after the last round, on the rows that are scored: a comparison of tuned methods, not
of tuned methods on unseen rows.
"""

import argparse
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fedlit.analysis.comparison import Result, markdown, read_records, summarize
from fedlit.config import CONFIG_DIR, RunConfig, load_config, load_yaml
from fedlit.config.record import differences, run_folder
from fedlit.errors import UserError

SCRIPT = Path(__file__).with_name("federate.py")
LOSS = "global/loss"
METHODS = sorted(path.stem for path in (CONFIG_DIR / "method").glob("*.yaml"))


def main() -> int:
    """Run what is missing, print the table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS), help="names with commas between them (default: all)")
    parser.add_argument("--lrs", default="", help="learning rates with commas between them (default: local.lr)")
    parser.add_argument("--devices", type=int, default=1, help="processes of one run (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--output", type=Path, help="file for the table, besides the console")
    options, overrides = parser.parse_known_args()
    lrs = options.lrs.split(",") if options.lrs else [None]
    try:
        cells = [_cell(method, lr, overrides) for method in options.methods.split(",") for lr in lrs]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(options.jobs) as pool:
        problems = [problem for problem in pool.map(lambda cell: _run(cell, options.devices), cells) if problem]
    for problem in problems:
        print(problem, file=sys.stderr)
    if results := _results(cells):
        table = markdown(results)
        print(table)
        if options.output:
            options.output.write_text(table, encoding="utf-8")
    return 1 if problems else 0


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: a method at a learning rate."""

    method: str
    config: RunConfig
    arguments: list[str]
    folder: Path

    @property
    def done(self) -> bool:
        """Whether the run is there to its end; the result is the last thing that a run writes."""
        if not (self.folder / "adapter").exists():
            return False
        there = load_yaml((self.folder / "config.yaml").read_text(encoding="utf-8"))
        return not differences(there, self.config)


def _cell(method: str, lr: str | None, overrides: list[str]) -> Cell:
    """Return a run whose folder has the learning rate in its name where several are compared."""
    arguments = [f"method={method}", *overrides, *([f"local.lr={lr}"] if lr else [])]
    config = load_config(arguments)
    folder = run_folder(config).with_name(f"{method}-{lr}" if lr else method)
    return Cell(method, config, arguments, folder)


def _run(cell: Cell, devices: int) -> str | None:
    """Run one federation to its end, its console beside the run folder as `<name>.log`; return what went wrong."""
    if cell.done:
        return None
    cell.folder.parent.mkdir(parents=True, exist_ok=True)
    launcher = [str(Path(sys.executable).with_name("fabric")), "run", "--accelerator=cpu", f"--devices={devices}"]
    log = cell.folder.with_name(f"{cell.folder.name}.log")
    port = f"--main-port={_free_port()}"
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [*launcher, port, str(SCRIPT), *cell.arguments, f"run.name={cell.folder.name}"],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return None if done.returncode == 0 else f"{cell.folder.name} ended with exit code {done.returncode}; see {log}"


def _free_port() -> int:
    """Return a port that nobody listens on: runs side by side need one each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _results(cells: list[Cell]) -> list[Result]:
    """Return a line for the untrained model, and one for each method with the learning rate that served it best."""
    results: dict[str, Result] = {}
    for cell in cells:
        if not cell.done:
            continue
        records = read_records(cell.folder)
        result = summarize(cell.method, records, cell.config.local.lr)
        if cell.method not in results or result.scores[LOSS] < results[cell.method].scores[LOSS]:
            results[cell.method] = result
        if not any(key.startswith("init/") for key in records[0]):  # no adapter has changed the model yet
            results.setdefault("zero-shot", summarize("zero-shot", records[:1], None))
    return sorted(results.values(), key=lambda result: result.scores[LOSS])


if __name__ == "__main__":
    sys.exit(main())
