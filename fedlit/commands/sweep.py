"""The cells of a sweep, each one run: list them, run them on this machine or as a SLURM array, see how they stand, end
them and clean up.

SWEEP is the name of a file in configs/sweep, or in sweep/ of a folder of your own, or the path of a YAML file;
configs/README.md tells what is in it. After it stand key=value arguments: for the key of an axis they pick cells
(seed=0, seed=[0,1]), any other goes to every cell.
"""

import argparse
import shlex
import time
from collections.abc import Callable, Sequence

from fedlit.arguments import CommandParser, integer, positive, require_words, writing
from fedlit.commands.endings import is_first_process, without_traceback
from fedlit.commands.sweep_end import add_ends
from fedlit.commands.sweep_run import arguments_of, pick, run_command, tell_others
from fedlit.config import load_sweep
from fedlit.config.keys import nearest
from fedlit.config.places import config_dir_words, take_config_dirs
from fedlit.config.sweep import load_sweeps
from fedlit.errors import UserError
from fedlit.process import slurm

EXAMPLES = """\
examples:
  fedlit sweep list
  fedlit sweep show demo 3                  # the command line of one cell
  fedlit sweep run demo --local --jobs 2 seed=0
  fedlit sweep submit scl_table2 --max-parallel 8 --sbatch=--time=12:00:00
  fedlit sweep status scl_table2
  fedlit sweep submit scl_table2 --only-unfinished
  fedlit sweep cancel scl_table2
  fedlit sweep clean scl_table2 --dry-run   # what is stale or failed
"""

REMEMBERED = """\
Without key=value arguments those of the last 'submit' or 'run --local' hold, which runs/SWEEP/sweep.json keeps;
--as-in-file takes the sweep as it stands in its file.
"""


HELD = """\
Runs are compared with their cells under the arguments of the last start; key=value picks cells by the values of axes.
"""

REMEMBERING = ("status", "submit", "run", "cancel", "clean")
"""Commands for which the arguments of the last start hold."""


def main(words: Sequence[str]) -> int:
    """Do what the command line asks for and return the exit code."""

    def act() -> int:
        options = parse(words)
        return int(options.action(options))

    # Of the processes of one cell one speaks.
    return without_traceback(act, speaks="--index" not in words or is_first_process())


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options, the key=value arguments among them wherever they stand."""
    require_words(words)
    words = take_config_dirs(words)
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    others = [word for word in words if word not in overrides]
    parser = CommandParser("sweep", __doc__, EXAMPLES)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    parsers = add_commands(commands)
    if others and not others[0].startswith("-") and others[0] not in parsers:
        raise UserError(
            f"unknown command {others[0]!r}{nearest(others[0], parsers)} Valid commands: {', '.join(parsers)}"
        )
    if others and others[0] in parsers:
        parsers[others[0]].refuse_unknown_options(others)
    if others and others[0] in ("cancel", "clean"):  # their words, of which there may be none, stand before the options
        others.sort(key=lambda word: word.startswith("-"))
    options = parser.parse_args(others)
    options.overrides = overrides
    return options


def add_commands(commands: "argparse._SubParsersAction[CommandParser]") -> dict[str, CommandParser]:
    """Add the commands to the parser and return theirs by name."""

    def add(name: str, action: Callable[[argparse.Namespace], int], text: str, example: str) -> CommandParser:
        description, examples = f"{text[0].upper()}{text[1:]}.", f"example:\n  fedlit sweep {example}\n"
        parser = commands.add_parser(name, help=text, description=description, examples=examples)
        parser.set_defaults(action=action)
        if name not in ("list", "scripts"):
            parser.add_argument(
                "sweep", metavar="SWEEP", help="name of a file in configs/sweep, or path of a YAML file"
            )
        if name in REMEMBERING:
            parser.add_argument("--as-in-file", action="store_true", help="no arguments of the last start")
        parsers[name] = parser
        return parser

    parsers: dict[str, CommandParser] = {}
    add("list", list_command, "all sweeps with the number of their cells", "list")
    add("count", count_command, "the number of cells", "count scl_table2 seed=0")
    show = add("show", show_command, "the cells, or the command line of one", "show demo 3")
    show.add_argument("index", metavar="INDEX", type=integer, nargs="?", help="number of a cell from 0")
    add("status", status_command, "how every cell stands, from the run folders and SLURM's queue", "status demo")
    submit = add(
        "submit",
        submit_command,
        "hand the cells to SLURM as one array, slurm/array.sbatch",
        "submit demo --max-parallel 8 --sbatch=--time=01:00:00",
    )
    submit.add_argument(
        "--only-unfinished", action="store_true", help="leave out what is done, running or in the queue"
    )
    submit.add_argument("--max-parallel", type=positive, metavar="K", help="elements at a time (default: no limit)")
    submit.add_argument(
        "--cells-per-task",
        type=positive,
        default=1,
        metavar="K",
        help="cells of an element, one after the other in one process each (default: 1)",
    )
    submit.add_argument("--dry-run", action="store_true", help="print the command only")
    submit.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="further option of sbatch")
    scripts = "copy the job scripts into ./slurm, where they are yours to edit; nothing is overwritten"
    add("scripts", scripts_command, scripts, "scripts")
    run = add("run", run_command, "run the cells on this machine, or one of them in this process", "run demo --local")
    how = run.add_mutually_exclusive_group(required=True)
    how.add_argument("--local", action="store_true", help="all cells that are not done, on this machine")
    how.add_argument(
        "--index", type=integer, metavar="N", help="this cell, in this process: under srun or 'fabric run' too"
    )
    run.add_argument("--cells", metavar="LIST", help="--index: counts among these cells, such as 0-3,7 (default: all)")
    run.add_argument(
        "--cells-per-task",
        type=positive,
        default=1,
        metavar="K",
        help="--index: the N-th K cells, one after the other, each in a process of its own (default: 1)",
    )
    run.add_argument("--jobs", type=positive, default=1, metavar="K", help="--local: cells at a time (default: 1)")
    run.add_argument(
        "--devices", type=positive, default=1, metavar="N", help="--local: processes of a cell (default: 1)"
    )
    run.add_argument(
        "--cold", action="store_true", help="every cell of several imports everything itself, as with FEDLIT_WARM=0"
    )
    add_ends(add)
    for name in REMEMBERING:
        held = HELD if name in ("cancel", "clean") else REMEMBERED
        parsers[name].description = f"{parsers[name].description}\n{held}"
    return parsers


def list_command(_options: argparse.Namespace) -> int:
    """Print all sweeps."""
    from fedlit.lab.sweeps.tables import sweep_table  # noqa: PLC0415  rich

    show_table(sweep_table(load_sweeps()))
    return 0


def count_command(options: argparse.Namespace) -> int:
    """Print the number of cells."""
    print(len(load_sweep(options.sweep).cells(options.overrides)))
    return 0


def show_command(options: argparse.Namespace) -> int:
    """Print the cells, or one's command line."""
    from fedlit.lab.sweeps.placing import place  # noqa: PLC0415  the other commands need none of it
    from fedlit.lab.sweeps.tables import cell_table  # noqa: PLC0415  rich

    sweep = load_sweep(options.sweep)
    cells = sweep.cells(options.overrides)
    if options.index is None:
        show_table(cell_table(cells))
    else:
        cell = place(pick(cells, options.index, sweep))
        print(shlex.join(["fedlit", "run", *config_dir_words(), *cell.arguments]))
    return 0


def status_command(options: argparse.Namespace) -> int:
    """Print how every cell stands."""
    from fedlit.lab.sweeps.cells import cell_runs  # noqa: PLC0415  the others need none of this
    from fedlit.lab.sweeps.queue import with_queue  # noqa: PLC0415
    from fedlit.lab.sweeps.records import read_submissions  # noqa: PLC0415
    from fedlit.lab.sweeps.tables import FAILURES, counts, number_of, status_table  # noqa: PLC0415

    sweep = load_sweep(options.sweep)
    overrides = arguments_of(sweep, options)
    jobs = slurm.jobs_in_queue()
    runs = with_queue(cell_runs(sweep, overrides, jobs), read_submissions(sweep, overrides), jobs)
    show_table(status_table(runs, time.time()))
    print(f"\n{number_of(runs)}: {counts([run.status.state for run in runs])}")
    tell_others(runs)
    for run in runs:
        if run.status.log and run.status.state in FAILURES:
            print(f"cell {run.index}: {run.status.log}")
    print(sweep.folder(overrides))
    return 0


def submit_command(options: argparse.Namespace) -> int:
    """Submit the cells as one array."""
    from fedlit.lab.sweeps.cells import cell_runs, check_cells  # noqa: PLC0415
    from fedlit.lab.sweeps.queue import BUSY, with_queue  # noqa: PLC0415
    from fedlit.lab.sweeps.records import add_submission, read_submissions, remember  # noqa: PLC0415
    from fedlit.lab.sweeps.submission import Request, require_one_task, require_slurm, submit  # noqa: PLC0415
    from fedlit.lab.sweeps.tables import counts, number_of  # noqa: PLC0415

    if not options.dry_run:
        require_slurm()
    sweep = load_sweep(options.sweep)
    overrides = arguments_of(sweep, options)
    jobs = slurm.jobs_in_queue()
    runs = with_queue(cell_runs(sweep, overrides, jobs), read_submissions(sweep, overrides), jobs)
    busy = [run for run in runs if run.status.state in BUSY]
    at_work = [run for run in busy if run.status.state != "done"]
    chosen = [run for run in runs if run not in busy] if options.only_unfinished else runs
    tell_others(runs)
    check_cells([run.cell for run in chosen])
    if options.only_unfinished and busy:
        print(f"left out: {counts([run.status.state for run in busy])}")
    elif at_work:
        raise UserError(
            f"{counts([run.status.state for run in at_work])} of {len(runs)} cells of {sweep.name} have a job already; "
            "give --only-unfinished, or end those jobs (fedlit sweep cancel)"
        )
    elif busy:
        print(f"{len(busy)} cells are done and will end at once; --only-unfinished leaves them out")
    again = [run.status.state for run in chosen if run.status.state not in ("pending", "done")]
    if again:
        print(f"again: {counts(again)}")
    if not chosen:
        print(f"nothing to submit: no cell of {sweep.name} is unfinished\n{sweep.folder(overrides)}")
        return 0
    request = Request(
        sweep=options.sweep,
        name=sweep.runs_name,
        indices=tuple(run.index for run in chosen),
        cells=tuple(run.cell for run in runs),
        overrides=tuple(overrides),
        max_parallel=options.max_parallel,
        options=tuple(options.sbatch),
        cells_per_task=options.cells_per_task,
    )
    require_one_task(request)
    if options.dry_run:
        print(shlex.join(request.command))
        return 0
    submission = submit(request)
    remember(sweep, overrides)
    path = add_submission(sweep, submission)
    print(f"job {submission.job}: {number_of(chosen)}")
    if submission.log:
        print(f"consoles: {submission.log.replace('%A', submission.job).replace('%a', '*')}")
    status = ["fedlit", "sweep", "status", *config_dir_words(), options.sweep, *run_dir(overrides)]
    print(f"how they stand: {shlex.join(status)}")
    print(path)
    return 0


def scripts_command(_options: argparse.Namespace) -> int:
    """Copy the job scripts."""
    from fedlit.lab.sweeps.scripts import FOLDER, copy_scripts  # noqa: PLC0415

    with writing(FOLDER, "another working folder"):
        written, kept = copy_scripts()
    for path in written:
        print(path)
    for path in kept:
        print(f"{path} is there already, left as it is")
    if written:
        print(f"partition, account and time: the marked block of {FOLDER}/array.sbatch; modules: {FOLDER}/job.sh")
    return 0


def run_dir(overrides: Sequence[str]) -> list[str]:
    """Return the argument that says where the runs are, if there is one."""
    return [word for word in overrides if word.startswith("run.dir=")]


def show_table(table: object) -> None:
    """Print a table, as wide as it is where nobody looks at it on a terminal."""
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000
    console.print(table)
