"""Cells handed to SLURM as one array."""

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from fedlit.config import Cell
from fedlit.config.places import config_dir_words
from fedlit.errors import UserError
from fedlit.lab.sweeps.numbers import ranges
from fedlit.lab.sweeps.records import Submission

TEMPLATE = Path("slurm/array.sbatch")
"""Seen from the repository's root, where its jobs start."""

ANSWER_S = 120
"""Longest wait for sbatch; a busy controller takes its time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Cells to be submitted.

    sweep: as the user gave it, a name or a path. name: of the job. indices: places in `cells`, which are those of the
    sweep under `overrides`. max_parallel: elements at a time; None for no limit. options: of sbatch, which win over
    those of slurm/array.sbatch. cells_per_task: cells that an element runs one after the other. Of one cell an element
    has the number of its cell; of several, element i has the i-th of the parts into which `indices` falls.
    """

    sweep: str
    name: str
    indices: tuple[int, ...]
    cells: tuple[Cell, ...]
    overrides: tuple[str, ...]
    max_parallel: int | None = None
    options: tuple[str, ...] = ()
    cells_per_task: int = 1

    @property
    def command(self) -> list[str]:
        """Return the words of the command."""
        several = self.cells_per_task > 1
        elements = range(-(-len(self.indices) // self.cells_per_task)) if several else self.indices
        array = f"--array={ranges(elements)}" + (f"%{self.max_parallel}" if self.max_parallel else "")
        own = ["sbatch", "--parsable", f"--job-name={self.name}", array]
        tasks = [f"--cells={ranges(self.indices)}", f"--cells-per-task={self.cells_per_task}"] if several else []
        return [*own, *self.options, str(TEMPLATE), self.sweep, *tasks, *config_dir_words(), *self.overrides]


def require_slurm() -> None:
    """Raise UserError where SLURM is not installed, or where its jobs would not find the repository."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "sbatch is not there; submit from a login node of a SLURM cluster, or run the cells on this machine with "
            "'fedlit sweep run <SWEEP> --local'"
        )
    if not TEMPLATE.is_file():
        raise UserError(
            f"{Path.cwd()} has no {TEMPLATE}; submit from the repository's root, or let 'fedlit sweep scripts' write it"
        )


def require_one_task(request: Request) -> None:
    """Raise UserError where an element of several cells would have several processes: each would run all of them."""
    if request.cells_per_task == 1:
        return
    for option in ("--ntasks-per-node", "--nodes", "--ntasks"):
        given = _option(option, request)
        if given not in (None, "1"):
            raise UserError(
                f"--cells-per-task={request.cells_per_task} runs its cells in one process; {option}={given} "
                f"({TEMPLATE}, --sbatch) makes several; give --sbatch={option}=1, or leave --cells-per-task out"
            )


def submit(request: Request) -> Submission:
    """Hand the cells to SLURM; the folder of their logs is made if it is not there.

    Raises:
        UserError: what sbatch says against it.
    """
    log = _log_pattern(request)
    if log and "%" not in str(Path(log).parent):
        Path(log).parent.mkdir(parents=True, exist_ok=True)  # without it a job ends before its first line
    words = request.command
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        raise UserError(f"sbatch has not answered for {ANSWER_S} s; look at squeue before trying again") from None
    job = done.stdout.strip().partition(";")[0]
    if done.returncode != 0 or not job:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UserError(f"{reason}; mend the marked lines of {TEMPLATE}, or give --sbatch=<option>")
    return Submission(
        job=job,
        submitted_s=time.time(),
        indices=request.indices,
        cells=tuple(request.cells[index].name for index in request.indices),
        overrides=request.overrides,
        log=log,
        cells_per_task=request.cells_per_task,
    )


def _log_pattern(request: Request) -> str | None:
    """Return where the jobs write their consoles, `%A` and `%a` not yet filled in; the last option counts."""
    found = _option("--output", request)
    return None if found is None else found.replace("%x", request.name)


def _option(name: str, request: Request) -> str | None:
    """Return what sbatch is told by an option, in the job script or in the request; the last one counts."""
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines() if TEMPLATE.is_file() else []
    directives = [word for line in lines if re.match(r"#SBATCH\s", line) for word in line.partition("# ")[0].split()]
    found = [word.partition("=")[2] for word in [*directives, *request.options] if word.startswith(f"{name}=")]
    return found[-1] if found else None
