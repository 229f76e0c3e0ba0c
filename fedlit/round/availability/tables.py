"""CSV files that say something of clients: columns of numbers, checked line by line."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlit.errors import UserError
from fedlit.process.storage import user_path


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberRow:
    """One line of a file: its number, counted from 1, and the numbers of its columns."""

    line: int
    values: dict[str, float]


def read_numbers(path: str, key: str, needed: Sequence[str], optional: Sequence[str] = ()) -> list[NumberRow]:
    """Return the lines of a CSV file with a header; every named column is a finite number of at least 0.

    Args:
        path: the file.
        key: the option that names it, for messages.
        needed: columns that must be there.
        optional: columns that may be there.

    Raises:
        UserError: names file, line, column and value.
    """
    place = user_path(path)
    try:
        with place.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            header = [name.strip() for name in table.fieldnames or ()]
            table.fieldnames = header
            _require_columns(place, key, header, needed, optional)
            names = [name for name in (*needed, *optional) if name in header]
            rows = [_row(place, table.line_num, row, names) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{key}={path} cannot be read ({why}); give a CSV file with {', '.join(needed)}") from None
    if not rows:
        raise UserError(f"{key}={path} has no line; give a CSV file with {', '.join(needed)}")
    return rows


def client_of(path: str, key: str, row: NumberRow) -> int:
    """Return the client that a line is about.

    Raises:
        UserError: it is no whole number.
    """
    value = row.values["client"]
    if value != int(value):
        raise UserError(f"{key}={path}, line {row.line}: client={value} is no client's number; clients count from 0")
    return int(value)


def _require_columns(
    place: Path, key: str, header: Sequence[str], needed: Sequence[str], optional: Sequence[str]
) -> None:
    if lacking := [name for name in needed if name not in header]:
        raise UserError(f"{key}={place} has no column {lacking[0]}; its first line must name {', '.join(needed)}")
    if twice := [name for name in (*needed, *optional) if header.count(name) > 1]:
        raise UserError(f"{key}={place} has the column {twice[0]} twice; leave one of them out")


def _row(place: Path, line: int, row: dict[str, str], names: Sequence[str]) -> NumberRow:
    if None in row or None in row.values():  # csv's names for cells without a column, and columns without a cell
        raise UserError(f"{place}, line {line} has not as many cells as the first line; mend it")
    return NumberRow(line=line, values={name: _number(place, line, name, row[name]) for name in names})


def _number(place: Path, line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{place}, line {line}: {name}={text!r} is no number of at least 0; mend the line")
    return value
