"""Every cell of a sweep and how its run stands."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedlit.config import Cell, Sweep
from fedlit.run_status import RunStatus, read_status


@dataclass(frozen=True, kw_only=True, slots=True)
class CellRun:
    """One cell: its place in the sweep from 0, which is its index in a SLURM array, and how its run stands."""

    index: int
    cell: Cell
    status: RunStatus


def cell_runs(sweep: Sweep, overrides: Sequence[str] = ()) -> list[CellRun]:
    """Return the cells of a sweep in its order, with the status of each run folder."""
    return [
        CellRun(index=index, cell=cell, status=read_status(cell.folder))
        for index, cell in enumerate(sweep.cells(overrides))
    ]
