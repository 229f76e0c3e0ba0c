"""`fedlit sweep cancel` and `clean`: end runs of a sweep, remove run folders; both list what they mean, and ask."""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedlit.arguments import CommandParser
from fedlit.commands.sweep_run import tell_arguments
from fedlit.config import load_sweep
from fedlit.config.loading import split_arguments
from fedlit.errors import UserError
from fedlit.lines import printable
from fedlit.process import slurm
from fedlit.units import readable_bytes

if TYPE_CHECKING:
    from fedlit.config import Sweep
    from fedlit.lab.sweeps.cells import CellRun
    from fedlit.lab.sweeps.cleaning import Leftover


def add_ends(add: Callable[[str, Callable[[argparse.Namespace], int], str, str], CommandParser]) -> None:
    """Add both commands to those of `fedlit sweep`."""
    cancel = add(
        "cancel",
        cancel_command,
        "end what runs or waits: this sweep's jobs in SLURM's queue, and its runs on this machine, which save first",
        "cancel demo seed=1",
    )
    clean = add(
        "clean",
        clean_command,
        "remove run folders: those that are stale or failed, or those that are named; it lists them and asks",
        "clean demo --stale --dry-run",
    )
    for each in (cancel, clean):
        each.add_argument(
            "cells", metavar="CELL", nargs="*", help="numbers of cells, such as 0-3,7, or names of run folders"
        )
        each.add_argument("--yes", action="store_true", help="do not ask")
    clean.add_argument("--stale", action="store_true", help="runs of another configuration than their cell's")
    clean.add_argument("--failed", action="store_true", help="runs that failed, diverged, were killed or timed out")
    clean.add_argument("--all", action="store_true", help="every run folder, those that are done too")
    clean.add_argument("--dry-run", action="store_true", help="list them only")


def cancel_command(options: argparse.Namespace) -> int:
    """End what runs or waits."""
    _require_answer(options, "ends runs")
    from fedlit.lab.sweeps.cancelling import elements, running, scancel, stop, write_down  # noqa: PLC0415  as for sweep
    from fedlit.lab.sweeps.chosen import named_cells, names_of  # noqa: PLC0415
    from fedlit.lab.sweeps.records import read_submissions  # noqa: PLC0415

    sweep, arguments, runs, jobs = _runs(options)
    indices, names = named_cells(options.cells, runs)
    chosen = [run for run in runs if run.index in indices or names & {*names_of(run)}] if options.cells else runs
    whole = not options.cells and not split_arguments(options.overrides).keys() - {"run.dir"}
    waiting = elements(chosen, read_submissions(sweep, arguments), jobs, whole=whole)
    at_work = running(chosen, jobs, waiting)
    for element in waiting:
        print(printable(f"job {element.job}, {element.state}: {', '.join(element.cells)}"))
    for run in at_work:
        print(printable(f"{run.folder} {run.out_of_reach or f'process {run.holder.pid} on this machine'}"))
    local = [run for run in at_work if not run.out_of_reach]
    folder = sweep.folder(arguments)
    if not waiting and not local and not folder.is_dir():
        print("nothing to cancel")
        return int(bool(at_work))
    what = f"cancel {_number(len(waiting), 'job')} and {_number(len(local), 'run')} of this machine?"
    if (waiting or local) and not options.yes and not _agreed(what):
        print("nothing is cancelled")
        return 1
    # First of all, or 'sweep run --local' would begin the next cell when one has ended.
    write_down(folder, None if whole else {name for run in chosen for name in names_of(run)})
    scancel(waiting)
    stopped = [run for run in local if stop(run)]
    if not waiting and not stopped:
        print("nothing to cancel: no job of this sweep is in the queue, and no run is at work on this machine")
    if waiting:
        print(f"{_number(len(waiting), 'job')} cancelled")
    if stopped:
        print(f"{_number(len(stopped), 'run')} of this machine going to stop; finished rounds are saved")
    return int(len(local) < len(at_work))


def clean_command(options: argparse.Namespace) -> int:
    """Remove run folders."""
    if not options.dry_run:
        _require_answer(options, "removes run folders")
    if options.all and (options.stale or options.failed):
        raise UserError("--all is every run folder; leave --stale and --failed out, or --all")
    from fedlit.lab.sweeps.cleaning import empty_trash, leftovers, remove  # noqa: PLC0415  as for sweep

    sweep, arguments, runs, jobs = _runs(options)
    living = None if jobs is None else {job for job, state in jobs.items() if state != "PENDING"}
    found = _chosen(options, runs, leftovers(runs, living))
    for kept in [each for each in found if each.kept]:
        print(printable(f"left: {kept.folder} {kept.kept}"))
    going = [each for each in found if not each.kept]
    if not options.dry_run:
        empty_trash(sweep.folder(arguments))
    if not going:
        print("nothing to remove")
        return 0
    for each in going:
        print(printable(_line(each)))
    total = _size(sum(each.size_bytes for each in going))
    if options.dry_run:
        print(f"{_number(len(going), 'run folder')}, {total}: nothing is removed (--dry-run)")
        return 0
    if not options.yes and not _agreed(f"remove {_number(len(going), 'run folder')} ({total})?"):
        print("nothing is removed")
        return 1
    for each in going:
        remove(each.folder)
    print(f"{_number(len(going), 'run folder')} removed, {total}")
    return 0


def _runs(
    options: argparse.Namespace,
) -> "tuple[Sweep, tuple[str, ...], list[CellRun], dict[str, str] | None]":
    """Return the sweep, its arguments, the cells that are picked and the user's jobs."""
    from fedlit.lab.sweeps.cells import cell_runs  # noqa: PLC0415
    from fedlit.lab.sweeps.chosen import arguments_of_runs  # noqa: PLC0415
    from fedlit.lab.sweeps.queue import with_queue  # noqa: PLC0415
    from fedlit.lab.sweeps.records import read_submissions  # noqa: PLC0415

    sweep = load_sweep(options.sweep)
    kept = arguments_of_runs(sweep, options.overrides, as_in_file=options.as_in_file)
    tell_arguments(sweep, options.overrides, kept)
    arguments = (*kept, *options.overrides)
    jobs = slurm.jobs_in_queue()
    runs = cell_runs(sweep, arguments, jobs)
    return sweep, arguments, with_queue(runs, read_submissions(sweep, arguments), jobs), jobs


def _chosen(options: argparse.Namespace, runs: "list[CellRun]", found: "list[Leftover]") -> "list[Leftover]":
    """Return the run folders that are meant: of a kind, or named, or those that are stale or failed."""
    from fedlit.lab.sweeps.chosen import named_cells  # noqa: PLC0415

    kinds = {name for name in ("stale", "failed") if getattr(options, name)}
    if options.cells:
        indices, names = named_cells(options.cells, runs)
        found = [each for each in found if each.cell in indices or each.folder.name in names]
        return [each for each in found if each.kind in kinds] if kinds else found
    return found if options.all else [each for each in found if each.kind in (kinds or {"stale", "failed"})]


def _require_answer(options: argparse.Namespace, what: str) -> None:
    if not options.yes and not (sys.stdin is not None and sys.stdin.isatty()):
        more = ", or --dry-run to see which" if hasattr(options, "dry_run") else ""
        raise UserError(f"it {what} and asks before, and there is no terminal to ask on; give --yes{more}")


def _agreed(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _line(each: "Leftover") -> str:
    why = f" ({each.why})" if each.why else ""
    return f"{each.folder}: {each.kind}{why}, {_size(each.size_bytes)}"


def _size(num_bytes: int) -> str:
    return readable_bytes(num_bytes)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
