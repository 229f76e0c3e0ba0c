"""A function in a forked process, which has imported all that this one has: nothing that it changes is seen here."""

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def in_child(action: Callable[[], object]) -> int:
    """Do something in a forked process and return its exit code, minus the number of a signal."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:  # never return: whatever happens here must not go on with the tests
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def printed(function: Callable[[], None], answers: str = "") -> tuple[str, str]:
    """Return what the function prints on its two streams, in a child that reads `answers` from its standard input.

    A child that fails fails the test.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").write_text(answers)
        (folder / "err").touch()

        def act() -> None:
            sys.stdin = (folder / "in").open()
            sys.stdout, sys.stderr = (folder / "out").open("w"), (folder / "err").open("w")
            for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
                os.dup2(stream.fileno(), number)
            function()

        code = in_child(act)
        assert code == 0, (folder / "err").read_text()
        return (folder / "out").read_text(), (folder / "err").read_text()


def returned(function: Callable[[], Any]) -> Any:
    """Return what a function returns, as JSON keeps it; its exception is an AssertionError here."""
    with tempfile.TemporaryDirectory() as name:
        answer = Path(name) / "answer"

        def act() -> None:
            try:
                content = {"value": function()}
            except BaseException:
                content = {"error": traceback.format_exc()}
            answer.write_text(json.dumps(content), encoding="utf-8")

        code = in_child(act)
        if not answer.is_file():
            raise AssertionError(f"the process ended with {code} and without a word")
        content = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in content:
        raise AssertionError(content["error"])
    return content["value"]
