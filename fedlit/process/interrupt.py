"""What ends a run early: SIGTERM, SIGUSR1 and Ctrl-C as a request to stop at the next safe point, a time limit, memory
that does not suffice. Imports nothing heavy: it is installed first.
"""

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from types import FrameType
from typing import TypeVar

from fedlit.errors import OutOfMemory, Stopped

T = TypeVar("T")

STOPPED_EXIT_CODE = 75
"""Exit code of a run that was asked to stop and can be resumed (EX_TEMPFAIL)."""
LOST_PEER_EXIT_CODE = 6
"""Another process of the run is gone, or gives no answer; that one's exit code tells more."""


_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopReason(Enum):
    """Why a run is asked to stop: a signal, or something that happened to it. The value is how it is told."""

    SIGTERM = "SIGTERM"
    SIGUSR1 = "SIGUSR1"
    SIGINT = "SIGINT"
    FOLDER_LOST = "the loss of the folder to another run"
    CONSOLE_LOST = "the end of whoever read the console"
    CALLBACK = "a callback's wish"

    def __str__(self) -> str:
        return self.value


class StopAsked(Exception):
    """Work was left out because the run is asked to stop."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(kw_only=True, eq=False)
class StoppedBySignal(Stopped):
    """The run stopped because it was asked to; everything up to the last finished round is in its checkpoint.

    saved_round: of the newest checkpoint; None if there is none. num_rounds: of the federation. num_rounds_here:
    training rounds that were finished since the process began. then: what is to be done.
    """

    reason: StopReason
    saved_round: int | None
    num_rounds: int
    num_rounds_here: int
    then: str = "the same command goes on"

    @property
    def how_far(self) -> str:
        """Why it stopped, and where."""
        if not self.saved_round:
            return f"{self.reason} before the first round's end"
        return f"{self.reason} after round {self.saved_round} of {self.num_rounds}, which is saved"

    def with_then(self, then: str) -> "StoppedBySignal":
        """Return a copy with another thing to be done."""
        return replace(self, then=then)

    def __str__(self) -> str:
        return f"{self.how_far}; {self.then}"


@dataclass(kw_only=True, eq=False)
class TimedOut(Stopped):
    """The time limit of a job came before a single round was finished: the same command would not get further."""

    job: str
    elapsed_s: float

    def __str__(self) -> str:
        return (
            f"not one round was finished in the {self.elapsed_s:.0f} s before the time limit of job {self.job}; "
            "give the job more --time, or fewer local.steps or eval.max_examples"
        )


class StopRequest:
    """Remembers the first thing that asked the run to stop; a second Ctrl-C interrupts at once.

    reason: that first thing; None while nothing asked.
    """

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since this process began to listen."""
        return time.monotonic() - self._started_s

    def install(self) -> None:
        """Catch SIGTERM, SIGUSR1 and SIGINT in this process; the handler may run any number of times."""
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals inside the block, and put back who caught them before; outside the main thread, where
        Python lets nobody catch any, the block runs as it is.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        try:
            yield
        finally:
            for number, handler in before.items():
                # None: a handler that was not installed from Python, which nobody can put back from here.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def ask(self, reason: StopReason) -> None:
        """Ask the run to stop; the first reason stays."""
        self.reason = self.reason or reason

    def check(self) -> None:
        """Raise StopAsked if the run is asked to stop."""
        if self.reason is not None:
            raise StopAsked(self.reason)

    def watch(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items. Once the run is asked to stop, StopAsked is raised in place of the next one; after the last
        one nothing is left out, and nothing is raised.
        """
        for item in items:
            self.check()
            yield item

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason is StopReason.SIGINT:
            raise KeyboardInterrupt
        self.ask(StopReason[signal.Signals(number).name])


_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error, torch's or Python's own, says that memory does not suffice."""
    told = isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)
    return told or isinstance(error, MemoryError)


def out_of_memory(error: BaseException, where: str) -> OutOfMemory:
    """Return the typed error for it; `where` says during what."""
    return OutOfMemory(where=where, reason=first_line(error))


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, cut to a readable length."""
    return " ".join((str(error).splitlines() or [type(error).__name__])[0].split())[:160]


@contextmanager
def collected(*numbers: int) -> Iterator[list[int]]:
    """Collect signals in a list, in place of obeying them; afterwards they act as before."""
    asked: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
