"""What single examples add to a metric, for whoever wants to keep it: `metric.notes = Notes(name)` before the updates,
and `metric.notes.take()` after them. A metric without `notes` of its own has nothing to tell of single examples.
"""

from collections.abc import Iterable
from typing import Any

from torchmetrics import Metric

Value = float | int | list[int]


class Notes:
    """Columns with a value for each example, in the order in which a metric is given them.

    name: of the metric in the record, with which the columns' names begin.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._columns: dict[str, list[Value]] = {}

    def add(self, ending: str, values: Iterable[Value]) -> None:
        """Add to the column `<name><ending>`."""
        self.add_to(f"{self._name}{ending}", values)

    def add_to(self, column: str, values: Iterable[Value]) -> None:
        """Add to a column of this name, of a metric that has several results."""
        self._columns.setdefault(column, []).extend(values)

    def take(self) -> dict[str, list[Value]]:
        """Return what was added since the last time."""
        taken, self._columns = self._columns, {}
        return taken


def start_noting(metrics: Iterable[tuple[str, Metric]]) -> None:
    """Let those metrics that can tell of single examples do so."""
    for name, metric in metrics:
        if getattr(metric, "notes", metric) is None:  # what somebody else calls so is left alone
            notes: Any = Notes(name)
            metric.notes = notes


def take_notes(metrics: Iterable[Metric], num_examples: int) -> dict[str, list[Value]]:
    """Return the columns of all metrics; one without exactly one value for each example is left out."""
    found: dict[str, list[Value]] = {}
    for metric in metrics:
        notes = getattr(metric, "notes", None)
        if isinstance(notes, Notes):
            found |= {name: values for name, values in notes.take().items() if len(values) == num_examples}
    return found
