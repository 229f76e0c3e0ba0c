"""How a run stands, read from its folder alone: there is no daemon and no database.

Process 0 writes status.json when a run starts and when it ends; finished rounds are the lines of metrics.jsonl. A run
whose file says `running` and whose lock nobody holds any more was killed, and the end of its job's log may tell why.
"""

import json
import os
import re
import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedlit.errors import UserError
from fedlit.process import slurm
from fedlit.store.lock import holder
from fedlit.store.records import NAME, count_records

STATES = (
    "pending",  # nothing is there yet
    "running",
    "stopped",  # by a signal or Ctrl-C; the same command goes on
    "requeued",  # by its time limit, and put back into SLURM's queue
    "timed_out",  # by its time limit, and nothing will start it again by itself
    "out_of_memory",
    "diverged",  # a loss or an update was not finite
    "failed",
    "killed",  # it ended without a word
    "done",
)

PATH = "status.json"

JOB_LOG_VARIABLE = "FEDLIT_JOB_LOG"
"""Environment variable in which a batch script tells where its console goes."""

_LOG_TAIL_BYTES = 65_536
_OUT_OF_MEMORY = re.compile(rb"oom[-_]kill|Out Of Memory")
_TIME_LIMIT = re.compile(rb"DUE TO TIME LIMIT")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """How a run stands.

    num_finished_rounds: training rounds in its record. num_rounds: of the federation; None if nothing says so yet.
    reason: one line on why it ended. job: SLURM's job id, `7_2` for an element of an array. host: of process 0.
    log: where the job's console went; it had log_start_bytes when the run began. started_s: when the run was started
    last; updated_s: when its status or record changed; both in seconds since the epoch. chosen_round: of a run that is
    done, its best round; chosen_by: the key of the score that tells it; chosen_on: the set, `validation` or `test`.
    """

    state: str = "pending"
    num_finished_rounds: int = 0
    num_rounds: int | None = None
    reason: str = ""
    job: str | None = None
    host: str | None = None
    log: str | None = None
    log_start_bytes: int = 0
    started_s: float | None = None
    updated_s: float | None = None
    chosen_round: int | None = None
    chosen_by: str | None = None
    chosen_on: str | None = None


def first_status(num_rounds: int, environ: Mapping[str, str] = os.environ) -> RunStatus:
    """Return the status of a run that this process starts."""
    log, now_s = environ.get(JOB_LOG_VARIABLE), time.time()
    return RunStatus(
        state="running",
        num_rounds=num_rounds,
        job=slurm.job_id(environ),
        host=socket.gethostname(),
        log=log,
        log_start_bytes=Path(log).stat().st_size if log and Path(log).is_file() else 0,
        started_s=now_s,
        updated_s=now_s,
    )


def ended(status: RunStatus, state: str, reason: str = "") -> RunStatus:
    """Return the status of a run that ended this way, for one line of a reason."""
    assert state in STATES
    return replace(status, state=state, reason=" ".join(reason.split()), updated_s=time.time())


def to_json(status: RunStatus) -> str:
    """Return the text of status.json; finished rounds are not in it, since the record tells."""
    content = asdict(status)
    del content["num_finished_rounds"]
    return json.dumps(content, indent=2) + "\n"


def stored_status(folder: Path) -> RunStatus | None:
    """Return what status.json says; None if it is missing or damaged."""
    try:
        content = json.loads((folder / PATH).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("state") not in STATES:
        return None
    return RunStatus(**_known(content))


def read_status(folder: Path, living_jobs: Collection[str] | None = None) -> RunStatus:
    """Return how the run of a folder stands; `pending` if there is no such folder.

    living_jobs: ids of this user's SLURM jobs that have processes, where squeue was asked, to know at once of a run
        that was killed on another host.
    """
    stored = stored_status(folder)
    num_finished_rounds, recorded_s = _finished_rounds(folder)
    held_by = holder(folder, living_jobs)
    status = stored or _without_status(folder, has_records=recorded_s is not None)
    if held_by is not None:
        status = replace(status, state="running", reason="", job=held_by.job, host=held_by.host)
        status = replace(status, started_s=held_by.since_s)
    elif status.state in ("running", "stopped"):
        status = _after_its_death(status, num_finished_rounds)
    updated_s = max((moment for moment in (status.updated_s, recorded_s) if moment is not None), default=None)
    return replace(status, num_finished_rounds=num_finished_rounds, updated_s=updated_s)


def _without_status(folder: Path, *, has_records: bool) -> RunStatus:
    """Return how a folder stands whose status.json is missing or damaged."""
    if not (folder / "config.yaml").is_file() or not has_records:
        return RunStatus()
    return RunStatus(state="done" if (folder / "adapter").is_dir() else "stopped")


def _after_its_death(status: RunStatus, num_finished_rounds: int) -> RunStatus:
    """Return how a run ended that nobody runs any more, by the end of its job's log."""
    tail = _tail(Path(status.log), status.log_start_bytes) if status.log else b""
    place = f"after round {num_finished_rounds}"
    if _TIME_LIMIT.search(tail):
        return replace(status, state="timed_out", reason=status.reason or f"the job's time limit came {place}")
    if status.state == "stopped":
        return status
    if _OUT_OF_MEMORY.search(tail):
        reason = f"the job's memory limit killed it {place}; give the job more --mem"
        return replace(status, state="out_of_memory", reason=reason)
    return replace(status, state="killed", reason=f"it ended without a word {place}")


def _finished_rounds(folder: Path) -> tuple[int, float | None]:
    """Return the number of records after the first, which is of the untrained model, and when the last was added
    (seconds since the epoch).
    """
    try:
        return max(count_records(folder) - 1, 0), (folder / NAME).stat().st_mtime
    except (OSError, UserError):  # a folder in its place, say
        return 0, None


def _tail(path: Path, start_bytes: int) -> bytes:
    """Return the end of a log, nothing from before `start_bytes`, which belongs to an earlier attempt."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            first = start_bytes if start_bytes <= size else 0  # begun anew since
            file.seek(max(first, size - _LOG_TAIL_BYTES))
            return file.read()
    except (OSError, ValueError):  # no path at all in a damaged file
        return b""


def _known(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of status.json that have the right type."""
    texts, moments = ("state", "reason", "job", "host", "log", "chosen_by", "chosen_on"), ("started_s", "updated_s")
    kinds: dict[str, type] = {**dict.fromkeys(texts, str), **dict.fromkeys(moments, float)}
    kinds |= dict.fromkeys(("num_rounds", "log_start_bytes", "chosen_round"), int)
    return {name: value for name, value in content.items() if name in kinds and type(value) is kinds[name]}
