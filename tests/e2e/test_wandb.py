"""A federation that is killed twice is one W&B run, one table and one set of TensorBoard curves; nobody is asked."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conftest import SMALL, Zygote, merge
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedlit.lab.callbacks.wandb_files import read_history

ARGUMENTS = (
    "logging.wandb=offline",
    "logging.loggers=[wandb, csv, tensorboard]",
    "logging.samples_every=2",
    "logging.group=kills",
    "num_rounds=4",
)


def records_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


def run_killed(zygote: Zygote, name: str, kill_after: Sequence[int]) -> Path:
    folder = zygote.folder / name
    for number in kill_after:
        run = zygote.start(name, *merge(SMALL, ARGUMENTS))
        run.wait_until(lambda number=number: len(records_of(folder)) > number)  # type: ignore[misc]
        assert run.kill() == [-9], run.output()
    zygote.run(name, *merge(SMALL, ARGUMENTS))
    return folder


def test_killed_twice_every_logger_holds_every_round_once(zygote: Zygote) -> None:
    folder = run_killed(zygote, "logged", kill_after=[0, 2])
    records = records_of(folder)
    rounds = [0, 1, 2, 3, 4]
    assert [record["round"] for record in records] == rounds
    history = read_history(folder / "wandb", (folder / "wandb" / "run_id").read_text().strip())
    assert (history.rounds, history.finished) == (rounds, True)
    assert len(list(folder.glob("wandb/*run-*/*.wandb"))) == 3
    entries = [entry for entry in history.entries if "round" in entry]
    for record, entry in zip(records, entries, strict=True):
        assert entry["_step"] == record["round"]
        for key in record:
            # A round that was killed after its entry was trained again: the same in all but the time it took.
            if isinstance(record[key], int | float) and not key.startswith("time/"):
                assert entry[key] == record[key], key
    tables = history.rounds_with("samples")
    assert tables == sorted(set(tables))
    assert tables[-1] == 4
    assert entries[-1]["cost/tokens"] == sum(record["clients/num_tokens"] for record in records[1:]) > 0

    with (folder / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["global/loss"]) for row in table] == [record["global/loss"] for record in records]
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("global/loss")] == rounds

    files = sorted(folder.glob("wandb/*run-*/*.wandb"))
    zygote.run("logged", *merge(SMALL, ARGUMENTS))
    assert sorted(folder.glob("wandb/*run-*/*.wandb")) == files
