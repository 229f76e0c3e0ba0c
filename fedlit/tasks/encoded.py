"""Training rows as examples, each encoded once in a run and kept as integers, which the processes of a node share.

A row becomes an example when a client first trains on it. Its integers go into a file that all processes of the node
add to and read from (`fedlit.data.scratch`); an example is made of them each time a client trains on the row. So no
process holds examples of rows that it is not training on, and no start waits for rows that no round will use.
"""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedlit.data.kept_rows import ChosenRows, KeptRows
from fedlit.data.prompts import Row
from fedlit.data.scratch import ScratchFile
from fedlit.process import communication
from fedlit.tasks import Packed, Task

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

    def of(self, numbers: Sequence[int], rows: Sequence[Row]) -> list[Any]:
        """Return the examples of the rows with these numbers, of which `rows` are looked at where one is new."""
        found: list[Any] = [self._found(number) for number in numbers]
        new = [place for place, example in enumerate(found) if example is None]
        for start in range(0, len(new), NUM_AT_ONCE):
            part = new[start : start + NUM_AT_ONCE]
            for place, example in zip(part, self.task.encode([rows[place] for place in part]), strict=True):
                found[place] = self._keep(numbers[place], example)
        self.num_encoded += len(new)
        return found

    def close(self) -> None:
        """Close the files; what is asked for from now on is encoded each time."""
        for file in (self.examples, self.entries):
            if file is not None:
                file.close()
        self.examples = self.entries = None

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


def close_examples(clients: Iterable[Sequence[Row]]) -> None:
    """Close the files of these clients' examples, at the end of a run: a process that runs many would keep all of them
    open. Rows are encoded anew where somebody asks for examples afterwards.
    """
    for store in {id(rows.store): rows.store for rows in clients if isinstance(rows, ClientRows)}.values():
        store.close()


class ClientRows(ChosenRows):
    """The training rows of one client, looked up in those of the run, and their examples."""

    def __init__(self, rows: Sequence[Row], numbers: Sequence[int], store: ExampleStore) -> None:
        """Give the run's rows, the numbers of the client's and the run's examples."""
        super().__init__(rows, numbers)
        self.store = store

    def examples(self, places: Sequence[int]) -> list[Any]:
        """Return the examples of rows by their place among the client's."""
        numbers = [self.numbers[place] for place in places]
        return self.store.of(numbers, ChosenRows(self.rows, numbers))


def examples_of(task: Task[Any, Any], rows: Sequence[Row], places: Sequence[int]) -> list[Any]:
    """Return the examples of some of a client's rows: kept ones, or made now where they are plain rows."""
    if isinstance(rows, ClientRows):
        return rows.examples(places)
    return task.encode([rows[place] for place in places])


def share_rows(rows: Sequence[Row]) -> None:
    """Let the processes of a machine that keep the same rows in files read one of them. All processes call it."""
    if not all(communication.gather_objects(isinstance(rows, KeptRows))):
        return
    assert isinstance(rows, KeptRows)
    if communication.num_processes() > 1 and (files := _shared_files(1, rows.copy_to)):
        rows.file = files[0]


def _shared_files(num: int, fill: Callable[[ScratchFile], None] = lambda file: None) -> list[ScratchFile] | None:
    """Return new files that all processes of a machine have open, without a name; None where there can be none.

    The first process of each machine makes and fills them, as far as the machine's name tells; one that does not find
    them, being in another container, makes its own.
    """
    host = socket.gethostname()
    hosts = communication.gather_objects(host)
    first = hosts.index(host)
    files = _made(num, fill) if first == communication.process_index() else []
    try:
        paths = communication.gather_objects([file.path for file in files])[first]
        files = files or _opened(paths) or _made(num, fill)
        communication.barrier()  # all have opened them
    finally:
        for file in files:
            file.forget_name()
    return files or None


def _made(num: int, fill: Callable[[ScratchFile], None]) -> list[ScratchFile]:
    files: list[ScratchFile] = []
    try:
        for _ in range(num):
            files.append(ScratchFile.make())
            fill(files[-1])
    except OSError:
        for file in files:
            file.forget_name()
        return []
    return files


def _opened(paths: Sequence[Path]) -> list[ScratchFile]:
    with suppress(OSError):
        return [ScratchFile(path) for path in paths]
    return []
