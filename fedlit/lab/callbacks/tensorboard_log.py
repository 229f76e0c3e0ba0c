"""Every round's numbers as TensorBoard event files, in `tensorboard/` of the run folder.

Whoever is killed leaves an event file that lacks its last rounds or holds rounds that are trained again. A new start
therefore writes all rounds of the record into a new file, under a mark (purge_step) that voids what earlier files hold
of them, and then removes those: every round is there once, whichever of the two a reader sees.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedlit.client_names import are_named, labels
from fedlit.config import to_yaml
from fedlit.lab.callbacks import Callback, RunSummary, numbers
from fedlit.tasks import Sample


class TensorBoardLog(Callback):
    """Logs numbers by round; the costs up to each round are among them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._records: list[dict[str, Any]] = []
        self._task = ""

    def on_start(self, summary: RunSummary, records: Sequence[dict[str, Any]], notices: Sequence[str]) -> None:
        """Open a new event file with the configuration and all rounds so far."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  an extra of the installation

        self._task = summary.config.data.task
        earlier = list(self._folder.glob("events.out.tfevents.*"))
        self._writer = SummaryWriter(str(self._folder), purge_step=0)
        self._writer.add_text("config", f"```yaml\n{to_yaml(summary.config)}```")
        if are_named(summary.client_names):
            named = enumerate(labels(summary.client_names))
            self._writer.add_text("clients", "\n".join(f"    client/{client_id}  {name}" for client_id, name in named))
        for record in records:
            self._add(record)
        self._writer.flush()
        for path in earlier:
            path.unlink()

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        """Log the numbers of a round."""
        self._add(record)
        self._writer.flush()

    def _add(self, record: dict[str, Any]) -> None:
        self._records.append(record)
        for key, value in numbers(self._records, self._task).items():
            self._writer.add_scalar(key, value, record["round"])

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
