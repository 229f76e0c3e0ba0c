"""Runs forked from one process that has imported everything: a run starts in a fraction of a second.

The parent is `fedlit.process.warm_server`. Forked runs are this process's own children: it takes orphans in
(PR_SET_CHILD_SUBREAPER of Linux), so a run goes on, and its exit code is known, if the parent is gone.
"""

import ctypes
import errno
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from fedlit.errors import UserError
from fedlit.process.interrupt import STOPPED_EXIT_CODE

SWITCH = "FEDLIT_WARM"
"""Environment variable: `0` lets every run start an interpreter of its own."""

ANSWER_S = 60.0
"""Longest wait for a fork."""

_SERVER = "fedlit.process.warm_server"
_OF_THE_PARENT = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Environment of the parent alone: pyarrow's allocator would start a thread of its own."""
_PR_SET_CHILD_SUBREAPER = 36


class Process(Protocol):
    """A process of a run; subprocess.Popen is one."""

    def poll(self) -> int | None:
        """Return the exit code, minus the signal's number if one ended it; None while it runs."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal, if it still runs."""


class Starter(Protocol):
    """Starts processes of runs. words: those after `python -m`. console: file for what they say; None for the one of
    this process.
    """

    def __call__(self, words: Sequence[str], environment: Mapping[str, str], console: Path | None) -> Process:
        """Start one."""


@contextmanager
def _refusal_told() -> Iterator[None]:
    """Tell in one line that the system starts no further process."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.ENOMEM):
            raise
        raise UserError(
            f"the process of a run cannot be started ({os.strerror(error.errno)}): there are too many processes, or "
            "too little memory; end some, raise `ulimit -u`, or run fewer at once (--jobs)"
        ) from error


def start_cold(words: Sequence[str], environment: Mapping[str, str], console: Path | None) -> Process:
    """Start a process in an interpreter and a process group of its own: no Ctrl-C at the terminal reaches it."""

    def started(out: int | None) -> Process:
        with _refusal_told():
            return subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=None if out is None else subprocess.STDOUT,
                env=environment,
                process_group=0,
            )

    if console is None:
        return started(None)
    with console.open("ab") as file:
        return started(file.fileno())


def can_be_warm(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether runs may be forked here: on Linux, unless the user has switched it off."""
    return sys.platform == "linux" and environ.get(SWITCH, "") != "0"


class WarmParent:
    """The process that has imported everything, seen from the one that asks it for runs.

    Starting it takes no time; runs that are asked for before it is ready are forked as soon as it is, whenever one of
    them is polled. If it fails, they start cold.
    """

    def __init__(
        self,
        modules: Sequence[str],
        environment: Mapping[str, str],
        say: Callable[[str], None],
        cold: Starter,
        *,
        folder: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            modules: words of warm_server.
            environment: in which it imports; that of each run comes with the run.
            say: gets one line if it fails.
            cold: starts the runs that it does not.
            folder: in which it and its runs work; None for that of this process.
        """
        self._say, self._cold = say, cold
        self._waiting: list[ForkedRun] = []
        self._ready, self._failed, self._text = False, False, b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        self._own_console = (_copy(1), _copy(2))
        adopts = _adopt_orphans(True)
        with _refusal_told():
            self._server = subprocess.Popen(
                [sys.executable, "-m", _SERVER, str(os.getpid()), *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**environment, **_OF_THE_PARENT},
                cwd=folder,
                pass_fds=self._own_console,
                process_group=0,
            )
        if not adopts:  # without it nobody would learn how a forked run ends
            self._fail("this system does not let a process adopt orphans")

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._server.pid

    def __call__(self, words: Sequence[str], environment: Mapping[str, str], console: Path | None) -> "ForkedRun":
        """Start a process of a run, or note that it is asked for."""
        run = ForkedRun(self, words, environment, console)
        self._waiting.append(run)
        self.advance()
        return run

    def advance(self) -> None:
        """Start what was asked for, if the parent is ready or has failed by now."""
        if self._waiting and not self._ready and not self._failed:
            self._listen()
        while self._waiting and (self._ready or self._failed):
            run = self._waiting.pop(0)
            pid = None if self._failed else self._fork(run)
            if pid is None:
                run.process = self._cold(run.words, run.environment, run.console)
            run.pid = pid

    def forget(self, run: "ForkedRun") -> None:
        """Leave out a run that was asked for."""
        self._waiting.remove(run)

    def close(self) -> None:
        """End the parent; its runs go on. A second time does nothing."""
        if self._errors.closed:
            return
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdout.close()
        with suppress(OSError):  # a request that nobody has read
            self._server.stdin.close()
        if not self._ready:
            self._server.kill()  # it is still importing
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._errors.close()
        for number in self._own_console:
            os.close(number)
        _adopt_orphans(False)

    def _listen(self) -> None:
        """See whether the parent is ready; this does not wait."""
        answer = self._answer(0.0)
        if answer is not None:
            self._ready = "ready" in answer
            if not self._ready:
                self._fail(str(answer["error"]))

    def _fork(self, run: "ForkedRun") -> int | None:
        """Return the number of a run's process, None if there is none."""
        request = {
            "words": list(run.words),
            "environment": dict(run.environment),
            "console": None if run.console is None else str(run.console.absolute()),
            "streams": self._own_console,
        }
        assert self._server.stdin is not None
        try:
            self._server.stdin.write(json.dumps(request).encode() + b"\n")
            self._server.stdin.flush()
        except OSError:
            self._fail(self._last_words())
            return None
        answer = self._answer(ANSWER_S)
        if answer is not None and "pid" in answer:
            return int(str(answer["pid"]))
        if not self._failed:
            self._fail(str(answer["error"]) if answer else f"no answer for {ANSWER_S:.0f} s")
        return None

    def _answer(self, timeout_s: float) -> dict[str, object] | None:
        """Return the next answer; None if there is none in time, or if the parent is gone, which is a failure."""
        assert self._server.stdout is not None
        until_s = time.monotonic() + timeout_s
        waiting = select.poll()  # select() itself refuses handles above 1023, of a process with many files open
        waiting.register(self._server.stdout, select.POLLIN)
        while b"\n" not in self._text:
            if not waiting.poll(1000 * max(until_s - time.monotonic(), 0.0)):
                return None
            part = os.read(self._server.stdout.fileno(), 65536)
            if not part:
                self._fail(self._last_words())
                return None
            self._text += part
        line, _, self._text = self._text.partition(b"\n")
        content = json.loads(line)
        assert isinstance(content, dict)
        return content

    def _fail(self, reason: str) -> None:
        self._failed = True
        self._say(f"the warm parent is of no use ({reason}); further runs start cold")

    def _last_words(self) -> str:
        with_code = f"it ended with code {self._server.wait()}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"{with_code}: {lines[-1][:200]}" if lines else with_code


class ForkedRun:
    """A process of a run that was asked for: not yet forked, forked, or started cold in the end.

    pid: of the forked process. process: the cold one.
    """

    def __init__(
        self, parent: WarmParent, words: Sequence[str], environment: Mapping[str, str], console: Path | None
    ) -> None:
        self.words, self.environment, self.console = words, environment, console
        self.pid: int | None = None
        self.process: Process | None = None
        self._parent = parent
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, minus the signal's number if one ended it; None while it runs or waits to be forked."""
        if self._code is None and self.pid is None and self.process is None:
            self._parent.advance()
        if self.process is not None:
            return self.process.poll()
        if self._code is None and self.pid is not None:
            try:
                found, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has taken its exit code
                self._code = 1
            else:
                self._code = os.waitstatus_to_exitcode(status) if found else None
        return self._code

    def send_signal(self, number: int, /) -> None:
        """Send a signal, if it still runs; one that is not forked yet has stopped herewith."""
        if self.poll() is not None:
            return
        if self.process is not None:
            self.process.send_signal(number)
        elif self.pid is not None:
            os.kill(self.pid, number)  # nobody else takes its exit code: the number is its own
        else:
            self._parent.forget(self)
            self._code = STOPPED_EXIT_CODE


def _copy(number: int) -> int:
    """Return a copy of a descriptor; one that leads nowhere where it is closed."""
    try:
        return os.dup(number)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def _adopt_orphans(yes: bool) -> bool:
    """Let this process become the parent of its descendants' orphans, or no longer; tell whether that is done."""
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(yes), 0, 0, 0) == 0)
    except (OSError, AttributeError):  # another C library
        return False
