"""Cells of a sweep that a user names on a command line, by number or by name."""

import re
from collections.abc import Sequence

from fedlit.config import Sweep
from fedlit.config.grid import values_by_key
from fedlit.config.keys import nearest
from fedlit.config.loading import split_arguments
from fedlit.errors import UserError
from fedlit.lab.sweeps.cells import CellRun
from fedlit.lab.sweeps.numbers import numbers
from fedlit.lab.sweeps.records import remembered


def names_of(run: CellRun) -> tuple[str, ...]:
    """Return the names of a cell and of all its run folders, those of runs of other settings among them."""
    return tuple(
        dict.fromkeys((run.name or run.cell.name, run.cell.name, *(other.folder.name for other in run.others)))
    )


def named_cells(words: Sequence[str], runs: Sequence[CellRun]) -> tuple[set[int], set[str]]:
    """Return the numbers of cells, and the names of run folders, that words of a command line give: `0-3,7`, or a name.

    Raises:
        UserError: what is neither.
    """
    found: set[int] = set()
    names: set[str] = set()
    known = {name: None for run in runs for name in names_of(run)}
    for word in words:
        if word in known:
            names.add(word)
        elif re.fullmatch(r"[0-9,-]+", word):
            found.update(numbers(word, len(runs), told=""))
        else:
            raise UserError(
                f"{word:.60} is no cell of this sweep{nearest(word, known)} Give its number, 0 to {len(runs) - 1}, "
                "or its name, as 'fedlit sweep status' shows them"
            )
    return found, names


def arguments_of_runs(sweep: Sweep, overrides: Sequence[str], *, as_in_file: bool) -> tuple[str, ...]:
    """Return the arguments with which runs are compared with their cells: those of the last start, and what picks
    cells. Others would make runs stale that nobody has changed.

    Raises:
        UserError: an argument for a key that no axis has.
    """
    axes = values_by_key([*sweep.grids, *sweep.extra])
    given = split_arguments(overrides)
    for key in given.keys() - axes.keys() - {"run.dir"}:
        raise UserError(
            f"{key}={given[key]} picks no cell: {sweep.origin} has no such axis, and runs are compared with the sweep "
            "as it was last started; leave it out"
        )
    places = [word for word in overrides if word.startswith("run.dir=")]
    kept = () if as_in_file else remembered(sweep, places)
    return tuple(word for word in kept if word.partition("=")[0] not in given)
