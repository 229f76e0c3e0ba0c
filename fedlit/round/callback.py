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
    """Checked."""
    folder: Path
    """The run's."""
    device: str
    """What process 0 computes on."""
    num_processes: int
    """Processes of the run."""
    cohort_size: int
    """Clients of a round."""
    num_trainable: int
    """Numbers that a client trains."""
    num_shared: int
    """Numbers that travel."""
    num_private: int
    """Numbers that stay with their client."""
    uplink_bytes: int
    """What a client sends in the first round."""
    downlink_bytes: int
    """What a client receives in the first round."""
    num_frozen: int
    """Numbers that nobody trains."""
    num_train_examples: tuple[int, ...]
    """Rows of each client for training."""
    num_test_examples: int
    """Rows for testing."""
    num_evaluated: int
    """Test examples that are scored at an evaluation."""
    num_truncated: int
    """Those of them that are cut to `model.max_length_tokens`."""
    classes: tuple[str, ...]
    """Names of the classes; none where nothing is classified."""
    num_validation_examples: int = 0
    """Rows on which rounds are chosen."""
    num_validated: int = 0
    """Those of them that are scored at an evaluation."""
    privacy: tuple[str, ...] = ()
    """What the run claims of its privacy, line by line."""
    client_names: tuple[str, ...] = ()
    """What the user calls each client, an empty text where it has no name (`fedlit.client_names`)."""
    notices: tuple[str, ...] = ()
    """Lines that a person should read about the model."""


class Stop(Exception):
    """Raised by a callback: end the run at the next safe point, between local steps or batches of an evaluation.

    What the last finished round made is saved; `fedlit.run` raises `fedlit.Stopped`, and the same call goes on.
    """


class Callback:
    """Does nothing; a callback overrides what it wants to hear. `fedlit.run(callbacks=[...])` takes objects of it.

    All are called on process 0 alone, in the order of a run: `on_start`, then for each round `on_round_start`,
    `on_step` for each local step, `on_round_end`, then `on_end`; `close` comes last, however the run ended. Round 0,
    the evaluation of the untrained model, has an `on_round_end` alone. An exception ends the run, which is saved up to
    its last finished round, and comes out of `fedlit.run` as it is; `raise fedlit.Stop` ends it on purpose.

        class UntilGood(fedlit.Callback):
            def on_round_end(self, record, samples):
                if record.get("global/loss", 9.9) < 2.0:
                    raise fedlit.Stop
    """

    def on_start(self, summary: RunSummary, records: Sequence[dict[str, Any]], notices: Sequence[str]) -> None:
        """The federation starts, or goes on after `records`; notices are lines a person should read.

        `summary` has the configuration, the folder and the numbers of clients, rows, parameters and bytes.
        """

    def on_round_start(self, round_number: int, num_steps: int) -> None:
        """Process 0 begins a round in which it will take `num_steps` local steps."""

    def on_step(self) -> None:
        """Process 0 took one local step."""

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        """A round is aggregated, evaluated and recorded, and its checkpoint is being written.

        `record` is the round's line of metrics.jsonl; samples are the answers that process 0 evaluated, none in a round
        without an evaluation.
        """

    def on_end(self, records: Sequence[dict[str, Any]]) -> None:
        """The last round is done and the result is written; `records` are those of all rounds."""

    def close(self) -> None:
        """The run has ended, for whatever reason; what fails here is a warning."""
