"""A run folder and the records of a federation that needs no model, and processes in which they may be killed."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked_child

from fedlit.config import RunConfig
from fedlit.lab.callbacks import Callback, RunSummary
from fedlit.tasks import Sample

LAYERS = ("model.layers.0.q_proj", "model.layers.1.q_proj")
NUM_ROUNDS = 6
PARTITION = {
    "data": "made-up",
    "label": "topic",
    "clients": [
        {"client_id": 0, "num_train": 5, "num_test": 1, "train_labels": {"a": 5}, "test_labels": {"b": 1}},
        {"client_id": 1, "num_train": 3, "num_test": 1, "train_labels": {"b": 3}, "test_labels": {"b": 1}},
    ],
}


def record_of(number: int) -> dict[str, Any]:
    """Return the record of a round: the loss is best in round 4."""
    record: dict[str, Any] = {"round": number, "global/loss": 1.0 + abs(number - 4), "global/rouge_l": 0.1 * number}
    record |= {"time/round_s": 2.0, "time/devices_s": 4.0, "eval/protocol": "generate"}
    if number:
        record |= {"clients/num_tokens": 100, "time/clients_s": 1.5, "aggregation/checksum": "0f"}
        record |= {"communication/uplink_bytes": 1_000_000, "communication/downlink_bytes": 2_000_000}
        record |= {f"lora/deviation/{layer}": 1e-6 * number for layer in LAYERS}
    return record


@dataclass
class MadeUpRun:
    """A run folder, and a loop over rounds that records and tells callbacks as the federation does."""

    folder: Path
    config: RunConfig
    make_callbacks: Callable[["MadeUpRun"], list[Callback]]

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "partition.json").write_text(json.dumps(PARTITION))

    @property
    def records(self) -> list[dict[str, Any]]:
        path = self.folder / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def summary(self) -> RunSummary:
        return RunSummary(
            config=self.config,
            folder=self.folder,
            device="cpu",
            num_processes=1,
            cohort_size=2,
            num_trainable=10,
            num_shared=10,
            num_private=0,
            uplink_bytes=40,
            downlink_bytes=40,
            num_frozen=100,
            num_train_examples=(5, 3),
            num_test_examples=2,
            num_evaluated=2,
            num_truncated=0,
            classes=(),
        )

    def run(self, *, die_in: int | None = None, told: bool = True, last: int | None = None) -> None:
        """Run the rounds that are missing, in this process.

        die_in: SIGKILL in this round, after its record, and after the callbacks if they are `told` of it. last: the
        round after which it stops early.
        """
        callbacks = self.make_callbacks(self)
        records = self.records
        for callback in callbacks:
            callback.on_start(self.summary, records, ())
        last = self.config.num_rounds if last is None else last
        for number in range(len(records), last + 1):
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(record_of(number)) + "\n")
            if die_in == number and not told:
                os.kill(os.getpid(), signal.SIGKILL)
            samples = [Sample(prompt=f"p{i}", reference=f"r{i}", prediction=f"{number}.{i}") for i in range(40)]
            for callback in callbacks:
                callback.on_round_end(record_of(number), samples)
            if die_in == number:
                os.kill(os.getpid(), signal.SIGKILL)
        for callback in callbacks:
            callback.on_end(self.records)
        for callback in callbacks:
            callback.close()

    def attempt(self, **how: Any) -> int:
        """Run in a process of its own, since wandb keeps one helper for each; return its exit status."""
        code = in_child(lambda: self.run(**how))
        self._wait_for_helpers()
        return code

    def _wait_for_helpers(self) -> None:
        """Wait until nobody writes below the folder: wandb's helper outlives a killed process for a moment, and on a
        busy machine it would still write while the next attempt reads.
        """
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and any(str(self.folder) in name for name in _open_files()):
            time.sleep(0.05)


def _open_files() -> Iterator[str]:
    """Yield the names of the open files of all processes that this one may look into; none without /proc."""
    for file in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            yield str(file.readlink())


def in_child(action: Callable[[], object]) -> int:
    """Do something in a forked process and return its exit code, minus the number of a signal."""
    import wandb.sdk.launch  # noqa: F401, PLC0415  by wandb.init; here once for all forked processes

    return forked_child.in_child(action)


def files_of(folder: Path) -> Sequence[Path]:
    """Return the .wandb files of a run folder."""
    return sorted((folder / "wandb").glob("*run-*/*.wandb"))
