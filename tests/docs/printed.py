"""Compares what a page says a command prints with what it prints.

A line of the page must be among the lines that were printed. Blanks count as one; times, sizes of memory, dates, hashes
and absolute paths stand for any; `...` stands for anything. After a block that is marked `short` numbers stand for any.
Lines of a drawing (a tree of files) are left out.
"""

import re
from collections.abc import Iterator

_ANY = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]?(\d\d:\d\d(:\d\d)?)?(\.\d+)?Z?"), "DATE"),
    (re.compile(r"\b\d\d?:\d\d(:\d\d)?\b"), "TIME"),
    (re.compile(r"(?<![\w.])[\d.]+ ?(?:s|ms|min|h|d|[kMGT]i?B/s|/s|[MGT]i?B)(?!\w)"), "AMOUNT"),
    (re.compile(r"(?<![\w/])/[\w./-]+"), "PATH"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,64}\b"), "HASH"),
)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?(?![\w])")
_DRAWN = re.compile(r"^\s*[│├└─┌┐┘╭╰━┏┃┡╇╋|+\-= ]+$|[├└]──")


def missing_lines(shown: str, said: str, *, exact: bool) -> Iterator[tuple[int, str]]:
    """Yield the lines, and their numbers from 0, that a page shows and that were not printed."""
    printed = {_plain(line, exact) for line in said.splitlines()}
    for number, line in enumerate(shown.splitlines()):
        wanted = _plain(line, exact)
        if not wanted or wanted in printed or _DRAWN.search(line):
            continue
        if "..." in wanted or "…" in wanted:
            pattern = ".*".join(map(re.escape, re.split(r"\.\.\.|…", wanted)))
            if any(re.fullmatch(pattern, other) for other in printed):
                continue
        yield number, line


def _plain(line: str, exact: bool) -> str:
    for pattern, name in _ANY:
        line = pattern.sub(name, line)
    if not exact:
        line = _NUMBER.sub("N", line.replace("**", ""))
    return " ".join(line.split())
