"""What a command of a page becomes in a process that was forked from the warm parent: `python -m page_words REQUEST`.

The request is the shim's, as JSON. Standard input and output are the shim's own, by /proc.
"""

import json
import os
import runpy
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from borrowed_parent import BorrowedParent

from fedlit.lab.sweeps import starting

SHORT = {
    "num_rounds": 1,
    "local.steps": 2,
    "local.batch_size": 4,
    "eval.max_examples": 4,
    "eval.max_new_tokens": 4,
    "eval.batch_size": 4,
}
"""What a block that is marked `short` is cut down to."""


def main() -> None:
    """Take the shim's place and do what it was asked."""
    request = json.loads(sys.argv[1])
    os.chdir(request["folder"])
    starting.WarmParent = BorrowedParent  # type: ignore[misc, assignment]
    BorrowedParent.address = request["socket"]
    if request["name"] == "run":  # of a sweep or a comparison
        sys.path.insert(0, request["folder"])
        sys.argv = ["-m", *request["words"][1:]]
        runpy.run_module(request["words"][0], run_name="__main__", alter_sys=True)
    else:
        _take_streams(request["pid"])
        _run(request)


def _take_streams(pid: int) -> None:
    """Read and write where the shim does."""
    for number, flags in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        path = f"/proc/{pid}/fd/{number}"
        regular = stat.S_ISREG(Path(path).stat().st_mode)
        stream = os.open(path, flags | (os.O_APPEND if regular and number else 0))
        os.dup2(stream, number)
        os.close(stream)


def _run(request: Mapping[str, Any]) -> None:
    mark, name, words = os.environ.get("PAGES_MARK", ""), request["name"], list(request["words"])
    if name == "fedlit":
        sys.path.insert(0, request["folder"])
        words = shortened(words) if mark == "short" else words
        sys.argv, sys.orig_argv = ["fedlit", *words], [sys.executable, "-m", "fedlit", *words]
        runpy.run_module("fedlit", run_name="__main__", alter_sys=True)
    elif words[0] in ("-", "-c"):
        sys.path.insert(0, request["folder"])
        code = sys.stdin.read() if words[0] == "-" else words[1]
        sys.argv = words[:1] if words[0] == "-" else ["-c", *words[2:]]
        exec(compile(code, "<page>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def shortened(words: Sequence[str]) -> list[str]:
    """Return the words of `fedlit` with fewer rounds, steps and examples, where they train."""
    if words[:1] == ["compare"] or words[:1] == ["run"] or (words[:2] == ["sweep", "run"]):
        return with_short_values(words)
    return list(words)


def with_short_values(words: Sequence[str]) -> list[str]:
    """Return words whose `key=value` are at most the short ones; `local.epochs` keeps steps out."""
    given = {word.partition("=")[0]: word for word in words if "=" in word and not word.startswith("-")}
    found = [word for word in words if word.partition("=")[0] not in SHORT]
    for key, value in SHORT.items():
        if key == "local.steps" and "local.epochs" in given:
            continue
        own = given.get(key, "").partition("=")[2]
        found.append(f"{key}={min(value, int(own)) if own.isdecimal() else value}")
    return found


if __name__ == "__main__":
    main()
