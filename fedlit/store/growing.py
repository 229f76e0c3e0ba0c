"""Files to which every round adds lines: a checkpoint names as much of one as it needs, and no round copies it.

`records-0004.jsonl` was begun by the checkpoint of round 4, with all records up to there. That of round 9 says
{"file": "records-0004.jsonl", "bytes": 5120, "sha256": "..."}: the first bytes, whatever was added since, or was being
added when the process was killed. Nobody writes on in the file of another process: each begins its own.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlit.process.storage import replacing, sync


class DamagedError(Exception):
    """A checkpoint is not what was written, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefix:
    """The first bytes of a file that grows, and their SHA-256."""

    file: str
    num_bytes: int
    sha256: str

    @classmethod
    def of_json(cls, content: Any, kind: str) -> "Prefix":
        """Return what a manifest says of a file of this kind.

        Raises:
            DamagedError: it says something else.
        """
        if isinstance(content, dict):
            file, size, sha256 = (content.get(name) for name in ("file", "bytes", "sha256"))
            is_table = isinstance(file, str) and re.fullmatch(rf"{kind}-[0-9]{{4,18}}\.jsonl", file)
            if is_table and type(size) is int and size >= 0 and isinstance(sha256, str):
                return cls(file=str(file), num_bytes=size, sha256=sha256)
        raise DamagedError(f"{kind} in manifest.json is no file with its bytes and hash")

    @classmethod
    def empty(cls, kind: str) -> "Prefix":
        """Return nothing of a file that need not be there."""
        return cls(file=f"{kind}-0000.jsonl", num_bytes=0, sha256=hashlib.sha256().hexdigest())

    def to_json(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        return {"file": self.file, "bytes": self.num_bytes, "sha256": self.sha256}

    def read(self, path: Path) -> bytes:
        """Return the bytes, from a file under any name.

        Raises:
            DamagedError: it cannot be read, or has other ones.
        """
        try:
            content = b""
            if self.num_bytes:
                with path.open("rb") as file:
                    content = file.read(self.num_bytes)
        except FileNotFoundError as error:
            raise DamagedError(f"{path.name} is missing") from error
        except (OSError, ValueError) as error:
            raise DamagedError(f"{path.name} cannot be read: {getattr(error, 'strerror', error)}") from error
        if len(content) != self.num_bytes or hashlib.sha256(content).hexdigest() != self.sha256:
            raise DamagedError(f"{path.name} is not as it was written")
        return content


class Growing:
    """A file of this process that grows. Everything is on the disk when a method returns.

    Args:
        folder: where it lies.
        kind: how its name begins.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder = folder
        self._kind = kind
        self._prefix: Prefix | None = None
        self._digest = hashlib.sha256()

    @property
    def num_bytes(self) -> int | None:
        """How much there is; None if it is not begun, or somebody has removed or cut it."""
        if self._prefix is None:
            return None
        try:
            size = (self._folder / self._prefix.file).stat().st_size
        except OSError:
            return None
        return self._prefix.num_bytes if size >= self._prefix.num_bytes else None

    def begin(self, round_idx: int, content: bytes) -> Prefix:
        """Write a new file, which has the name of this round."""
        name = f"{self._kind}-{round_idx:04d}.jsonl"
        with replacing(self._folder / name) as target, target.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync(self._folder)
        self._digest = hashlib.sha256(content)
        self._prefix = Prefix(file=name, num_bytes=len(content), sha256=self._digest.hexdigest())
        return self._prefix

    def add(self, content: bytes) -> Prefix:
        """Write on in the file, which was begun."""
        assert self._prefix is not None
        if content:
            with (self._folder / self._prefix.file).open("r+b") as file:
                file.seek(self._prefix.num_bytes)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        self._digest.update(content)
        size = self._prefix.num_bytes + len(content)
        self._prefix = Prefix(file=self._prefix.file, num_bytes=size, sha256=self._digest.hexdigest())
        return self._prefix
