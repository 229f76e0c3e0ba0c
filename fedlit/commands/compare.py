"""Every method side by side on one data set and model: a table in Markdown and a picture of one score per round.

The key=value arguments are those of 'fedlit run' and hold for every run. A run that is there already is taken up, so
the same command goes on after an interruption. With a validation set (partition.validation_fraction=0.1,
data.validation_path=) rounds and learning rates are chosen by their --score on it, and the table has the test scores of
the chosen round. Without one the last round is shown, and several --lrs need eval.choose_on=test: every method then has
the rate with the best --score on the test set itself, which the table marks.
"""

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedlit.arguments import CommandParser, positive, require_file, writing
from fedlit.commands.endings import tell, without_traceback
from fedlit.config import CONFIG_DIR, load_config, run_folder
from fedlit.config.choosing import has_validation, require_rates_founded
from fedlit.config.keys import nearest
from fedlit.config.places import is_file_name, list_choices
from fedlit.config.record import flat_values
from fedlit.errors import UserError
from fedlit.lab.analysis.comparison import Result, markdown, summarize
from fedlit.lab.sweeps.local import EARLY, LocalRun, device_masks, run_locally, visible_gpus
from fedlit.lab.sweeps.placing import other_settings
from fedlit.process.interrupt import STOPPED_EXIT_CODE
from fedlit.process.storage import user_path, write_atomically
from fedlit.scores import CHOSEN_ON_TEST, SCORES, choice_key, chosen_mark, chosen_scores, goodness
from fedlit.store.environment import read_version
from fedlit.store.records import Record, best_record, read_records, trained

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
    cells = [_cell(method, lr, options.score, options.overrides) for method in methods for lr in lrs]
    _require_distinct(cells)
    _require_free(cells)
    _require_scored(cells, options.score)  # the scores of plugins are known by now
    if len(lrs) > 1:
        for cell in cells:
            require_rates_founded(flat_values(cell.run.config))
    gpus = [] if all(cell.run.config.compute.accelerator == "cpu" for cell in cells) else visible_gpus(os.environ)
    masks = device_masks(options.jobs, options.devices, gpus)
    outcomes = run_locally([cell.run for cell in cells], masks, options.devices, tell, warm=not options.cold)
    states = [outcome.state for outcome in outcomes]
    if not EARLY.isdisjoint(states):
        tell("the same command goes on where they stopped")
        return STOPPED_EXIT_CODE
    runs = {cell: read_records(cell.run.folder) for cell, state in zip(cells, states, strict=True) if state == "done"}
    for cell, records in runs.items():
        _require_shown(cell, records, options.score, chooses=len(lrs) > 1)
    if runs:
        _show(runs, options)
    return int(set(states) != {"done"})


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One run: a method at a learning rate."""

    method: str
    run: LocalRun


def _cell(method: str, lr: str | None, score: str, overrides: list[str]) -> Cell:
    """Return a run whose folder has the learning rate in its name where several are compared. With a validation set its
    rounds are chosen by --score, unless eval.score says otherwise: in other rounds the test set need not be scored.
    """
    called = Path(method).name if is_file_name(method) else method.replace("/", "-")
    name = f"{called}-{lr}" if lr else called
    arguments = [f"method={method}", *overrides, *([f"local.lr={lr}"] if lr else []), f"run.name={name}"]
    config = load_config(arguments)
    if config.eval.score is None and config.eval.choose_on == "validation" and has_validation(flat_values(config)):
        arguments.append(f"eval.score={score}")
        config = load_config(arguments)
    return Cell(method, LocalRun(name=name, arguments=tuple(arguments), config=config, folder=run_folder(config)))


def _require_free(cells: list[Cell]) -> None:
    """Refuse folders with runs of other settings: those are called after method and rate alone."""
    for cell in cells:
        if (cell.run.folder / "config.yaml").is_file() and (
            changes := other_settings(cell.run.folder, cell.run.config)
        ):
            raise UserError(
                f"{cell.run.folder} holds a run of other settings ({next(iter(changes.values()))}); give "
                "run.dir=<another folder>, or move it away"
            )


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


def _require_shown(cell: Cell, records: list[Record], score: str, *, chooses: bool) -> None:
    """Refuse a run without the score, and a choice among rates on a test set that nobody asked for."""
    if _key(score, _shown(cell, records)) is None:
        raise UserError(f"--score={score}: the record of {cell.run.name} has no such score")
    if chooses and cell.run.config.eval.choose_on != "test" and _chooser(cell, records) is None:
        raise UserError(
            f"--lrs: a rate is chosen, and {cell.run.name} has no validation set; give eval.choose_on=test, which "
            "flatters"
        )


def _show(runs: dict[Cell, list[Record]], options: argparse.Namespace) -> None:
    """Print the table and write what the options ask for."""
    best = _best_runs(runs, options.score)
    config = best[0].run.config
    table = markdown(_results(runs, best, options.score), ("loss", *chosen_scores(config.data)))
    print(table)
    chosen = dict.fromkeys(key for cell in runs if (key := _chooser(cell, runs[cell])))
    if chosen and len(runs) > len(best):
        tell(f"each method at the learning rate and the round of its best {' or '.join(chosen)}")
    if options.output:
        with writing(options.output, "--output"):
            write_atomically(options.output, table)
        tell(str(options.output))
    if options.picture:
        title = f"{config.data.name}, {config.model.name}, {config.num_clients} clients"
        with writing(options.picture, "--picture"):
            _draw({cell.method: runs[cell] for cell in best}, options.score, options.picture, title)
        tell(str(options.picture))


def _chooser(cell: Cell, records: list[Record]) -> str | None:
    """Return the key by which a run's round is chosen on its validation set; None if it has none, or is not to."""
    config, recorded = cell.run.config, {key for record in trained(records) for key in record}
    key = choice_key(config.data, config.eval, recorded)
    return key if key is not None and not chosen_mark(key) else None


def _shown(cell: Cell, records: list[Record]) -> Record:
    """Return the record of the round that a run is shown by: the one that its validation set chose, or the last."""
    key = _chooser(cell, records)
    return (best_record(records, key) if key else None) or records[-1]


def _key(score: str, record: Record) -> str | None:
    """Return where a record has the score: on the global test set, or the mean over clients on their own."""
    return next((key for key in (f"global/{score}", f"own/{score}") if key in record), None)


def _goodness(score: str, record: Record, *, on_validation: bool = False) -> float:
    """Return the score of a record, on the validation set or on the test set, so that more is better."""
    key = f"validation/{score}" if on_validation else _key(score, record)
    assert key is not None, "runs without the score are refused before"
    return goodness(key, record.get(key))


def _best_runs(runs: dict[Cell, list[Record]], score: str) -> list[Cell]:
    """Return for each method the run whose learning rate served it best, the best method first."""
    best: dict[str, Cell] = {}

    def rank(cell: Cell) -> float:
        records = runs[cell]
        return _goodness(score, _shown(cell, records), on_validation=_chooser(cell, records) is not None)

    for cell in sorted(runs, key=rank, reverse=True):
        best.setdefault(cell.method, cell)
    return list(best.values())


def _results(runs: dict[Cell, list[Record]], best: list[Cell], score: str) -> list[Result]:
    """Return a line for each method and one for the untrained model, the best first."""
    num_rates = Counter(cell.method for cell in runs)
    lines = []
    for cell in best:
        records, shown = runs[cell], _shown(cell, runs[cell])
        by_validation = _chooser(cell, records) is not None
        result = summarize(cell.method, records, cell.run.config.local.lr, shown=shown)
        on_test = num_rates[cell.method] > 1 and not by_validation
        number = shown["round"] if by_validation else None
        mark = CHOSEN_ON_TEST if on_test else ""
        result = replace(result, chosen_round=number, mark=mark, version=read_version(cell.run.folder))
        lines.append((result, _goodness(score, shown)))
    for cell, records in runs.items():
        if not any(key.startswith("init/") for key in records[0]):  # no adapter has changed the model yet
            untrained = replace(summarize("zero-shot", records[:1], None), version=read_version(cell.run.folder))
            lines.append((untrained, _goodness(score, records[0])))
            break
    return [result for result, _ in sorted(lines, key=lambda line: line[1], reverse=True)]


def _draw(runs: dict[str, list[Record]], score: str, path: Path, title: str) -> None:
    from fedlit.lab.analysis.comparison_plot import plot_comparison  # noqa: PLC0415  matplotlib takes a second to import

    plot_comparison(runs, score, path, title)
