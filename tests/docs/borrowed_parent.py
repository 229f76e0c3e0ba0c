"""The test's warm parent in place of a command's own: `fedlit compare` and `sweep run` fork their runs from it."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


class BorrowedParent:
    """What `fedlit.process.warm.WarmParent` is to a command, by the test's socket."""

    address = ""

    def __init__(self, *_parts: Any, **_options: Any) -> None:
        self.pid = os.getpid()

    def __call__(self, words: Sequence[str], environment: Mapping[str, str], console: Path | None) -> "BorrowedRun":
        asked = socket.socket(socket.AF_UNIX)
        asked.connect(self.address)
        request = {
            "name": "run",
            "words": list(words),
            "folder": str(Path.cwd()),
            "environment": dict(environment),
            "console": str(Path(console or "/dev/null").absolute()),
        }
        asked.sendall(json.dumps(request).encode() + b"\n")
        return BorrowedRun(asked)

    def close(self) -> None:
        """Leave the parent to the test."""


class BorrowedRun:
    """A run that was asked for."""

    def __init__(self, asked: socket.socket) -> None:
        self.pid: int | None = None
        self._asked, self._text, self._code = asked, b"", None

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        if self._code is None:
            with suppress(BlockingIOError):
                self._text += self._asked.recv(4096, socket.MSG_DONTWAIT)
            for line in self._text.splitlines():
                answer = json.loads(line)
                self.pid, self._code = answer.get("pid", self.pid), answer.get("code", self._code)
        return self._code

    def send_signal(self, number: int, /) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None and self.pid is not None:
            os.kill(self.pid, number)
