"""What a reader of tables is told of the rows: the columns that are looked at, and what the classes' column holds."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Record = tuple[str, Any]
"""The place to name in an error, and what stands there."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """columns: those that are looked at, of prompt and response first. own: those of the task itself.

    target: the column of a class, or of a number (`number`); None without one. named: columns whose numbers of classes
    become names where a file has the names, which readers keep in `names`. key: the option that named the file. tell:
    takes a line for a person.
    """

    columns: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    target: str | None = None
    number: bool = False
    named: tuple[str, ...] = ()
    key: str = "data.path"
    tell: Callable[[str], None]
    names: dict[str, list[str]] = field(default_factory=dict)

    def kept(self, names: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Return the names of the classes of a file, by column, where they take the place of numbers; keep them."""
        used = {column: of_column for column, of_column in names.items() if column in self.named and of_column}
        for column, of_column in used.items():
            self.names.setdefault(column, of_column)
        return used


def with_names(records: Iterator[Record], names: Mapping[str, list[str]]) -> Iterator[Record]:
    """Yield records whose numbers of classes are names where there is one; `names` are by column."""
    if not names:
        yield from records
        return
    for place, record in records:
        yield place, named(record, names)


def named(record: dict[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return a record with the names of its classes; a number that has none, as -1 without a label, stays."""
    found = {}
    for column, of_column in names.items():
        number = record.get(column)
        if isinstance(number, int) and 0 <= number < len(of_column):
            found[column] = of_column[number]
    return record | found if found else record
