"""What was asked of a sweep, beside its runs: the arguments it was started with, and the jobs handed to SLURM.

`sweep.json` holds the arguments of the last start, so that `status` and `submit --only-unfinished` need not be given
them again; `submissions.jsonl` has a line for each array.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fedlit.config import Sweep
from fedlit.config.loading import split_arguments
from fedlit.errors import UserError
from fedlit.process.storage import write_atomically


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One SLURM array.

    job: its id. submitted_s: seconds since the epoch. indices: the places of its cells under `overrides`. cells: their
    names, in this order. log: where their consoles go, `%A` and `%a` standing for job and element. cells_per_task:
    cells of one element; of one, the element has the cell's place as its number, of several their numbers are 0, 1, ...
    """

    job: str
    submitted_s: float
    indices: tuple[int, ...]
    cells: tuple[str, ...]
    overrides: tuple[str, ...]
    log: str | None = None
    cells_per_task: int = 1

    def element(self, cell: str) -> str | None:
        """Return the id of the element that runs a cell, `7_2`, None if none does."""
        return f"{self.job}_{self._number(cell)}" if cell in self.cells else None

    def log_of(self, cell: str) -> str | None:
        """Return the file with a cell's console; None if nobody knows."""
        if cell not in self.cells or self.log is None:
            return None
        return self.log.replace("%A", self.job).replace("%a", str(self._number(cell)))

    def _number(self, cell: str) -> int:
        place = self.cells.index(cell)
        return self.indices[place] if self.cells_per_task == 1 else place // self.cells_per_task


def arguments_path(sweep: Sweep, overrides: Sequence[str] = ()) -> Path:
    """Return the file that remembers a sweep's arguments."""
    return sweep.folder(overrides) / "sweep.json"


def remember(sweep: Sweep, overrides: Sequence[str]) -> None:
    """Keep the arguments with which a sweep is started."""
    path = arguments_path(sweep, overrides)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"sweep": sweep.name, "overrides": list(overrides)}
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def remembered(sweep: Sweep, overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the arguments with which a sweep was last started, where a user gives none of his own.

    `run.dir` alone says where they are kept. Empty if nothing was started, and if `overrides` has arguments.

    Raises:
        UserError: a file that cannot be read.
    """
    path = arguments_path(sweep, overrides)
    if split_arguments(overrides).keys() - {"run.dir"} or not path.is_file():
        return ()
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["overrides"]
        given = split_arguments(overrides)
        return tuple(str(argument) for argument in kept if argument.partition("=")[0] not in given)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} does not hold the arguments of a sweep; give them, or remove the file") from None


def add_submission(sweep: Sweep, submission: Submission) -> Path:
    """Write down an array and return the file."""
    path = sweep.folder(submission.overrides) / "submissions.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(submission)) + "\n")
    return path


def read_submissions(sweep: Sweep, overrides: Sequence[str] = ()) -> list[Submission]:
    """Return the arrays of a sweep, the oldest first; a line that was cut off or damaged is left out."""
    path = sweep.folder(overrides) / "submissions.jsonl"
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            content = json.loads(line)
            lists = {name: tuple(content[name]) for name in ("indices", "cells", "overrides")}
            found.append(Submission(**{**content, **lists}))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return found
