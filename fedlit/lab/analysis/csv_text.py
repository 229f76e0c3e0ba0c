"""Tables as CSV whose texts no spreadsheet computes."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fedlit.lines import printable

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the beginning of a formula, itself or after it has trimmed the cell."""

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as CSV under a line of heads; what a row does not have, and None, is an empty cell.

    A text, or a head, that a spreadsheet would compute begins with an apostrophe, as spreadsheets themselves write it;
    numbers stay numbers. Line breaks and control characters are escapes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_inert(column) for column in columns])
    writer.writerows([_inert(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def _inert(value: Any) -> Any:
    if not isinstance(value, str):
        return "" if value is None else value
    value = printable(value)  # Python's csv reads no carriage return that it wrote
    if not value.strip().startswith(_FORMULA) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"
