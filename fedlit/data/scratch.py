"""Files for bytes that a run needs only while it lives: in the system's folder for such files, without a name as soon
as all who share one have opened it, so that nothing is left after a kill.

They are read and written by place and not mapped: a full disk is then an error that can be told, and not a signal that
ends the process, and what is read counts as the system's cache and not as memory of each process.
"""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self


class ScratchFile:
    """Bytes that several processes of one machine add to and read by place.

    path: its name until `forget_name`.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a file that is there.

        Raises:
            OSError: it cannot be opened.
        """
        self.path = Path(path)
        # Linux adds at the end whatever place is given to a handle that appends: there are two.
        self._file = self.path.open("r+b", buffering=0)
        try:
            self._appending = self.path.open("ab", buffering=0)
        except OSError:
            self._file.close()
            raise

    @classmethod
    def make(cls) -> Self:
        """Return a new, empty file in the system's temporary folder, which only this user can open.

        Raises:
            OSError: the folder cannot be written.
        """
        handle, path = tempfile.mkstemp(prefix="fedlit-rows-")
        os.close(handle)
        try:
            return cls(path)
        except OSError:
            Path(path).unlink(missing_ok=True)  # nobody else knows of it
            raise

    def forget_name(self) -> None:
        """Take the file's name away: it ends with the last process that has it open."""
        with suppress(OSError):
            self.path.unlink()

    def append(self, data: bytes) -> int:
        """Add bytes at the end and return their place; what other processes add does not come in between.

        Raises:
            OSError: there is no space for all of them.
        """
        _require_all(os.write(self._appending.fileno(), data), data)
        return os.lseek(self._appending.fileno(), 0, os.SEEK_CUR) - len(data)

    def write(self, place: int, data: bytes) -> None:
        """Write bytes from a place on; what lies between the end and that place is zeros.

        Raises:
            OSError: there is no space for all of them.
        """
        _require_all(os.pwrite(self._file.fileno(), data, place), data)

    def read(self, place: int, size: int) -> bytes:
        """Return `size` bytes from a place on; fewer where the file ends before."""
        return os.pread(self._file.fileno(), size, place)

    def close(self) -> None:
        """Close the file; one without a name is gone when all have closed it."""
        self._file.close()
        self._appending.close()


def _require_all(written: int, data: bytes) -> None:
    if written < len(data):
        raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were written")
