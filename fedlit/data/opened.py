"""Files as they lie on a disk: plain, compressed, or one member of a zip archive."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from fedlit.errors import UserError

COMPRESSED = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd", ".zip": "zip"}
"""Endings of compressed files, and what they are called."""

BROKEN = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""What broken files are met with, besides an OSError without a number (gzip, bzip2 and zstd)."""


def opened(path: Path, member: str | None = None) -> IO[bytes]:
    """Return a file to read from, its content as it was before it was compressed; `member` is one of an archive.

    Raises:
        OSError, or one of `BROKEN`: it cannot be read; reading may raise them too.
    """
    match path.suffix.lower():
        case ".gz":
            return cast("IO[bytes]", gzip.open(path))
        case ".bz2":
            return bz2.open(path)
        case ".xz":
            return lzma.open(path)
        case ".zst":
            import pyarrow  # noqa: PLC0415  a tenth of a second, for files that need it

            stream = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
            return io.BufferedReader(stream)  # which has lines
        case ".zip":
            return _member(path, member)
        case _:
            return path.open("rb")


def members(path: Path) -> list[str]:
    """Return the names of the files in a zip archive, without what operating systems leave in it."""
    with zipfile.ZipFile(path) as archive:
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    return [name for name in names if not name.startswith("__MACOSX/") and not Path(name).name.startswith(".")]


@contextmanager
def told(path: Path, where: str) -> Iterator[None]:
    """Tell of a file that cannot be read, in one line; `where` begins it, as `data.path=rows.csv`.

    Raises:
        UserError: in place of an OSError and of `BROKEN`.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{where}: no such file; check the path") from error
    except BROKEN as error:
        raise _broken(path, where, error) from error
    except OSError as error:
        if error.errno is None:
            raise _broken(path, where, error) from error
        raise UserError(f"{where}: {error.strerror}; check the path") from error


def compression(path: Path) -> str:
    """Return what a file is compressed with by its ending, '' if it is not."""
    return COMPRESSED.get(path.suffix.lower(), "")


def _broken(path: Path, where: str, error: Exception) -> UserError:
    if "password required" in str(error):
        return UserError(f"{where}: a zip file with a password; unpack it")
    kind = f"{compression(path)} file" if compression(path) else "file"
    return UserError(f"{where}: broken {kind} ({' '.join(str(error).split())[:120]}); fetch or write it again")


def _member(path: Path, name: str | None) -> IO[bytes]:
    """Return a file of an archive, which is closed with it."""
    with zipfile.ZipFile(path) as archive:
        try:
            return archive.open(name or members(path)[0])
        except RuntimeError as error:  # a password, or a way to compress that is not known here
            raise zipfile.BadZipFile(str(error)) from error
