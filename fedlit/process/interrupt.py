"""What ends a run early: SIGTERM, SIGUSR1 and Ctrl-C as a request to stop at the next safe point, a time limit, memory
that does not suffice. Imports nothing heavy: it is installed first.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TypeVar, overload

T = TypeVar("T")

STOPPED_EXIT_CODE = 75
"""Exit code of a run that was asked to stop and can be resumed (EX_TEMPFAIL)."""


class StoppedBySignal(Exception):
    """A signal asked the run to stop; everything up to the last finished round is in its checkpoint.

    num_rounds_here: training rounds that were finished since the process began. then: what is to be done.
    """

    def __init__(
        self, how_far: str, signal_name: str, num_rounds_here: int, then: str = "the same command goes on"
    ) -> None:
        super().__init__(f"{how_far}; {then}")
        self.how_far = how_far
        self.signal_name = signal_name
        self.num_rounds_here = num_rounds_here


class TimedOut(Exception):
    """The time limit came before a single round was finished: the same command would not get further."""


class OutOfMemory(Exception):
    """The device's memory, or the machine's, does not suffice."""


class StopRequest:
    """Remembers the first signal that asked the run to stop; a second Ctrl-C interrupts at once.

    has_skipped: whether work was left out because of it.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self.has_skipped = False
        self._started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since this process began to listen."""
        return time.monotonic() - self._started_s

    def install(self) -> None:
        """Catch SIGTERM, SIGUSR1 and SIGINT in this process; the handler may run any number of times."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._handle)

    def ask(self, reason: str) -> None:
        """Ask the run to stop, as a signal of this name would; the first reason stays."""
        self.signal_name = self.signal_name or reason

    def until(self, items: Sequence[T]) -> "UntilStopped[T]":
        """Return the items as a sequence whose loops end early once the run is asked to stop."""
        return UntilStopped(items, self)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_name == "SIGINT":
            raise KeyboardInterrupt
        self.ask(signal.Signals(number).name)


class UntilStopped(Sequence[T]):
    """Items whose loops end early once a run is asked to stop; `has_skipped` of the request tells of it."""

    def __init__(self, items: Sequence[T], stop: StopRequest) -> None:
        self._items = items
        self._stop = stop

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "UntilStopped[T]": ...
    def __getitem__(self, index: int | slice) -> "T | UntilStopped[T]":
        if isinstance(index, slice):
            return UntilStopped(self._items[index], self._stop)
        return self._items[index]

    def __iter__(self) -> Iterator[T]:
        for item in self._items:
            if self._stop.signal_name is not None:
                self._stop.has_skipped = True
                return
            yield item


_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error, torch's or Python's own, says that memory does not suffice."""
    told = isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)
    return told or isinstance(error, MemoryError)


def out_of_memory(error: BaseException, where: str) -> OutOfMemory:
    """Return the one line for it, with a remedy; `where` says during what."""
    first_line = " ".join((str(error).splitlines() or [type(error).__name__])[0].split())[:160]
    return OutOfMemory(
        f"{where}: {first_line}; lower local.batch_size (with local.accumulate), eval.batch_size or "
        "model.max_length_tokens, or set model.gradient_checkpointing=true"
    )
