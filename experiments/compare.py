"""Every method side by side on one data set and model: a table in Markdown and a picture of one score per round.

    python experiments/compare.py data=medquad data.path=medquad.jsonl.gz model=hf model.path=stories260k

The key=value arguments are those of federate.py and hold for every run. A run that is there already is taken up, so the
same command goes on after an interruption. With several learning rates every method shows the one with the best --score
after the last round, on the rows that are scored: a comparison of tuned methods, not of tuned methods on unseen rows.
"""

import argparse
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fedlit.analysis.comparison import Record, Result, markdown, read_records, summarize
from fedlit.config import CONFIG_DIR, RunConfig, load_config, load_yaml
from fedlit.config.record import differences, run_folder
from fedlit.errors import UserError
from fedlit.scores import chosen_scores, is_lower_better

SCRIPT = Path(__file__).with_name("federate.py")
METHODS = sorted(path.stem for path in (CONFIG_DIR / "method").glob("*.yaml"))


def main() -> int:
    """Run what is missing, print the table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS), help="names with commas between them (default: all)")
    parser.add_argument("--lrs", default="", help="learning rates with commas between them (default: local.lr)")
    parser.add_argument("--devices", type=int, default=1, help="processes of one run (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--score", default="loss", help="score that decides, such as f1_macro (default: loss)")
    parser.add_argument("--output", type=Path, help="file for the table, besides the console")
    parser.add_argument("--picture", type=Path, help="PNG file for the scores per round, a line a method")
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
    runs = {cell: read_records(cell.folder) for cell in cells if cell.done}
    unscored = [cell.folder.name for cell, records in runs.items() if _key(options.score, records) is None]
    if unscored:
        print(f"error: --score={options.score}: the record of {unscored[0]} has no such score", file=sys.stderr)
        return 2
    if runs:
        best = _best_runs(runs, options.score)
        data = best[0].config.data
        names = ("loss", *chosen_scores(data))
        table = markdown(_results(runs, best, options.score), names)
        print(table)
        if options.output:
            options.output.write_text(table, encoding="utf-8")
        if options.picture:
            title = f"{data.name}, {best[0].config.model.name}, {best[0].config.num_clients} clients"
            _draw({cell.method: runs[cell] for cell in best}, options.score, options.picture, title)
    return 1 if problems else 0


@dataclass(frozen=True, slots=True, eq=False)
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


def _key(score: str, records: list[Record]) -> str | None:
    """Return where the last record has the score: on the global test set, or the mean over clients on their own."""
    return next((key for key in (f"global/{score}", f"own/{score}") if key in records[-1]), None)


def _goodness(score: str, records: list[Record]) -> float:
    """Return the score after the last round, so that more is better."""
    value = records[-1][_key(score, records)]
    return -value if is_lower_better(score) else value


def _best_runs(runs: dict[Cell, list[Record]], score: str) -> list[Cell]:
    """Return for each method the run whose learning rate served it best, the best method first."""
    best: dict[str, Cell] = {}
    for cell in sorted(runs, key=lambda cell: _goodness(score, runs[cell]), reverse=True):
        best.setdefault(cell.method, cell)
    return list(best.values())


def _results(runs: dict[Cell, list[Record]], best: list[Cell], score: str) -> list[Result]:
    """Return a line for each method and one for the untrained model, the best first."""
    lines = [(summarize(cell.method, runs[cell], cell.config.local.lr), _goodness(score, runs[cell])) for cell in best]
    for records in runs.values():
        if not any(key.startswith("init/") for key in records[0]):  # no adapter has changed the model yet
            lines.append((summarize("zero-shot", records[:1], None), _goodness(score, records[:1])))
            break
    return [result for result, _ in sorted(lines, key=lambda line: line[1], reverse=True)]


def _draw(runs: dict[str, list[Record]], score: str, path: Path, title: str) -> None:
    from fedlit.analysis.comparison_plot import plot_comparison  # noqa: PLC0415  matplotlib takes a second to import

    plot_comparison(runs, score, path, title)


if __name__ == "__main__":
    sys.exit(main())
