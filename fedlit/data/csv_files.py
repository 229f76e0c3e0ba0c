"""CSV and TSV: every cell is the text that stands there, an empty one null.

Only the column of classes, or of numbers to predict, becomes numbers, and only where every row holds one.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from fedlit.data.places import Place
from fedlit.data.values import shown
from fedlit.data.wanted import Record, Wanted
from fedlit.errors import UserError

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # begins as that of UTF-16
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SEPARATORS = (",", ";", "\t", "|")
_Line = tuple[int, list[str]]


def decoded(content: bytes, place: str) -> str:
    """Return a text file's content; one that is not UTF-8 says which encoding it has, or is refused.

    Raises:
        UserError: it is neither; the message names the line.
    """
    mark = next((mark for mark in _MARKS if content.startswith(mark)), b"")
    try:
        text = content[len(mark) :].decode(_MARKS.get(mark, "utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{place}, line {line}: not UTF-8; save it as UTF-8 (of Windows, say: iconv -f WINDOWS-1252 -t UTF-8 old > "
            "new)"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"{place}, line {line}: holds a NUL character; take it out, or save the file as UTF-8 if it is in UTF-16"
        )
    return text


def read_csv(text: str, place: str, file: str, wanted: Wanted, *, tabs: bool = False) -> list[Record]:
    """Return the rows of a table of text, its first line the names of its columns; `place` names it, `file` its client.

    The separator is the comma, or the semicolon, tab or bar under which the first line has the columns that are asked
    for. With `tabs` it is the tab, and quotes are read as such only where a cell needs them.

    Raises:
        UserError: the line that is no row, or a first line that is no header.
    """
    text = text.removeprefix("\ufeff")
    if (first := re.match(r"sep=(.)\r?\n", text)) is not None:  # as Excel writes it
        separator, skipped = first[1], 1
        text = text[first.end() :]
    else:
        separator, skipped = "\t" if tabs else _separator(text, wanted), 0
    if separator != "," and not tabs:
        wanted.tell(f"{place}: its cells are taken to stand between {shown(separator)}")
    limit = csv.field_size_limit(len(text) + 1)
    try:
        lines = _lines(text, separator, quoted=not (tabs and _is_verbatim(text)))
        return list(_records(lines, place, file, wanted, separator, skipped))
    except csv.Error as error:
        raise UserError(
            f"{place}: {_unclosed(text, separator, error, skipped)}; a quote inside a quoted cell is written twice"
        ) from error
    finally:
        csv.field_size_limit(limit)


def number_targets(tables: Iterable[Sequence[Record]], wanted: Wanted) -> None:
    """Make numbers of the target's cells in place, where every row of the tables holds one: integers as they are
    spelled without a leading zero or sign, and for a regression fractions too.
    """
    column = wanted.target
    rows = [record for table in tables for _, record in table if column in record]
    pattern = _NUMBER if wanted.number else _INTEGER
    cells = [row[column] for row in rows if row[column] is not None]
    if column is None or not all(pattern.fullmatch(cell) for cell in cells):
        return
    for row in rows:
        cell = row[column]
        if cell is not None:
            row[column] = int(cell) if _INTEGER.fullmatch(cell) else float(cell)


def _lines(text: str, separator: str, *, quoted: bool) -> Iterator[_Line]:
    """Yield the cells of every line that is not blank, with the line it begins in, from 1."""
    content = io.StringIO(text, newline="")
    if quoted:
        reader = csv.reader(content, delimiter=separator, strict=True)
    else:
        reader = csv.reader(content, delimiter=separator, strict=True, quoting=csv.QUOTE_NONE)
    first = 1
    for cells in reader:
        if cells:
            yield first, cells
        first = reader.line_num + 1


def _records(
    lines: Iterator[_Line], place: str, file: str, wanted: Wanted, separator: str, skipped: int
) -> Iterator[Record]:
    number, header = next(lines, (1, []))
    names = _header([name.strip() for name in header], f"{place}, line {number + skipped}", wanted)
    if names and not names[0]:
        wanted.tell(f"{place}: its first column has no name and is taken for row numbers, left out")
    for number, cells in lines:
        where = Place(f"{place}, line {number + skipped}", file)
        if len(cells) != len(names):
            kind = {"\t": "tab"}.get(separator, separator)
            raise UserError(
                f"{where}: {len(cells)} cells, and the first line names {len(names)} columns; put a cell that holds a "
                f"{kind} or a line break between double quotes"
            )
        row: dict[str, Any] = {name: cell or None for name, cell in zip(names, cells, strict=True) if name}
        yield where, row


def _header(names: list[str], place: str, wanted: Wanted) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1 and name), None)
    if twice is not None:
        raise UserError(f"{place}: two columns are called {shown(twice)}; rename one")
    if "" in names[1:]:
        raise UserError(f"{place}: column {names.index('', 1) + 1} has no name; name it in the first line")
    if names and wanted.own and not set(wanted.own) & set(names):
        columns = ", ".join(map(repr, names))[:120]
        raise UserError(
            f"{place}: is taken for the names of columns, {columns}, and none of them is asked for ("
            f"{', '.join(map(repr, wanted.own[:3]))}); put the names in a line above the rows, or name the columns "
            "with data.prompt and data.response, or data.text and data.target"
        )
    return names


def _separator(text: str, wanted: Wanted) -> str:
    """Return what stands between the names of the first line: where most of those asked for are found."""
    best, most = ",", (0, False)
    for separator in _SEPARATORS:
        try:
            names = next(_lines(text, separator, quoted=True), (0, []))[1]
        except csv.Error:
            continue
        found = (len({name.strip() for name in names} & set(wanted.columns)), len(names) > 1)
        if found > most:
            best, most = separator, found
    return best


def _is_verbatim(text: str) -> bool:
    """Tell whether the quotes in a table between tabs are part of its texts: it cannot be read with them as marks, or
    no cell would need them, and the first line has none.
    """
    if '"' not in text:
        return True
    try:
        lines = [cells for _, cells in _lines(text, "\t", quoted=True)]
    except csv.Error:
        return True
    if text.startswith('"'):
        return False
    needed = any(sign in cell for cells in lines for cell in cells for sign in '\t\n"')
    return not needed or any(len(cells) != len(lines[0]) for cells in lines)


def _unclosed(text: str, separator: str, error: csv.Error, skipped: int) -> str:
    """Return the line in which a quoted cell begins that does not end as it should."""
    lines, number = _lines(text, separator, quoted=True), 0
    with suppress(csv.Error):
        while True:
            number = next(lines)[0]
    what = "does not end" if "unexpected end" in str(error) else f"is not well quoted ({error})"
    return f"a cell after line {number + skipped} {what}"
