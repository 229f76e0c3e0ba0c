"""A function in a process of its own that has imported all that this one has: what it prints."""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path


def printed(function: Callable[[], None], answers: str = "") -> tuple[str, str]:
    """Return what the function prints on its two streams, in a child that reads `answers` from its standard input.

    Nothing that it changes is seen here. A child that fails fails the test.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").write_text(answers)
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _run(function, folder)
        _, status = os.waitpid(child, 0)
        out, err = (folder / "out").read_text(), (folder / "err").read_text()
        assert os.waitstatus_to_exitcode(status) == 0, err
        return out, err


def _run(function: Callable[[], None], folder: Path) -> None:
    """Never return: whatever happens here must not go on with the tests."""
    code = 1
    try:
        sys.stdin, sys.stdout, sys.stderr = (
            (folder / "in").open(),
            (folder / "out").open("w"),
            (folder / "err").open("w"),
        )
        for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
            os.dup2(stream.fileno(), number)
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
