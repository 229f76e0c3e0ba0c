"""A function in a process of its own: whatever it changes (folder, environment, registered parts) ends with it."""

import json
import os
import traceback
from collections.abc import Callable
from typing import Any


def forked(function: Callable[[], Any]) -> Any:
    """Return what a function returns, as JSON keeps it; its exception is an AssertionError here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            try:
                content = {"value": function()}
            except BaseException:
                content = {"error": traceback.format_exc()}
            with os.fdopen(writer, "w") as file:
                json.dump(content, file)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    answer = json.loads(text) if text else {"error": "the process ended without a word"}
    if "error" in answer:
        raise AssertionError(answer["error"])
    return answer["value"]
