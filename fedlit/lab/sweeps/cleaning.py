"""Run folders of a sweep that are to be removed: which, and how, so that a crash leaves none that looks whole.

A run folder is removed only if it lies in the sweep's own folder under a cell's name, is no link, holds config.yaml,
and nobody is at work in it. It is moved aside under its lock, and what is in it is removed then.
"""

import os
import shutil
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlit.errors import UserError
from fedlit.lab.sweeps.cells import STALE, CellRun
from fedlit.lab.sweeps.queue import BUSY
from fedlit.lab.sweeps.tables import FAILURES
from fedlit.store.lock import holder, take_lock

TRASH = ".removed"
"""Folder in the sweep's own that holds what is being removed; nobody looks for runs in it."""

FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftover:
    """A run folder of a sweep.

    kind: `stale`, `failed` for whatever ended badly, else its state. why: in words. cell: number of its cell. kept: why
    it cannot be removed; empty if it can. size_bytes: of its files.
    """

    folder: Path
    cell: int
    kind: str
    why: str
    kept: str
    size_bytes: int


def leftovers(runs: Sequence[CellRun], living_jobs: Collection[str] | None = None) -> list[Leftover]:
    """Return all run folders that lie under the names of cells, in the order of the cells.

    living_jobs: as for `fedlit.store.status.read_status`.
    """
    found: dict[Path, Leftover] = {}
    for run in runs:
        for other in run.others:
            kept = _why_kept(other.folder, STALE, living_jobs)
            found[other.folder] = _leftover(other.folder, run.index, STALE, other.why, kept)
        folder, state = run.cell.folder, run.status.state
        if folder not in found and (folder.is_dir() or folder.is_symlink()):
            kind = FAILED if state in FAILURES else state
            why = state.replace("_", " ") if kind == FAILED else ""
            why = ": ".join(part for part in (why, run.status.reason) if part)
            found[folder] = _leftover(folder, run.index, kind, why, _why_kept(folder, state, living_jobs))
    return list(found.values())


def remove(folder: Path) -> None:
    """Remove a run folder, as a whole for whoever looks for runs.

    Raises:
        UserError: somebody has begun to work in it, or it cannot be written.
    """
    if kept := _why_kept(folder, STALE, None):
        raise UserError(f"{folder} {kept}")
    lock = take_lock(folder)
    try:
        trash = _trash(folder.parent)
        trash.mkdir(exist_ok=True)
        aside = trash / f"{folder.name}-{uuid.uuid4().hex[:8]}"
        folder.rename(aside)
    except OSError as error:
        raise UserError(f"{folder} cannot be removed ({error.strerror})") from error
    finally:
        lock.release()
    empty_trash(folder.parent)


def empty_trash(parent: Path) -> None:
    """Remove what was moved aside, now or before a crash; what cannot be removed stays there."""
    trash = _trash(parent)
    if trash.is_dir():
        shutil.rmtree(trash, ignore_errors=True)  # it removes links, and never follows them


def _trash(parent: Path) -> Path:
    trash = parent / TRASH
    if trash.is_symlink() or (trash.exists() and not trash.is_dir()):
        raise UserError(f"{trash} is no folder; move it away")
    return trash


def _why_kept(folder: Path, state: str, living_jobs: Collection[str] | None) -> str:
    if folder.is_symlink():
        return "is a link to elsewhere; left as it is"
    if not (folder / "config.yaml").is_file() or (folder / "config.yaml").is_symlink():
        return "is no run folder (no config.yaml); left as it is"
    if (found := holder(folder, living_jobs)) is not None:
        return f"is in use (host {found.host}, process {found.pid}); end that run with 'fedlit sweep cancel'"
    if state in BUSY - {"done"}:
        return f"is {state}; take it out of the queue with 'fedlit sweep cancel'"
    return ""


def _leftover(folder: Path, cell: int, kind: str, why: str, kept: str) -> Leftover:
    return Leftover(
        folder=folder, cell=cell, kind=kind, why=why, kept=kept, size_bytes=0 if kept else _size_bytes(folder)
    )


def _size_bytes(folder: Path) -> int:
    """Return the length of all files below a folder, none of those that links lead to."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_size
            except OSError:  # gone since
                continue
    return total
