"""Training rows as examples, each encoded once in a run and kept as integers, which the processes of a node share.

A row becomes an example when a client first trains on it. Its integers go into a file that all processes of the node
add to and read from (`fedlit.data.scratch`); an example is made of them each time a client trains on the row. So no
process holds examples of rows that it is not training on, and no start waits for rows that no round will use.
"""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from fedlit.data.prompts import Row
from fedlit.data.scratch import ScratchFile
from fedlit.process import communication
from fedlit.tasks import Example, Packed, Task

NUM_AT_ONCE = 256
"""Rows given to a tokenizer at once: it keeps the offsets and the texts of all their tokens until it is done, 70 kB a
row of 230 tokens."""

_ENTRY = struct.Struct("=qII")
"""Of each row: place of its bytes, their number (none: not encoded yet), their checksum."""


@dataclass(kw_only=True)
class ExampleStore:
    """The examples of all training rows of a run, by row number.

    kind: the task's examples. examples: the file of their bytes. entries: the file that says where each of them is.
    Both files have no name any more; without them every row is encoded each time.
    """

    task: Task[Any, Any]
    kind: type[Packed] | None
    examples: ScratchFile | None = None
    entries: ScratchFile | None = None
    num_encoded: int = field(default=0, init=False)
    """Rows that this process has encoded so far."""

    @classmethod
    def shared(cls, task: Task[Any, Any]) -> ExampleStore:
        """Return the store of this run, one for all processes of a machine. All processes of the run call it."""
        kind = task.packed_examples
        files = _shared_files(2) if kind is not None else None
        if files is None:
            return cls(task=task, kind=kind)
        return cls(task=task, kind=kind, examples=files[0], entries=files[1])

    def of(self, numbers: Sequence[int], rows: Sequence[Row]) -> list[Example]:
        """Return the examples of the rows with these numbers, of which `rows` are looked at where one is new."""
        found: list[Any] = [self._found(number) for number in numbers]
        new = [place for place, example in enumerate(found) if example is None]
        for start in range(0, len(new), NUM_AT_ONCE):
            part = new[start : start + NUM_AT_ONCE]
            for place, example in zip(part, self.task.encode([rows[place] for place in part]), strict=True):
                found[place] = self._keep(numbers[place], example)
        self.num_encoded += len(new)
        return found

    def _found(self, number: int) -> Packed | None:
        """Return an example that some process has encoded; None where there is none, or not wholly written yet."""
        if self.kind is None or self.examples is None or self.entries is None:
            return None
        entry = self.entries.read(number * _ENTRY.size, _ENTRY.size)
        place, size, checksum = _ENTRY.unpack(entry) if len(entry) == _ENTRY.size else (0, 0, 0)
        if not size:
            return None
        data = self.examples.read(place, size)
        return self.kind.unpacked(data) if len(data) == size and zlib.crc32(data) == checksum else None

    def _keep(self, number: int, example: Any) -> Any:
        """Write an example and return it as it is read; a disk that takes no more ends the keeping, not the run."""
        if self.kind is None:
            return example
        data = example.packed()
        if self.examples is None or self.entries is None:
            return self.kind.unpacked(data)
        try:
            place = self.examples.append(data)
            self.entries.write(number * _ENTRY.size, _ENTRY.pack(place, len(data), zlib.crc32(data)))
        except OSError:
            self.examples = self.entries = None
        return self.kind.unpacked(data)


@dataclass(frozen=True)
class ClientRows(Sequence[Row]):
    """The training rows of one client, which are looked up in those of the run when they are asked for.

    rows: of the run. numbers: those of them that are the client's.
    """

    rows: Sequence[Row]
    numbers: Sequence[int]
    store: ExampleStore

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

    def examples(self, places: Sequence[int]) -> list[Example]:
        """Return the examples of rows by their place among the client's."""
        numbers = [self.numbers[place] for place in places]
        return self.store.of(numbers, _Chosen(self.rows, numbers))


@dataclass(frozen=True)
class _Chosen(Sequence[Row]):
    """Rows by their numbers, each looked up when it is asked for."""

    rows: Sequence[Row]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        return self.rows[self.numbers[place]]


def examples_of(task: Task[Any, Any], rows: Sequence[Row], places: Sequence[int]) -> list[Any]:
    """Return the examples of some of a client's rows: kept ones, or made now where they are plain rows."""
    if isinstance(rows, ClientRows):
        return rows.examples(places)
    return task.encode([rows[place] for place in places])


def _shared_files(num: int) -> list[ScratchFile] | None:
    """Return new files that all processes of a machine have open, without a name; None where there can be none.

    The first process of each machine makes them, as far as the machine's name tells; one that does not find them, being
    in another container, makes its own.
    """
    host = socket.gethostname()
    hosts = communication.gather_objects(host)
    first = hosts.index(host)
    files = _made(num) if first == communication.process_index() else []
    try:
        paths = communication.gather_objects([file.path for file in files])[first]
        files = files or _opened(paths) or _made(num)
        communication.barrier()  # all have opened them
    finally:
        for file in files:
            file.forget_name()
    return files or None


def _made(num: int) -> list[ScratchFile]:
    with suppress(OSError):
        return [ScratchFile.make() for _ in range(num)]
    return []


def _opened(paths: Sequence[Path]) -> list[ScratchFile]:
    with suppress(OSError):
        return [ScratchFile(path) for path in paths]
    return []
