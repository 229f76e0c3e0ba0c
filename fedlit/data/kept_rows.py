"""Rows outside of the process's memory: as lines of JSON in a scratch file, looked up one by one.

A row of three short texts takes a kilobyte as Python objects, in every process, for the whole run; and a run looks at
each row a few times when it starts, and once more when a client first trains on it.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, overload

from fedlit.data.prompts import Row
from fedlit.data.scratch import ScratchFile

_BLOCK_BYTES = 1 << 20
_LEAVES = frozenset({str, int, float, bool, type(None)})
"""Types whose values JSON gives back as they were: exactly these, and no class below them."""


class KeptRows(Sequence[Row]):
    """Rows in a file; each lookup makes a new row.

    file: their lines, one after the other; it may be changed for another with the same content.
    """

    def __init__(self, file: ScratchFile, places: array[int]) -> None:
        """Give a file of lines and the place of each, with that of the end."""
        self.file = file
        self._places = places

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the same rows from a file; `rows` itself where some hold what JSON would change, images or NumPy's
        numbers, or where there is no place for a file.
        """
        if not all(map(_is_plain, rows)):
            return rows
        try:
            file = ScratchFile.make()
            file.forget_name()
            return cls(file, _written(rows, file))
        except (OSError, ValueError):  # no space; a text or a number that cannot be written
            return rows

    @property
    def num_bytes(self) -> int:
        """Bytes of the file."""
        return self._places[-1]

    def copy_to(self, file: ScratchFile) -> None:
        """Add all lines to an empty file.

        Raises:
            OSError: it has no room for them.
        """
        for start in range(0, self.num_bytes, _BLOCK_BYTES):
            file.append(self.file.read(start, min(_BLOCK_BYTES, self.num_bytes - start)))

    def __len__(self) -> int:
        return len(self._places) - 1

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        numbers = range(len(self))[place]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        start = self._places[numbers]
        row: Row = json.loads(self.file.read(start, self._places[numbers + 1] - start).decode())
        return row

    def __iter__(self) -> Iterator[Row]:
        begin, block = 0, b""
        for start, stop in pairwise(self._places):
            if stop > begin + len(block):
                begin, block = start, self.file.read(start, max(_BLOCK_BYTES, stop - start))
            yield json.loads(block[start - begin : stop - begin].decode())


class ChosenRows(Sequence[Row]):
    """Some of a run's rows by their numbers, each looked up when it is asked for."""

    def __init__(self, rows: Sequence[Row], numbers: Sequence[int]) -> None:
        """Give the rows, and the numbers of those that are chosen."""
        self.rows = rows
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self.rows[number] for number in self.numbers[place]]
        return self.rows[self.numbers[place]]


def _written(rows: Sequence[Row], file: ScratchFile) -> array[int]:
    """Write the rows' lines and return the place of each, with that of the end."""
    places, waiting, end = array("q", [0]), bytearray(), 0
    for row in rows:
        line = json.dumps(row, ensure_ascii=False).encode()
        waiting += line
        end += len(line)
        places.append(end)
        if len(waiting) >= _BLOCK_BYTES:
            file.append(bytes(waiting))
            waiting.clear()
    file.append(bytes(waiting))
    return places


def _is_plain(value: Any) -> bool:
    """Tell whether JSON gives a value back as it is."""
    kind = type(value)
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    return kind in _LEAVES or (kind is list and all(map(_is_plain, value)))
