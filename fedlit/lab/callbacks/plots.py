"""The run folder's pictures: who holds what, the curves of every round, which classes are taken for which, and how far
every layer's aggregate is from the mean of the clients.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlit.client_names import labels, names_in
from fedlit.lab.callbacks import Callback, RunSummary
from fedlit.scores import chosen_scores
from fedlit.tasks import Sample


class RunPlots(Callback):
    """Draws the clients' labels or sizes at the start, and at the end the layers' deviations, and curves and confusion
    matrix of what was evaluated.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._title = ""
        self._recipe = ""
        self._scores: Sequence[str] = ()
        self._classes: Sequence[str] = ()
        self._names: Sequence[str] = ()
        self._records: list[dict[str, Any]] = []
        self._has_deviation = False

    def on_start(self, summary: RunSummary, records: Sequence[dict[str, Any]], notices: Sequence[str]) -> None:
        """Draw who holds what, from the run's partition.json."""
        from fedlit.lab.analysis.labels import plot_label_distribution  # noqa: PLC0415  matplotlib takes a second to import

        data = summary.config.data
        self._title = summary.folder.name
        self._recipe = summary.config.method.name
        self._scores = chosen_scores(data)
        self._classes = summary.classes
        self._records = list(records)
        partition = json.loads((summary.folder / "partition.json").read_text(encoding="utf-8"))
        title = f"{self._title}: {_partition_title(partition)}"
        self._names = labels(summary.client_names or names_in(partition), len(partition["clients"]))
        plot_label_distribution(
            _bars(partition), self._folder / "label_distribution.png", title=title, names=self._names
        )

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        """Remember the round."""
        self._records.append(record)

    def on_end(self, records: Sequence[dict[str, Any]]) -> None:
        """Draw the layers' deviations: before the run is closed, since loggers take the picture with them."""
        self._plot_deviation()

    def _plot_deviation(self) -> None:
        from fedlit.lab.analysis.heatmap import plot_deviation  # noqa: PLC0415  as above

        plot_deviation(self._records, self._folder / "deviation.png", title=self._title)
        self._has_deviation = True

    def close(self) -> None:
        """Draw what is there so far, also when the run was stopped."""
        from fedlit.lab.analysis.confusion import plot_confusion  # noqa: PLC0415  as above
        from fedlit.lab.analysis.curves import plot_curves  # noqa: PLC0415  as above
        from fedlit.lab.analysis.slots import colours  # noqa: PLC0415  as above

        if not self._has_deviation:
            self._plot_deviation()
        if any({"global/loss", "own/loss"} & record.keys() for record in self._records):
            colour = colours([self._recipe])[self._recipe]
            path = self._folder / "curves.png"
            plot_curves(self._records, path, scores=self._scores, title=self._title, names=self._names, colour=colour)
        for record in reversed(self._records):
            matrix, whose = confusion_matrix(record)
            if matrix is not None:
                title = f"{self._title}: round {record['round']}, {whose}"
                plot_confusion(matrix, self._classes or None, self._folder / "confusion_matrix.png", title)
                break


def confusion_matrix(record: Mapping[str, Any]) -> tuple[list[list[int]] | None, str]:
    """Return a round's confusion matrix and whose it is; None where none was recorded.

    It is the global model's or, where there is none such, the sum of the clients' own.
    """
    if "global/confusion_matrix" in record:
        return record["global/confusion_matrix"], "global model"
    for place, where in (("", "the global test set"), ("own/", "their own test rows")):
        if (total := record.get(f"clients/{place}confusion_matrix")) is not None:  # of a run with many clients
            return total, f"all clients on {where}"
        pattern = re.compile(rf"client/\d+/{place}confusion_matrix")
        found = [value for key, value in record.items() if pattern.fullmatch(key)]
        if found:
            total = [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*found, strict=True)]
            return total, f"sum over {len(found)} clients on {where}"
    return None, ""


def _bars(partition: Mapping[str, Any]) -> list[dict[str, int]]:
    """Return the rows of every client by label or, without labels, by their use."""
    if partition["label"] is None:
        uses = {"training": "num_train", "validation": "num_validation", "test": "num_test"}
        return [{use: client[key] for use, key in uses.items() if key in client} for client in partition["clients"]]
    parts = ("train_labels", "test_labels", "validation_labels")
    return [dict(sum((Counter(client.get(part, {})) for part in parts), Counter())) for client in partition["clients"]]


def _partition_title(partition: Mapping[str, Any]) -> str:
    """Say what the bars are, and how unlike the clients are in labels and sizes."""
    numbers = partition.get("heterogeneity", {})
    facts = []
    if numbers.get("jensen_shannon") is not None:
        facts.append(f"mean Jensen-Shannon divergence {numbers['jensen_shannon']:.2f}")
    if numbers.get("size_variation", 0.0) >= 0.005:
        facts.append(f"coefficient of variation of sizes {numbers['size_variation']:.2f}")
    what = "rows of each client" if partition["label"] is None else f"{partition['label']} of each client's rows"
    return f"{what} ({', '.join(facts)})" if facts else what
