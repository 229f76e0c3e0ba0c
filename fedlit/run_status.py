"""How a run stands, read from its folder alone: there is no daemon and no database.

Process 0 writes status.json when a run starts and when it ends; finished rounds are the lines of metrics.jsonl. A run
whose file says `running` and whose lock nobody holds any more was killed.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

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


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """How a run stands.

    num_finished_rounds: training rounds in its record. num_rounds: of the federation; None if nothing says so yet.
    reason: one line on why it ended. job: SLURM's job id, `7_2` for an element of an array. host: of process 0.
    log: where the job's console went. started_s, updated_s: seconds since the epoch.
    """

    state: str = "pending"
    num_finished_rounds: int = 0
    num_rounds: int | None = None
    reason: str = ""
    job: str | None = None
    host: str | None = None
    log: str | None = None
    started_s: float | None = None
    updated_s: float | None = None


PATH = "status.json"


def read_status(folder: Path) -> RunStatus:
    """Return how the run of a folder stands; `pending` if there is no such folder."""
    path = folder / PATH
    if not path.is_file():
        return RunStatus()
    return RunStatus(**json.loads(path.read_text(encoding="utf-8")))


def to_json(status: RunStatus) -> str:
    """Return the text of status.json."""
    return json.dumps(asdict(status), indent=2) + "\n"
