"""From the words of a command line to an exit code: what `fedlit run` and every cell of a sweep run, and
how every command tells a user's mistake.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from fedlit.config import load_config
from fedlit.errors import DivergenceError, LostPeer, MixedRuns, OutOfMemory, ProcessError, UserError
from fedlit.lines import one_line
from fedlit.outside.faults import note_plugin
from fedlit.process.interrupt import LOST_PEER_EXIT_CODE, STOPPED_EXIT_CODE, StoppedBySignal, StopRequest, TimedOut
from fedlit.process.storage import storage_error
from fedlit.running import run_to_end

USER_ERROR_EXIT_CODE = 2
DIVERGED_EXIT_CODE = 3
OUT_OF_MEMORY_EXIT_CODE = 4
TIMED_OUT_EXIT_CODE = 5
"""The time limit came before a single round was finished; no use in starting the same job again."""
INTERRUPTED_EXIT_CODE = 130
"""A second Ctrl-C ended the run at once, as a shell says it."""
INTERRUPTED = "interrupted: the same command does it anew, or goes on where it stopped"
"""What a command says that Ctrl-C ends before it listens for it itself."""
CLOSED_CONSOLE_EXIT_CODE = 141
"""Nobody reads what a command prints (`| head`), as a shell says it of SIGPIPE."""

_ENDINGS: Mapping[type[BaseException], tuple[str, int]] = {
    UserError: ("error", USER_ERROR_EXIT_CODE),
    MixedRuns: ("error", USER_ERROR_EXIT_CODE),
    DivergenceError: ("diverged", DIVERGED_EXIT_CODE),
    OutOfMemory: ("out of memory", OUT_OF_MEMORY_EXIT_CODE),
    TimedOut: ("timed out", TIMED_OUT_EXIT_CODE),
    LostPeer: ("lost", LOST_PEER_EXIT_CODE),
    StoppedBySignal: ("stopped", STOPPED_EXIT_CODE),
}
"""Ends of a run that are no bug: the first word of the line that tells them, and the exit code."""

_OF_ONE_PROCESS = OutOfMemory | LostPeer | MixedRuns | ProcessError
"""Whichever process meets one of these alone, the others do not know."""


def is_first_process(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this is the process that speaks, before there is a process group."""
    if "RANK" in environ:
        return environ["RANK"] == "0"
    # Under plain python in a shell of srun's, processes of the run's own inherit the shell's SLURM_PROCID.
    return all(environ.get(name, "0") == "0" for name in ("SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"))


def tell(line: str) -> None:
    """Write a line to the console beside the results, if there is somebody to read it; what others wrote in it does
    nothing to the terminal.
    """
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"{one_line(line)}\n")
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)


def without_traceback(action: Callable[[], int], *, speaks: bool = True) -> int:
    """Return the exit code of an action; a user's mistake, and a file that cannot be written, is one line.

    speaks: false where another process tells the same.
    """
    try:
        return _flushed(action)
    except UserError as error:
        tell(f"error: {error}") if speaks or isinstance(error, ProcessError) else None
        return USER_ERROR_EXIT_CODE
    except BrokenPipeError:
        _drop(sys.stdout)
        return CLOSED_CONSOLE_EXIT_CODE
    except KeyboardInterrupt:
        tell(INTERRUPTED) if speaks else None
        return INTERRUPTED_EXIT_CODE
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich's own answer to it
            return CLOSED_CONSOLE_EXIT_CODE
        raise
    except Exception as error:
        if storage_error(error, Path.cwd()) is None:
            note_plugin(error)
            raise
        place = Path.cwd()
        try:
            _flush()
        except OSError:
            place = Path("the output")
            _drop(sys.stdout)
        tell(f"error: {storage_error(error, place)}")
        return USER_ERROR_EXIT_CODE


def _flushed(action: Callable[[], int]) -> int:
    """Return what an action returns once its output is out: a full disk or a closed pipe is known now at the latest."""
    try:
        code = action()
    except SystemExit:  # of a parser that has shown its help
        _flush()
        raise
    _flush()
    return code


def _flush() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        error.filename = "the output"  # what is full is under the output, not under the working folder
        raise


def _drop(stream: TextIO) -> None:
    """Lead a stream that cannot be written to nowhere: the interpreter's last flush would complain."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def run_federation(arguments: Sequence[str]) -> int:
    """Run the federation that `arguments` (`key=value`) describe and return the exit code of this process."""
    stop = StopRequest()
    stop.install()  # before the slow imports, so that an early signal is not lost
    return without_traceback(lambda: _run(arguments, stop, first=is_first_process()))


def _run(arguments: Sequence[str], stop: StopRequest, *, first: bool) -> int:
    try:

        def warn(line: str) -> None:
            if first:
                tell(f"warning: {line}")

        run_to_end(load_config(arguments), stop, warn, speaks=first, own_process=True)
    except KeyboardInterrupt:
        tell("interrupted: a second Ctrl-C; the same command goes on after the last finished round")
        return INTERRUPTED_EXIT_CODE
    except tuple(_ENDINGS) as ending:
        word, exit_code = next(told for kind, told in _ENDINGS.items() if isinstance(ending, kind))
        tell(f"{word}: {ending}") if first or isinstance(ending, _OF_ONE_PROCESS) else None
        return exit_code
    return 0
