"""Cores and memory of this machine, and the folders that a run reads and writes, with the room in them."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fedlit.machine import Finding, note, problem
from fedlit.units import readable_bytes

LITTLE_ROOM = 2 * 10**9
"""Bytes below which a folder is noted."""


def look_at_places(environ: Mapping[str, str], home: Path, here: Path) -> Iterator[Finding]:
    """Yield cores, memory and folders.

    home: of the user. here: where runs would be started.
    """
    yield cores()
    yield from memory(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))
    cache = Path(environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface")
    yield folder("hub's cache", cache, "set HF_HOME to a larger disk")
    yield folder("run folders", here / "runs", "start runs elsewhere, or give run.dir", needed=True)
    yield folder("temporary", Path(tempfile.gettempdir()), "set TMPDIR")


def cores() -> Finding:
    """Return the cores of the machine, and how many of them this process may use."""
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    return Finding("cores", f"{total}" if usable == total else f"{usable} of {total} are this process's")


def memory(meminfo: Path, cgroup: Path) -> Iterator[Finding]:
    """Yield the machine's memory and the limit of a container or a job below it; nothing where nobody tells."""
    sizes: dict[str, int] = {}
    with suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text().splitlines():
            name, _, rest = line.partition(":")
            sizes[name] = int(rest.split()[0]) * 1024
    if {"MemTotal", "MemAvailable"} <= sizes.keys():
        free, total = readable_bytes(sizes["MemAvailable"]), readable_bytes(sizes["MemTotal"])
        yield Finding("memory", f"{free} of {total} are free")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of version 2 and version 1
        with suppress(OSError, ValueError):
            limit = int((cgroup / name).read_text())
            if limit < sizes.get("MemTotal", 0):
                yield Finding("memory limit", f"{readable_bytes(limit)}, of this container or job")


def folder(name: str, path: Path, remedy: str, *, needed: bool = False) -> Finding:
    """Return the room in a folder, or in the one that it would be made in.

    needed: whether no run works where it cannot be written.
    """
    existing = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return note(name, f"{path} ({error.strerror})", remedy)
    text = f"{path}, {readable_bytes(free)} free"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        what = f"{existing} cannot be written"
        return problem(name, what, remedy) if needed else note(name, what, remedy)
    return Finding(name, text) if free >= LITTLE_ROOM else note(name, text, remedy)
