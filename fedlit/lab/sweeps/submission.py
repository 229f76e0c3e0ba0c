"""Cells handed to SLURM as one array."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fedlit.config import Cell
from fedlit.config.places import config_dir_words
from fedlit.errors import UserError
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
    those of slurm/array.sbatch.
    """

    sweep: str
    name: str
    indices: tuple[int, ...]
    cells: tuple[Cell, ...]
    overrides: tuple[str, ...]
    max_parallel: int | None = None
    options: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """Return the words of the command."""
        array = f"--array={ranges(self.indices)}" + (f"%{self.max_parallel}" if self.max_parallel else "")
        own = ["sbatch", "--parsable", f"--job-name={self.name}", array]
        return [*own, *self.options, str(TEMPLATE), self.sweep, *config_dir_words(), *self.overrides]


def ranges(indices: Iterable[int]) -> str:
    """Return numbers as SLURM's --array takes them: `0-3,7`."""
    parts: list[list[int]] = []
    for index in sorted(set(indices)):
        if parts and parts[-1][-1] == index - 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def require_slurm() -> None:
    """Raise UserError where SLURM is not installed, or where its jobs would not find the repository."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "sbatch is not there; submit from a login node of a SLURM cluster, or run the cells on this machine with "
            "'fedlit sweep run <SWEEP> --local'"
        )
    if not TEMPLATE.is_file():
        raise UserError(f"{Path.cwd()} has no {TEMPLATE}; submit from the repository's root, where the jobs start")


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
    )


def _log_pattern(request: Request) -> str | None:
    """Return where the jobs write their consoles, `%A` and `%a` not yet filled in; the last option counts."""
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines()
    directives = [word for line in lines if re.match(r"#SBATCH\s", line) for word in line.partition("# ")[0].split()]
    found = [word.partition("=")[2] for word in [*directives, *request.options] if word.startswith("--output=")]
    return found[-1].replace("%x", request.name) if found else None
