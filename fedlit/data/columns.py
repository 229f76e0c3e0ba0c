"""Columns of a row: that they are there, and that a label is one."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlit.data.prompts import Row
from fedlit.data.values import looks, require_encodable, shown
from fedlit.errors import UserError

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig


def column_values(rows: Sequence[Row], column: str, key: str) -> list[str]:
    """Return one column of every row as text; `key` is the option that named the column.

    Raises:
        UserError: a row lacks the column, or has null or blank or no plain value there.
    """
    return [label_text(row, column, f"row {i}", key) for i, row in enumerate(rows)]


def text_columns(data: DataConfig) -> list[str]:
    """Return the columns of `data.text` that a classification reads: one, or the two of a pair."""
    if data.text is None:
        return ["text"]
    return [data.text] if isinstance(data.text, str) else data.text


def require_column(row: Row, column: str, place: str, key: str) -> None:
    """Raise UserError if a row lacks a column; `place` names the row and `key` is the option that named the column."""
    if column not in row:
        columns = [str(name) for name in row]
        close = difflib.get_close_matches(column, columns, n=1, cutoff=0.5)
        nearest = f"; the nearest is {close[0]!r}" if close else ""
        raise UserError(f"{place}: no column {column!r} (asked for by {key}) among {columns}{nearest}{_remedy(key)}")


def _remedy(key: str) -> str:
    """Return how to name another column than the one that is not there; '' where the key says it."""
    if key in ("data.template", "data.required"):
        return "; give data.prompt=<column>, or data.template"
    if key == "data.label":
        return "; give data.label=<column>, or data.label=null partition.name=iid where rows have no labels"
    named = ("data.prompt", "data.response", "data.messages", "data.image", "data.target")
    return f"; give {key}=<column>" if key in named else ""


def label_text(row: Row, column: str, place: str, key: str) -> str:
    """Return a label as text, the same arguments as require_column.

    Raises:
        UserError: the row lacks the column, or has null or blank or no plain value there.
    """
    require_column(row, column, place, key)
    value = row[column]
    is_label = isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    if not is_label or not str(value).strip():
        raise UserError(
            f"{place}: column {column!r} ({key}) holds {shown(value)}, not a label; fill it in or choose another {key}"
        )
    require_encodable(str(value), place, f"column {shown(column)}")
    return str(value)


def label_notices(rows: Sequence[Row], column: str, key: str) -> list[str]:
    """Return a line where labels that look alike are taken for several ("pos" and "pos "), and one where values of two
    kinds (1 and "1") are taken for one. The labels are checked already; arguments as of `column_values`.
    """
    by_looks: dict[str, dict[str, Any]] = {}
    kinds: dict[str, dict[type, Any]] = {}
    for row in rows:
        value = row[column]
        by_looks.setdefault(looks(value), {})[str(value)] = value
        kinds.setdefault(str(value), {})[type(value)] = value
    notices = []
    for what, groups in (("different labels", by_looks), ("one label", kinds)):
        found = [list(group.values()) for group in groups.values() if len(group) > 1]
        if found:
            pair = " and ".join(map(shown, found[0][:2]))
            more = f", and {len(found) - 1} more such pairs" if len(found) > 1 else ""
            notices.append(f"column {shown(column)} ({key}) holds {pair}{more}, which are taken for {what}")
    return notices
