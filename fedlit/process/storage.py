"""What a file system refuses, in one line; texts written whole or not at all, and what dead writers left behind.

Libraries say it in their own ways: safetensors and tokenizers with Rust's `(os error 28)`, torch.save with a
RuntimeError about a position whose context is the OSError.
"""

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedlit.errors import StorageError, UserError

_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BROKEN = {errno.EIO, errno.EROFS, errno.ESTALE}
_IN_THE_WAY = {
    *(errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
    *(errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE),
}
"""Told only where the error names a file: sockets know some of these too."""
_OS_ERROR = re.compile(r"\(os error ([0-9]+)\)")
_OLD_S = 3600.0
"""Age from which on a file of another machine's process counts as left behind: no text takes an hour to write."""
_PARTIAL = re.compile(r"\..+\.(?P<host>[^.]+)\.(?P<pid>[0-9]+)\.partial")


def storage_error(error: BaseException, folder: Path, *, goes_on: bool = False) -> StorageError | None:
    """Return what an error says of the file system in one line; None if it is of another kind.

    folder: what was being written, named where there is no space left, since the error often names no file.
    goes_on: the same command goes on where this one stopped.
    """
    then = "; the same command goes on" if goes_on else ""
    for each in _chain(error):
        number, reason, name = _refusal(each)
        if number in _SPACE:
            return StorageError(
                f"{_short(name or folder)} cannot be written ({reason}); free some space or raise the quota{then}"
            )
        if number in _BROKEN or (number in _IN_THE_WAY and name is not None):
            return StorageError(f"{_short(name or folder)}: {reason}; mend it, or choose another folder{then}")
    return None


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a run resumed after a crash, sees either the old or the new whole text, which
    is on the disk with its name.

    Several processes may write it at once.

    Raises:
        OSError: as `replacing`.
    """
    with replacing(path) as target, target.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if target != path:
            os.fsync(file.fileno())
    if path.is_file():
        sync(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a file to write that takes the place of `path` at the end; what is no file, such as /dev/stdout,
    is itself written to.

    Raises:
        OSError: it cannot be written, with a name in it; nothing is left beside it.
    """
    special = path.exists() and not path.is_file()
    target = path if special else partial_path(path)
    try:
        yield target
        if not special:
            target.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # that of a write names no file
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        if not special:
            target.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Return the name under which this process writes a file before it has its own."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.partial")


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot do this to a folder
            raise
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove what dead processes were writing in a folder and below, as far as that is known.

    A name says which process of which machine wrote it; one without, such as a checkpoint's `round-0003.partial`, is
    that of whoever holds the run's lock: call this as the holder.
    """
    for path in [*folder.rglob("*.partial")]:
        match = _PARTIAL.fullmatch(path.name)
        try:
            if match is not None and _may_live(match["host"], int(match["pid"]), path):
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError:
            continue  # gone in this moment, or not ours to remove


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it; nothing happens if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def user_path(text: str) -> Path:
    """Return a path that a user gave, with `~` for the home folder.

    Raises:
        UserError: there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text!r:.200}: there is no such user; give the path from / on") from None


def _may_live(host: str, pid: int, path: Path) -> bool:
    if host != _host():
        return time.time() - path.stat().st_mtime < _OLD_S
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def _host() -> str:
    return socket.gethostname().partition(".")[0] or "host"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from or while."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        yield current
        current = current.__cause__ or current.__context__


def _refusal(error: BaseException) -> tuple[int | None, str, Path | None]:
    """Return the system's number of an error, its words for it, and the file that the error names."""
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename2 or error.filename
        named = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None
        return error.errno, os.strerror(error.errno), named
    if match := _OS_ERROR.search(str(error)):
        return int(match[1]), os.strerror(int(match[1])), None
    return None, "", None


def _short(path: Path) -> str:
    """Return a path cut at its beginning to a length that leaves room for the rest of a line."""
    text = str(path)
    return text if len(text) <= 200 else f"...{text[-200:]}"
