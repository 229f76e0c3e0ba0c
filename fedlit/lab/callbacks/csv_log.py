"""The run as one table for a spreadsheet or pandas: metrics.csv, a row a round."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlit.lab.analysis.costs import cumulative_costs
from fedlit.lab.analysis.csv_text import csv_text
from fedlit.lab.callbacks import Callback, RunSummary
from fedlit.process.storage import write_atomically
from fedlit.tasks import Sample


class CsvLog(Callback):
    """Writes the table anew after every round, whole or not at all, from all records so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: list[dict[str, Any]] = []

    def on_start(self, summary: RunSummary, records: Sequence[dict[str, Any]], notices: Sequence[str]) -> None:
        """Begin with the records of a resumed run, or with the empty table of a new one's."""
        self._records = list(records)
        self._write()

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        """Add the round."""
        self._records.append(record)
        self._write()

    def _write(self) -> None:
        write_atomically(self._path, to_csv(self._records))


def to_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Return records as CSV: the columns are the keys of all of them whose values are numbers or texts, in the order
    in which they come up, and then the costs up to each round. What a round does not have is empty.
    """
    rows = [{key: value for key, value in record.items() if isinstance(value, int | float | str)} for record in records]
    costs = cumulative_costs(records)
    columns = dict.fromkeys(["round", *(key for row in rows for key in row), *(key for cost in costs for key in cost)])
    return csv_text([{**row, **cost} for row, cost in zip(rows, costs, strict=True)], list(columns))
