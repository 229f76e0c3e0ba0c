"""Rows that were given from Python: a list, a `datasets.Dataset`, or one of these for each client.

They are held to what a file is held to. Nothing is changed in the caller's objects.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedlit.config.schema import DataConfig
from fedlit.data.images import digest
from fedlit.data.prompts import Row
from fedlit.errors import UserError
from fedlit.tasks.registry import task_spec

SOURCE = "memory"
"""`data.source` of a run whose rows were given from Python."""
PARTITION = "given"
"""`partition.name` of a run whose rows were given for each client."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnRows:
    """Rows as they were given.

    parts: the rows of each client by its name, in the order in which they were given; one part without a name holds the
    rows of nobody in particular.
    """

    parts: Mapping[str | None, tuple[Any, ...]]

    @property
    def is_dealt(self) -> bool:
        """Whether the rows were given for each client."""
        return None not in self.parts

    @property
    def names(self) -> tuple[str, ...]:
        """The clients' names; none where the rows are of nobody in particular."""
        return tuple(name for name in self.parts if name is not None)

    def checked(self, argument: str, data: DataConfig) -> tuple[list[list[Row]], list[str]]:
        """Return the rows of every part as a file's are read, and the place of each row.

        Args:
            argument: what the caller named them, `rows` or `test_rows`.
            data: which columns are read.

        Raises:
            UserError: the row and the column that is wrong, and what to do about it.
        """
        spec = task_spec(data.task)
        spec.columns(data)
        parts: list[list[Row]] = []
        places: list[str] = []
        for name, records in self.parts.items():
            where = argument if name is None else f"{argument} of client {name}"
            kept: list[Row] = []
            for number, record in enumerate(records):
                place = f"{where}, row {number}"
                row = spec.check_row(_plain(record, place), place, data)
                if row is not None:
                    kept.append(row)
                    places.append(place)
            if not kept:
                column = list(spec.columns(data))[-1]
                fact = f"all {len(records)} rows have an empty {column!r}" if records else "no rows"
                raise UserError(f"{where}: {fact}; give some")
            parts.append(kept)
        return parts, places


def own_rows(given: Any, argument: str) -> OwnRows:
    """Return what was given as rows, or as rows of each client.

    Args:
        given: an iterable of mappings, or a sequence of such iterables or a mapping of names to them: one a client.
        argument: what the caller named it, for errors.

    Raises:
        UserError: it is nothing of the kind.
    """
    if type(given).__name__ in ("DatasetDict", "IterableDatasetDict"):
        splits = ", ".join(map(str, given))
        raise UserError(f"{argument} is a DatasetDict of splits ({splits}); give one, as {argument}=data[<split>]")
    if isinstance(given, Mapping):
        if not given:
            raise UserError(f"{argument}: no clients; give rows")
        names: dict[str | None, tuple[Any, ...]]
        names = {str(name): _records(part, f"{argument}[{name!r}]") for name, part in given.items()}
        if len(names) < len(given):
            raise UserError(f"{argument}: two clients have one name as text; give each its own")
        return OwnRows(parts=names)
    items = _records(given, argument)
    if not items:
        raise UserError(f"{argument}: no rows; give some")
    if isinstance(items[0], Mapping) or not _is_many(items[0]):
        return OwnRows(parts={None: items})
    return OwnRows(parts={str(i): _records(part, f"{argument}[{i}]") for i, part in enumerate(items)})


def require_own(data: DataConfig, *, has_rows: bool) -> None:
    """Refuse a configuration whose rows were given from Python, without them; and options that are of files.

    Raises:
        UserError: what is missing, or has no meaning.
    """
    if data.source == SOURCE and not has_rows:
        raise UserError(
            "data.source=memory: the rows were given from Python, and no file holds them; run it there, with "
            "fedlit.run(..., rows=...)"
        )
    if has_rows and data.test_columns:
        raise UserError("data.test_columns renames the columns of a file; leave it out, and name them so in test_rows")


def _records(given: Any, place: str) -> tuple[Any, ...]:
    """Return the rows of one part."""
    if type(given).__name__ == "DataFrame":
        raise UserError(f"{place} is a DataFrame; give its rows, as frame.to_dict('records')")
    if not _is_many(given):
        raise UserError(f"{place} is of type {type(given).__name__}; give a list of mappings, or a datasets.Dataset")
    return tuple(given)


def _is_many(given: Any) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)


def _plain(record: Any, place: str) -> Any:
    """Return a row with NumPy's numbers as Python's.

    Raises:
        UserError: a column of which no checksum could be made.
    """
    if not isinstance(record, Mapping):
        return record
    row = {name: value.item() if isinstance(value, np.generic) else value for name, value in record.items()}
    for name, value in row.items():
        if not isinstance(name, str):
            raise UserError(f"{place}: the name {name!r} of a column is a {type(name).__name__}; give texts")
        if isinstance(value, dict | list):
            try:
                json.dumps(value, sort_keys=True, default=digest)
            except (TypeError, ValueError, RecursionError) as error:
                raise UserError(
                    f"{place}: column {name!r} is nothing for JSON ({str(error)[:80]}); mend it, or leave it out"
                ) from None
    return row


def numbered(parts: Sequence[Sequence[Row]], first: int = 0) -> Iterator[tuple[int, ...]]:
    """Yield the positions of every part's rows where all lie one after the other from `first` on."""
    for part in parts:
        yield tuple(range(first, first + len(part)))
        first += len(part)
