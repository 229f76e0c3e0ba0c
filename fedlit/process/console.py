"""The console of a run, which may go away before the run ends."""

from collections.abc import Callable
from typing import Any, TextIO


class ConsoleFile:
    """A text stream whose loss raises nothing: what nobody can read is dropped.

    on_closed: called once, when the reader of a pipe is gone, as `head` after ten lines.
    """

    def __init__(self, stream: TextIO, on_closed: Callable[[], None]) -> None:
        self._stream = stream
        self._on_closed = on_closed
        self._lost = False

    def write(self, text: str) -> int:
        """Write a text, if it can be written."""
        if not self._lost:
            self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        if not self._lost:
            self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except BrokenPipeError:
            self._lost = True
            self._on_closed()
        except OSError:  # a log on a full disk: the records tell the same
            self._lost = True
