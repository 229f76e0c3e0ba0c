"""How long a finished run took, and with what, from its record and its status."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlit.errors import UserError
from fedlit.store.environment import stored_environment
from fedlit.store.records import Record, read_records
from fedlit.store.status import RunStatus, read_status

LONGEST_START_S = 300.0
"""Between the end of a run and the next one's start; a longer pause is no start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Seconds of a run that is done.

    train_s, evaluate_s: of all rounds. between_s: rule, records and checkpoints. outside_s: before the first round and
    after the last: weights, rows, pictures, result; None of a run that was taken up again, whose status tells of its
    last start alone. num_processes: that shared the work. device: as the record of its environment has it.
    """

    folder: Path
    num_rounds: int
    train_s: float
    evaluate_s: float
    between_s: float
    outside_s: float | None
    num_processes: int
    device: str

    @property
    def total_s(self) -> float:
        """All that is known."""
        return self.train_s + self.evaluate_s + self.between_s + (self.outside_s or 0.0)


def times_of(folder: Path) -> Times:
    """Return how long the run of a folder took.

    Raises:
        UserError: there is no finished run, or its record has no times.
    """
    status = read_status(folder)
    if status.state != "done":
        found = f"is {status.state}" if (folder / "config.yaml").is_file() else "holds no run"
        raise UserError(f"--measured={folder} {found}; give the folder of a run that is done, or a done cell's number")
    times = times_in(folder, status, read_records(folder))
    if times is None:
        raise UserError(f"--measured={folder} has a record without times; give a run of this version of fedlit")
    return times


def times_in(folder: Path, status: RunStatus, records: Sequence[Record]) -> Times | None:
    """Return the same of what is read already; None where a round has no time."""
    if not records or any(not isinstance(record.get("time/round_s"), int | float) for record in records):
        return None
    rounds_s, train_s, evaluate_s, devices_s = (
        sum(float(record.get(f"time/{name}_s", 0.0)) for record in records)
        for name in ("round", "train", "evaluate", "devices")
    )
    wall_s = (status.updated_s or 0.0) - (status.started_s or 0.0)
    return Times(
        folder=folder,
        num_rounds=records[-1]["round"],
        train_s=train_s,
        evaluate_s=evaluate_s,
        between_s=max(rounds_s - train_s - evaluate_s, 0.0),
        outside_s=wall_s - rounds_s if wall_s >= rounds_s else None,
        num_processes=max(round(devices_s / rounds_s), 1) if rounds_s > 0 else 1,
        device=str(stored_environment(folder).get("device", "an unknown device")),
    )


def start_s(runs: Sequence[Any]) -> float | None:
    """Return the seconds from the end of a run to the start of the one after it, the middle of all such pauses: what a
    process takes before its run begins. None where no run of these followed another one.

    runs: statuses, of one machine; those started and ended at unknown times are left out.
    """
    spans = sorted((run.started_s, run.updated_s) for run in runs if run.started_s and run.updated_s)
    pauses = []
    for begun, _ in spans[1:]:
        before = [ended for _, ended in spans if ended <= begun]
        if before and begun - max(before) < LONGEST_START_S:
            pauses.append(begun - max(before))
    return statistics.median(pauses) if pauses else None
