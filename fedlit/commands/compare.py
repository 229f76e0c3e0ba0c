"""Every method side by side on one data set and model: a table in Markdown and a picture of one score per round.

The key=value arguments are those of 'fedlit run' and hold for every run. A run that is there already is taken up, so
the same command goes on after an interruption. With several learning rates every method shows the one with the best
--score after the last round, on the rows that are scored: a comparison of tuned methods, not of tuned methods on unseen
rows.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlit.arguments import CommandParser, positive, require_file, writing
from fedlit.commands.endings import tell, without_traceback
from fedlit.config import CONFIG_DIR, load_config, run_folder
from fedlit.config.keys import nearest
from fedlit.config.places import is_file_name, list_choices
from fedlit.errors import UserError
from fedlit.lab.analysis.comparison import Result, markdown, summarize
from fedlit.lab.sweeps.local import EARLY, LocalRun, device_masks, run_locally, visible_gpus
from fedlit.process.interrupt import STOPPED_EXIT_CODE
from fedlit.process.storage import user_path, write_atomically
from fedlit.scores import SCORES, chosen_scores, goodness
from fedlit.store.records import Record, read_records

EXAMPLE = """\
example:
  fedlit compare --methods fedit,scl --lrs 0.001,0.01 --jobs 2 --output table.md num_rounds=10
"""


def main(words: Sequence[str]) -> int:
    """Run what is missing, print the table and return the exit code."""
    return without_traceback(lambda: _compare(_parse(words)))


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("compare", __doc__, EXAMPLE)
    parser.add_argument("--methods", help="names with commas between them (default: all)")
    parser.add_argument("--lrs", default="", help="learning rates with commas between them (default: local.lr)")
    parser.add_argument("--devices", type=positive, default=1, help="processes of one run (default: 1)")
    parser.add_argument("--jobs", type=positive, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--cold", action="store_true", help="every run imports everything itself, as FEDLIT_WARM=0")
    parser.add_argument("--score", default="loss", help="score that decides, such as f1_macro (default: loss)")
    parser.add_argument("--output", type=user_path, help="file for the table, besides the console")
    parser.add_argument("--picture", type=user_path, help="PNG file for the scores per round, a line a method")
    parser.add_argument("overrides", nargs="*", metavar="FILE|key=value", help="as for 'fedlit run'")
    return parser.parse(words)


def _compare(options: argparse.Namespace) -> int:
    for option in ("output", "picture"):
        require_file(getattr(options, option), f"--{option}")
    lrs = options.lrs.split(",") if options.lrs else [None]
    methods = sorted(list_choices(CONFIG_DIR, "method")) if options.methods is None else options.methods.split(",")
    cells = [_cell(method, lr, options.overrides) for method in methods for lr in lrs]
    _require_distinct(cells)
    _require_scored(cells, options.score)  # the scores of plugins are known by now
    gpus = [] if all(cell.run.config.compute.accelerator == "cpu" for cell in cells) else visible_gpus(os.environ)
    masks = device_masks(options.jobs, options.devices, gpus)
    outcomes = run_locally([cell.run for cell in cells], masks, options.devices, tell, warm=not options.cold)
    states = [outcome.state for outcome in outcomes]
    if not EARLY.isdisjoint(states):
        tell("the same command goes on where they stopped")
        return STOPPED_EXIT_CODE
    runs = {cell: read_records(cell.run.folder) for cell, state in zip(cells, states, strict=True) if state == "done"}
    unscored = [cell.run.name for cell, records in runs.items() if _key(options.score, records) is None]
    if unscored:
        raise UserError(f"--score={options.score}: the record of {unscored[0]} has no such score")
    if runs:
        _show(runs, options)
    return int(set(states) != {"done"})


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One run: a method at a learning rate."""

    method: str
    run: LocalRun


def _cell(method: str, lr: str | None, overrides: list[str]) -> Cell:
    """Return a run whose folder has the learning rate in its name where several are compared."""
    called = Path(method).name if is_file_name(method) else method.replace("/", "-")
    name = f"{called}-{lr}" if lr else called
    arguments = [f"method={method}", *overrides, *([f"local.lr={lr}"] if lr else []), f"run.name={name}"]
    config = load_config(arguments)
    return Cell(method, LocalRun(name=name, arguments=tuple(arguments), config=config, folder=run_folder(config)))


def _require_distinct(cells: list[Cell]) -> None:
    """Refuse two runs in one folder."""
    names = [cell.run.name for cell in cells]
    for name in (name for i, name in enumerate(names) if name in names[:i]):
        raise UserError(
            f"two of the runs are called {name} and would share a folder; leave one out, or rename its file"
        )


def _require_scored(cells: list[Cell], score: str) -> None:
    """Refuse a score that there is not, and runs that leave no record."""
    if score.partition("/")[0].removesuffix("_macro") not in SCORES:
        raise UserError(f"--score={score} is no score{nearest(score, SCORES)} Valid: {', '.join(SCORES)}")
    if any(cell.run.config.dry_run for cell in cells):
        raise UserError("dry_run=true leaves nothing to compare; leave it out, or write fedlit run ... dry_run=true")


def _show(runs: dict[Cell, list[Record]], options: argparse.Namespace) -> None:
    """Print the table and write what the options ask for."""
    best = _best_runs(runs, options.score)
    config = best[0].run.config
    table = markdown(_results(runs, best, options.score), ("loss", *chosen_scores(config.data)))
    print(table)
    if options.output:
        with writing(options.output, "--output"):
            write_atomically(options.output, table)
        tell(str(options.output))
    if options.picture:
        title = f"{config.data.name}, {config.model.name}, {config.num_clients} clients"
        with writing(options.picture, "--picture"):
            _draw({cell.method: runs[cell] for cell in best}, options.score, options.picture, title)
        tell(str(options.picture))


def _key(score: str, records: list[Record]) -> str | None:
    """Return where the last record has the score: on the global test set, or the mean over clients on their own."""
    return next((key for key in (f"global/{score}", f"own/{score}") if key in records[-1]), None)


def _goodness(score: str, records: list[Record]) -> float:
    """Return the score after the last round, so that more is better."""
    key = _key(score, records)
    assert key is not None, "runs without the score are refused before"
    return goodness(key, records[-1][key])


def _best_runs(runs: dict[Cell, list[Record]], score: str) -> list[Cell]:
    """Return for each method the run whose learning rate served it best, the best method first."""
    best: dict[str, Cell] = {}
    for cell in sorted(runs, key=lambda cell: _goodness(score, runs[cell]), reverse=True):
        best.setdefault(cell.method, cell)
    return list(best.values())


def _results(runs: dict[Cell, list[Record]], best: list[Cell], score: str) -> list[Result]:
    """Return a line for each method and one for the untrained model, the best first."""
    lines = [
        (summarize(cell.method, runs[cell], cell.run.config.local.lr), _goodness(score, runs[cell])) for cell in best
    ]
    for records in runs.values():
        if not any(key.startswith("init/") for key in records[0]):  # no adapter has changed the model yet
            lines.append((summarize("zero-shot", records[:1], None), _goodness(score, records[:1])))
            break
    return [result for result, _ in sorted(lines, key=lambda line: line[1], reverse=True)]


def _draw(runs: dict[str, list[Record]], score: str, path: Path, title: str) -> None:
    from fedlit.lab.analysis.comparison_plot import plot_comparison  # noqa: PLC0415  matplotlib takes a second to import

    plot_comparison(runs, score, path, title)
