"""`fedlit sweep run`: all cells on this machine, one in this process, or those of one element of an array."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedlit.commands.endings import TIMED_OUT_EXIT_CODE, run_federation, tell
from fedlit.config import Cell, Sweep, load_sweep
from fedlit.config.loading import split_arguments
from fedlit.errors import UserError
from fedlit.lines import printable
from fedlit.process.interrupt import STOPPED_EXIT_CODE, StopRequest

if TYPE_CHECKING:
    from fedlit.lab.sweeps.cells import CellRun
    from fedlit.lab.sweeps.placing import Placed


def run_command(options: argparse.Namespace) -> int:
    """Run one cell in this process, or all in processes of their own."""
    if options.local:
        return run_local(options)
    if options.cells is not None or options.cells_per_task > 1:
        return run_task(options)
    if options.jobs != 1 or options.devices != 1:
        raise UserError(
            "--jobs and --devices belong to --local; processes of one cell: fabric run --devices=N, or srun"
        )
    stop = StopRequest()
    stop.install()
    sweep = load_sweep(options.sweep)
    from fedlit.lab.sweeps.placing import place  # noqa: PLC0415  after the signals are heard

    cell = place(pick(sweep.cells(options.overrides), options.index, sweep))
    return STOPPED_EXIT_CODE if stop.reason else run_federation(cell.arguments)


def run_local(options: argparse.Namespace) -> int:
    """Run the cells on this machine."""
    from fedlit.lab.sweeps.cancelling import Cancelled  # noqa: PLC0415
    from fedlit.lab.sweeps.local import EARLY, device_masks, local_runs, run_locally, visible_gpus  # noqa: PLC0415
    from fedlit.lab.sweeps.placing import placed  # noqa: PLC0415
    from fedlit.lab.sweeps.records import remember  # noqa: PLC0415
    from fedlit.lab.sweeps.tables import counts, number_of  # noqa: PLC0415

    if options.cells is not None or options.cells_per_task > 1:
        raise UserError("--cells and --cells-per-task belong to --index; cells of --local are picked by seed=0")
    sweep = load_sweep(options.sweep)
    overrides = arguments_of(sweep, options)
    if devices := split_arguments(overrides).get("compute.devices"):
        raise UserError(f"compute.devices={devices} (command line) is --devices={devices} here; give that")
    cells = placed(sweep.cells(overrides))
    runs = local_runs([entry.cell for entry in cells])
    if any(run.config.dry_run for run in runs):
        raise UserError(
            "dry_run=true prints the sizes of one run; leave it out, or run what "
            "fedlit sweep show <SWEEP> <INDEX> prints"
        )
    tell_others(cells)
    on_cpu = all(run.config.compute.accelerator == "cpu" for run in runs)
    masks = device_masks(options.jobs, options.devices, [] if on_cpu else visible_gpus(os.environ))
    remember(sweep, overrides)
    outcomes = run_locally(
        runs,
        masks,
        options.devices,
        lambda line: print(printable(line), flush=True),
        warm=not options.cold,
        cancelled=Cancelled(sweep.folder(overrides)),
    )
    states = [outcome.state for outcome in outcomes]
    print(f"{number_of(runs)}: {counts(states)}")
    early = not EARLY.isdisjoint(states)
    if early:
        print("the same command goes on where they stopped")
    print(sweep.folder(overrides))
    return STOPPED_EXIT_CODE if early else int("failed" in states)


def run_task(options: argparse.Namespace) -> int:
    """Run the cells of one element of an array, one after the other."""
    from fedlit.lab.sweeps.in_job import require_one_task, run_in_job  # noqa: PLC0415
    from fedlit.lab.sweeps.local import EARLY, local_runs  # noqa: PLC0415
    from fedlit.lab.sweeps.numbers import numbers  # noqa: PLC0415
    from fedlit.lab.sweeps.placing import placed  # noqa: PLC0415
    from fedlit.lab.sweeps.tables import counts, number_of  # noqa: PLC0415

    size = options.cells_per_task
    require_one_task(size)
    sweep = load_sweep(options.sweep)
    cells = sweep.cells(options.overrides)
    chosen = range(len(cells)) if options.cells is None else numbers(options.cells, len(cells))
    if not 0 <= options.index < -(-len(chosen) // size):
        raise UserError(
            f"there is no task {options.index}: {len(chosen)} cells make {-(-len(chosen) // size)} tasks of {size}; "
            f"give 0 to {-(-len(chosen) // size) - 1}"
        )
    entries = placed([cells[place] for place in chosen[options.index * size : (options.index + 1) * size]])
    tell_others(entries)
    runs, refused = [], 0
    for entry in entries:
        try:
            runs += local_runs([entry.cell])
        except UserError as error:  # the others are none the worse for it
            tell(f"error: {error}")
            refused += 1
    outcomes = run_in_job(runs, lambda line: print(printable(line), flush=True), warm=not options.cold)
    states = [*(outcome.state for outcome in outcomes), *["failed"] * refused]
    print(f"{number_of(entries)}: {counts(states)}")
    if "timed_out" in states:
        return TIMED_OUT_EXIT_CODE
    return STOPPED_EXIT_CODE if not EARLY.isdisjoint(states) else int("failed" in states)


def tell_others(cells: "Sequence[CellRun | Placed]") -> None:
    """Tell of runs under the cells' names that are not theirs."""
    from fedlit.lab.sweeps.placing import told  # noqa: PLC0415

    for line in told(cells):
        tell(line)


def arguments_of(sweep: Sweep, options: argparse.Namespace) -> list[str]:
    """Return the key=value arguments of a command, those of the last start where it has none."""
    from fedlit.lab.sweeps.records import remembered  # noqa: PLC0415

    kept = () if options.as_in_file else remembered(sweep, options.overrides)
    tell_arguments(sweep, options.overrides, kept)
    return [*kept, *options.overrides]


def tell_arguments(sweep: Sweep, overrides: Sequence[str], kept: Sequence[str]) -> None:
    """Tell of arguments that nobody gave, if there are any."""
    from fedlit.lab.sweeps.records import arguments_path  # noqa: PLC0415

    if kept:
        path = arguments_path(sweep, overrides)
        print(f"with the arguments in {path}: {shlex.join(kept)}", file=sys.stderr)


def pick(cells: Sequence[Cell], index: int, sweep: Sweep) -> Cell:
    """Return the cell with this number."""
    if not 0 <= index < len(cells):
        raise UserError(f"there is no cell {index}: {sweep.origin} has {len(cells)} here; give 0 to {len(cells) - 1}")
    return cells[index]
