"""The run folder's pictures: curves of every round, label distribution of every client."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedlit.callbacks import Callback, RunSummary
from fedlit.tasks import Sample


class RunPlots(Callback):
    """Draws the label distribution at the start and the curves after every round that was evaluated."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._title = ""
        self._records: list[dict[str, Any]] = []

    def on_start(self, summary: RunSummary, records: Sequence[dict[str, Any]], notices: Sequence[str]) -> None:
        """Draw the label distribution."""
        from fedlit.analysis.plots import plot_label_distribution  # noqa: PLC0415  matplotlib takes a second to import

        self._title = summary.folder.name
        self._records = list(records)
        if summary.config.data.label is not None:
            title = f"{self._title}: {summary.config.data.label} of each client's rows"
            plot_label_distribution(summary.label_counts, self._folder / "label_distribution.png", title=title)

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        """Remember the round."""
        self._records.append(record)

    def close(self) -> None:
        """Draw the curves so far, also when the run was stopped."""
        from fedlit.analysis.plots import plot_curves  # noqa: PLC0415  as above

        if any("global/loss" in record for record in self._records):
            plot_curves(self._records, self._folder / "curves.png", title=self._title)
