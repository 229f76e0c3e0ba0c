"""One run at a time in a run folder: lock.json tells who, and process 0 of the run holds it until its end.

A lock outlives a killed run. It is stale at once if its process is gone from this machine, if it is this SLURM job's
from before it was requeued, or if squeue does not know its job any more; else after some minutes without a heartbeat,
which is the file's time of modification. The file is made by a hard link, which is exclusive on network file systems
too.
"""

import hashlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedlit.errors import UserError
from fedlit.process import slurm

PATH = "lock.json"
BEAT_S = 20.0
"""Time between heartbeats."""
STALE_AFTER_S = 300.0
"""Silence after which a lock counts as stale, if nothing else tells."""
_MISSED_BEATS_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """A process that holds a lock, or held it.

    machine: one running kernel and one space of process numbers; empty where /proc does not tell. process_start: the
    kernel's time of the process's start, which tells it from a later one of the same number. since_s: seconds since
    the epoch.
    """

    token: str
    host: str
    machine: str
    pid: int
    process_start: str | None
    job: str | None
    cluster: str | None
    restart_count: int
    since_s: float


class RunLock:
    """A lock that this process holds. A thread touches it until it is released."""

    def __init__(self, path: Path, holder: Holder, on_lost: Callable[[], None]) -> None:
        self.holder = holder
        self._path = path
        self._on_lost = on_lost
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run lock", daemon=True)
        self._thread.start()

    def is_held(self) -> bool:
        """Tell whether nobody has taken the lock over, who thought this process dead."""
        found = _read(self._path)
        return found is not None and found.holder is not None and found.holder.token == self.holder.token

    def release(self) -> None:
        """Give the lock back, if it is still this process's; the second call does nothing."""
        if self._released.is_set():
            return
        self._released.set()
        self._thread.join()
        if self.is_held():
            self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            try:
                if not self.is_held():
                    self._on_lost()
                    return
                os.utime(self._path)  # without times: a file server stamps with its own clock
            except OSError:
                continue  # a file server that is away for a moment


def take_lock(
    folder: Path, *, environ: Mapping[str, str] = os.environ, on_lost: Callable[[], None] = lambda: None
) -> RunLock:
    """Return the lock of an existing run folder, held by this process. `on_lost` is called, in a thread, when another
    run has taken it over nevertheless.

    Raises:
        UserError: a run that lives holds it, or the folder cannot be written.
    """
    me = this_process(environ)
    draft = folder / f".lock-{me.token}.json"
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(me), indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            _take(folder / PATH, draft, me)
        finally:
            draft.unlink()
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another run.dir") from error
    return RunLock(folder / PATH, me, on_lost)


def holder(folder: Path, living_jobs: Collection[str] | None = None) -> Holder | None:
    """Return the living process that holds a run folder's lock, None if nobody does.

    living_jobs: ids of this user's SLURM jobs that have processes, where the caller has asked; squeue is not asked
    here, so that many folders are looked at quickly.
    """
    try:
        found = _read(folder / PATH)
    except OSError:  # a folder in its place, say
        return None
    if found is None or found.holder is None:
        return None

    def is_alive(job: str) -> bool | None:
        return None if living_jobs is None or found.owner != os.getuid() else job in living_jobs

    me = this_process(os.environ)
    return found.holder if _lives(found.holder, me, time.time() - found.touched_s, is_alive) else None


def this_process(environ: Mapping[str, str]) -> Holder:
    """Return this process as a holder."""
    pid = os.getpid()
    return Holder(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=_machine(),
        pid=pid,
        process_start=_process_start(pid),
        job=slurm.job_id(environ),
        cluster=environ.get("SLURM_CLUSTER_NAME"),
        restart_count=slurm.restart_count(environ),
        since_s=time.time(),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A lock file as it was read. holder: None for a file cut short. owner: user id."""

    digest: str
    holder: Holder | None
    touched_s: float
    owner: int


def _take(path: Path, draft: Path, me: Holder) -> None:
    """Make `draft` the file of a lock, in place of a stale one if need be.

    Only who holds the stale file's successor, a lock named after its content, may replace it. So of two who take over
    at the same moment one does, and one that dies in the middle is taken over in its turn.
    """
    while not _link(draft, path):
        found = _read(path)
        if found is None:
            continue  # released in this moment
        os.utime(draft)
        silent_s = draft.stat().st_mtime - found.touched_s  # both by the clock of the file system
        if _lives(found.holder, me, silent_s, slurm.is_alive):
            raise UserError(_refusal(path.parent, found.holder, me, silent_s))
        successor = path.with_name(f".lock-after-{found.digest}.json")
        _take(successor, draft, me)
        again = _read(path)
        if again is not None and again.digest == found.digest:
            successor.replace(path)
            return
        successor.unlink()


def _link(draft: Path, path: Path) -> bool:
    """Make the file at `path`, whole and exclusively; False if there is one."""
    try:
        os.link(draft, path)
    except FileExistsError:
        # The answer of a file server to a link that it made can get lost, and the repeated request finds the file.
        return path.exists() and draft.samefile(path)
    except OSError:  # a file system without hard links
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(draft.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


def _read(path: Path) -> _Found | None:
    """Return the lock file at `path`, None if there is none."""
    try:
        content = path.read_bytes()
        stat = path.stat()
    except FileNotFoundError:
        return None
    try:
        found = _holder(json.loads(content))
    except (ValueError, TypeError, RecursionError):
        found = None
    digest = hashlib.sha256(content).hexdigest()[:16]
    return _Found(digest=digest, holder=found, touched_s=stat.st_mtime, owner=stat.st_uid)


def _holder(content: Mapping[str, Any]) -> Holder:
    """Return who a lock's file names.

    Raises:
        ValueError, TypeError: it is of another shape.
    """
    found = Holder(**content)
    texts = (found.token, found.host, found.machine)
    names = (found.process_start, found.job, found.cluster)
    numbers = (found.pid, found.restart_count)
    if not (
        all(isinstance(text, str) for text in texts)
        and all(name is None or isinstance(name, str) for name in names)
        and all(type(number) is int and 0 <= number < 2**31 for number in numbers)
        and isinstance(found.since_s, float | int)
        and 0 <= found.since_s < 2**40
    ):
        raise ValueError("no holder of a lock")
    return found


def _lives(other: Holder | None, me: Holder, silent_s: float, is_alive: Callable[[str], bool | None]) -> bool:
    """Tell whether the holder of a lock has to be taken for alive; None is one that nothing is known of."""
    if other is None:
        return silent_s < STALE_AFTER_S
    same_cluster = me.cluster in (None, other.cluster)
    if other.job is not None and other.job == me.job and same_cluster and other.restart_count < me.restart_count:
        return False
    if (other.host, other.machine) == (me.host, me.machine):
        return _process_lives(other)
    # Outside a job nothing says which cluster squeue would be asked about: then a few beats must be missing too.
    asked = other.job is not None and same_cluster and (me.cluster is not None or silent_s > _MISSED_BEATS_S)
    if asked and other.job is not None and is_alive(other.job) is False:
        return False
    return silent_s < STALE_AFTER_S


def _process_lives(other: Holder) -> bool:
    try:
        os.kill(other.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return _process_start(other.pid) in (None, other.process_start)


def _process_start(pid: int) -> str | None:
    """Return when a process began, in the kernel's ticks; `dead` for one that only waits to be counted; None where
    /proc does not tell.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in brackets before may hold spaces
    return "dead" if fields[0] in "ZX" else fields[19]


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _refusal(folder: Path, other: Holder | None, me: Holder, silent_s: float) -> str:
    wait = f"if that run is dead, try again in {max(STALE_AFTER_S - silent_s, 1):.0f} s"
    if other is None:
        return f"{folder} is in use by another run ({PATH} is cut short); {wait}"
    job = f", SLURM job {other.job}" if other.job else ""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(other.since_s))
    here = (other.host, other.machine) == (me.host, me.machine)
    remedy = "stop that run or choose another run.name" if here else f"stop that run; {wait}"
    return f"{folder} is in use by another run (host {other.host}, process {other.pid}{job}, since {since}); {remedy}"
