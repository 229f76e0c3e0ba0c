"""Every cell of a sweep and how its run stands."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from fedlit.config import Cell, RunConfig, Sweep, load_config
from fedlit.config.keys import REPEATS
from fedlit.errors import UserError
from fedlit.lab.sweeps.placing import Other, Placed, placed
from fedlit.store.status import RunStatus, read_status

STALE = "stale"
"""State of a cell under whose name is a run of another configuration, and none of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellRun:
    """One cell: its place in the sweep from 0, which is its index in a SLURM array, and how its run stands.

    name: the cell's, where its folder has a checksum behind it; else empty. others: runs of other settings under it.
    """

    index: int
    cell: Cell
    status: RunStatus
    name: str = ""
    others: tuple[Other, ...] = ()


def cell_runs(sweep: Sweep, overrides: Sequence[str] = (), jobs: Mapping[str, str] | None = None) -> list[CellRun]:
    """Return the cells of a sweep in its order, with the status of each run folder.

    A run of other settings is not a cell's: one without a run of its own and with such a one is `stale`. One that is
    done and is given more rounds is `stopped`.

    jobs: states of the user's SLURM jobs by id, to know at once of runs that were killed on other hosts.
    """
    living = None if jobs is None else {job for job, state in jobs.items() if state != "PENDING"}
    return [
        CellRun(index=index, cell=entry.cell, status=_status(entry, living), name=entry.name, others=entry.others)
        for index, entry in enumerate(placed(sweep.cells(overrides)))
    ]


def _status(entry: Placed, living: Collection[str] | None) -> RunStatus:
    status = read_status(entry.cell.folder, living)
    if entry.others and (status.state == "pending" or entry.cell.folder in {other.folder for other in entry.others}):
        return RunStatus(state=STALE, reason=entry.others[0].why)
    if status.state == "done" and not (entry.cell.folder / "config.yaml").is_file():
        return RunStatus(state=STALE, reason=f"{entry.cell.folder} has no config.yaml")
    if status.state != "done" or entry.num_rounds is None:
        return status
    return replace(status, state="stopped", reason=f"done with num_rounds={entry.num_rounds}, and now given more")


def load_cell(index: int, cell: Cell) -> RunConfig:
    """Return a cell's configuration; raises UserError that names the cell."""
    try:
        return load_config(cell.arguments)
    except UserError as error:
        raise UserError(f"cell {index}, {cell.name}: {error}") from None


def check_cells(cells: Sequence[Cell]) -> None:
    """Raise UserError for the first cell whose configuration is a mistake.

    A cell that is another one with a seed, or a draw, of its own is not looked at again.
    """
    seen = set()
    for index, cell in enumerate(cells):
        others = tuple(word for word in cell.arguments if word.partition("=")[0] not in (*REPEATS, "run.name"))
        if others not in seen:
            load_cell(index, cell)
            seen.add(others)
