"""A console that goes away: a closed pipe is told once, nothing is raised."""

import io
from typing import Any, cast

from rich.console import Console

from fedlit.process.console import ConsoleFile


class Broken(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error
        self.num_writes = 0

    def write(self, _text: str) -> int:
        self.num_writes += 1
        raise self.error


def test_a_closed_pipe_is_told_once() -> None:
    told: list[int] = []
    stream = Broken(BrokenPipeError(32, "Broken pipe"))
    console = Console(file=cast(Any, ConsoleFile(stream, lambda: told.append(1))))
    console.print("round 1")
    console.print("round 2")
    assert (told, stream.num_writes) == ([1], 1)


def test_a_full_disk_under_a_log_is_no_end() -> None:
    told: list[int] = []
    console = Console(file=cast(Any, ConsoleFile(Broken(OSError(28, "No space left")), lambda: told.append(1))))
    console.print("round 1")
    assert told == []


def test_a_console_that_stays_is_written_to() -> None:
    stream = io.StringIO()
    file = ConsoleFile(stream, lambda: None)
    Console(file=cast(Any, file), width=40).print("round 1")
    assert stream.getvalue() == "round 1\n"
    assert file.isatty() is False
