"""What hears of a federation: callbacks, on process 0 alone, of the start, of steps, of rounds and of the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlit.config import RunConfig
from fedlit.tasks import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What is known when a federation starts."""

    config: RunConfig
    folder: Path
    device: str
    num_processes: int
    cohort_size: int
    num_trainable: int
    num_shared: int
    num_private: int
    uplink_bytes: int
    downlink_bytes: int
    num_frozen: int
    num_train_examples: tuple[int, ...]
    num_test_examples: int
    num_evaluated: int
    num_truncated: int
    classes: tuple[str, ...]
    notices: tuple[str, ...] = ()
    """Lines that a person should read about the model."""


class Callback:
    """Does nothing; a callback overrides what it wants to hear."""

    def on_start(self, summary: RunSummary, records: Sequence[dict[str, Any]], notices: Sequence[str]) -> None:
        """The federation starts, or goes on after `records`; notices are lines a person should read."""

    def on_round_start(self, round_number: int, num_steps: int) -> None:
        """Process 0 begins a round in which it will take `num_steps` local steps."""

    def on_step(self) -> None:
        """Process 0 took one local step."""

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        """A round is aggregated, evaluated, recorded and checkpointed; samples are those process 0 evaluated."""

    def on_end(self, records: Sequence[dict[str, Any]]) -> None:
        """The last round is done."""

    def close(self) -> None:
        """The process is about to end, for whatever reason."""
