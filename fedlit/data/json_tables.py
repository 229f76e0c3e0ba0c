"""Tables in a .json file: one object a line, a list of rows, rows under a key, an object of columns, an object of rows.

Types are those of JSON, and a text that looks like a date stays a text.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fedlit.data.json_files import parse_json
from fedlit.data.places import Place
from fedlit.data.table_paths import TableFile
from fedlit.data.wanted import Record, Wanted
from fedlit.errors import UserError

_FORM = "write a list of objects, or one object per line"


def read_json_table(content: bytes, file: TableFile, wanted: Wanted) -> Iterator[Record]:
    """Yield the rows of a .json file with their lines, from 1, their numbers, from 0, or their keys.

    Raises:
        UserError: it is not JSON, holds several lists of rows or none, or columns of different lengths.
    """
    text = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    key = None if file.in_archive else file.part
    if key is None and text.startswith(b"{") and _is_lines(text):
        yield from _read_lines(content, file)
        return
    place = f"{wanted.key}={file}"
    value = parse_json(content, str(file), _FORM)
    if isinstance(value, dict):
        value = _rows_of(value, place, wanted) if key is None else _chosen(value, key, place)
    if isinstance(value, dict):
        rows = _numbered(value, place)
    elif isinstance(value, list):
        rows = ((f"row {i}", row) for i, row in enumerate(value))
    else:
        raise UserError(f"{place}: {type(value).__name__}, not rows; {_FORM}")
    for where, row in rows:
        yield Place(f"{file}, {where}", file.name), row


def _is_lines(text: bytes) -> bool:
    """Tell whether the first line of JSON is an object of its own, with others below it."""
    first, _, rest = text.partition(b"\n")
    if not rest.strip():
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _read_lines(content: bytes, file: TableFile) -> Iterator[Record]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            place = f"{file}, line {number}"
            yield Place(place, file.name), parse_json(line, place, "write one object per line")


def _chosen(value: Mapping[str, Any], key: str, place: str) -> Any:
    """Return what stands under the key that was named."""
    if key not in value:
        raise UserError(f"{place}: no key {key!r} in the file, which has {', '.join(value)[:120]}; name one of these")
    if not isinstance(value[key], list | dict):
        raise UserError(f"{place}: {type(value[key]).__name__} under this key, not rows; name another")
    return value[key]


def _rows_of(value: dict[str, Any], place: str, wanted: Wanted) -> Any:
    """Return the rows of one object: those of its only list of rows, or the object itself if it holds columns or rows;
    one that is neither is a row.
    """
    lists = {key: rows for key, rows in value.items() if _is_rows(rows)}
    columns = all(isinstance(rows, list) for rows in value.values()) and len(lists) < len(value)
    if columns and len({len(rows) for rows in value.values()}) == 1:
        return value
    if len(lists) == 1:
        (key,) = lists
        wanted.tell(f"{place}: the rows are those under {key!r}")
        return lists[key]
    if lists:
        told = ", ".join(f"{key} ({len(rows)})" for key, rows in list(lists.items())[:4])
        raise UserError(
            f"{place}: lists of rows under several keys, {told}; name one, as '{place}#{next(iter(lists))}'"
        )
    if value and all(isinstance(inner, list | dict) for inner in value.values()):
        return value
    return [value]


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _numbered(value: dict[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    """Yield the rows of an object of columns, or of rows by their keys."""
    inner = list(value.values())
    if all(isinstance(cells, list) for cells in inner):
        lengths = {name: len(cells) for name, cells in value.items()}
        if len(set(lengths.values())) > 1:
            short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
            raise UserError(
                f"{place}: column {short!r} holds {lengths[short]} cells and {long!r} {lengths[long]}; give every "
                "column a cell for each row, or write a list of rows"
            )
        rows = zip(*inner, strict=True)
        yield from ((f"row {i}", dict(zip(value, cells, strict=True))) for i, cells in enumerate(rows))
    elif all(isinstance(cells, dict) for cells in inner):
        if all(key.isdecimal() for cells in inner for key in cells):  # columns, with the rows' numbers
            keys = list(dict.fromkeys(key for cells in inner for key in cells))
            for key in keys:
                yield f"row {key}", {name: cells[key] for name, cells in value.items() if key in cells}
        else:
            yield from ((f"row {key!r}", row) for key, row in value.items())
    else:
        raise UserError(f"{place}: lists and objects in one object, neither columns nor rows; {_FORM}")
