"""SIGTERM, SIGUSR1 and Ctrl-C as a request to stop at the next safe point. Imports nothing heavy: it is installed
first.
"""

import signal
from types import FrameType

STOPPED_EXIT_CODE = 75
"""Exit code of a run that was asked to stop and can be resumed (EX_TEMPFAIL)."""


class StopRequest:
    """Remembers the first signal that asked the run to stop; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def install(self) -> None:
        """Catch SIGTERM, SIGUSR1 and SIGINT in this process; the handler may run any number of times."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_name == "SIGINT":
            raise KeyboardInterrupt
        self.signal_name = self.signal_name or signal.Signals(number).name
