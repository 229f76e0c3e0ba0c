"""Runs of a sweep that are to be ended: elements of its arrays in SLURM's queue, and runs of this machine.

A run of this machine is whom its folder's lock names, alive and here; it gets SIGTERM and stops at its next step, as
after Ctrl-C. `fedlit sweep run --local`, which would begin the next cell then, reads `cancelled.jsonl` in the sweep's
folder, a line for each time somebody cancelled.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlit.errors import UserError
from fedlit.lab.sweeps.cells import CellRun
from fedlit.lab.sweeps.chosen import names_of
from fedlit.lab.sweeps.records import Submission
from fedlit.store.lock import Holder, holder, this_process

NAME = "cancelled.jsonl"

ANSWER_S = 60
"""Longest wait for scancel."""

_AT_ONCE = 200
"""Elements of one scancel: a command line has an end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Element:
    """An element of an array of this sweep in SLURM's queue: its id, its state there, the names of its cells."""

    job: str
    state: str
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A run that is at work, by the lock of its folder. out_of_reach: why it cannot be ended from here; else empty."""

    folder: Path
    holder: Holder
    out_of_reach: str


def elements(
    runs: Sequence[CellRun], submissions: Sequence[Submission], jobs: Mapping[str, str] | None, *, whole: bool
) -> list[Element]:
    """Return the elements in the queue that run these cells; with `whole` all of the sweep's, of cells too that it has
    no more.

    Raises:
        UserError: an element runs cells that are not among these too.
    """
    wanted = {name for run in runs for name in names_of(run)}
    found: dict[str, tuple[str, ...]] = {}
    for submission in submissions:
        for name in submission.cells:
            element = submission.element(name)
            if element is not None and jobs is not None and element in jobs and (whole or name in wanted):
                found[element] = tuple(cell for cell in submission.cells if submission.element(cell) == element)
    for element, cells in found.items():
        beside = [cell for cell in cells if cell not in wanted]
        if beside and not whole:
            raise UserError(
                f"job {element} runs {len(cells)} cells, {beside[0]} among them, which is not named; name all of its "
                f"cells, or use scancel {element}"
            )
    return [Element(job=job, state=(jobs or {})[job], cells=cells) for job, cells in found.items()]


def running(runs: Sequence[CellRun], jobs: Mapping[str, str] | None, cancelled: Sequence[Element]) -> list[Running]:
    """Return the runs of these cells that are at work outside the elements that are cancelled."""
    living = None if jobs is None else {job for job, state in jobs.items() if state != "PENDING"}
    folders = dict.fromkeys(folder for run in runs for folder in (run.cell.folder, *(o.folder for o in run.others)))
    me, ended = this_process(os.environ), {element.job for element in cancelled}
    found = []
    for folder in folders:
        held_by = holder(folder, living)
        if held_by is None or held_by.job in ended:
            continue
        where = ""
        if held_by.job is not None:
            where = f"is in job {held_by.job}, which this sweep did not submit; use scancel {held_by.job}"
        elif (held_by.host, held_by.machine) != (me.host, me.machine):
            where = f"is at work on host {held_by.host}; cancel it there"
        found.append(Running(folder=folder, holder=held_by, out_of_reach=where))
    return found


def scancel(cancelled: Sequence[Element]) -> None:
    """Take elements out of the queue, and end those that run.

    Raises:
        UserError: what scancel says against it.
    """
    for start in range(0, len(cancelled), _AT_ONCE):
        words = ["scancel", *(element.job for element in cancelled[start : start + _AT_ONCE])]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=ANSWER_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"scancel: {error}; look at squeue before trying again") from None
        if done.returncode != 0:
            raise UserError(f"scancel: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")


def stop(run: Running) -> bool:
    """Ask a run of this machine to stop; False if it has ended meanwhile."""
    held_by = holder(run.folder)
    if held_by is None or held_by.token != run.holder.token:
        return False
    try:
        os.kill(held_by.pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    except PermissionError:
        raise UserError(f"{run.folder} is in use by another user's process {held_by.pid}; ask who runs it") from None
    return True


def write_down(folder: Path, cells: Collection[str] | None) -> None:
    """Write down, in a sweep's folder, that cells are cancelled, all for None: none of them is begun."""
    content = {"at_s": time.time(), "cells": None if cells is None else sorted(cells)}
    with (folder / NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")


class Cancelled:
    """The cells of a sweep that were cancelled since this was made, read again whenever the file changes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._since_s = time.time()
        self._seen: tuple[int, int] | None = None
        self._all = False
        self._cells: set[str] = set()

    def __call__(self, cell: str) -> bool:
        """Tell whether a cell is cancelled."""
        self._read()
        return self._all or cell in self._cells

    def _read(self) -> None:
        try:
            stat = self._path.stat()
            if self._seen == (stat.st_mtime_ns, stat.st_size):
                return
            self._seen = (stat.st_mtime_ns, stat.st_size)
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                content = json.loads(line)
                at_s, cells = float(content["at_s"]), content["cells"]
                later = set() if cells is None else set(map(str, cells))
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            if at_s >= self._since_s:
                self._all = self._all or cells is None
                self._cells |= later
