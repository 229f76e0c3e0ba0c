"""JSON as others wrote it: a file of one object per line, or one that is a single value."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedlit.data.opened import BROKEN, compression, opened, told
from fedlit.data.values import shown
from fedlit.errors import UserError

MAX_DEPTH = 100
"""Lists and objects inside one another, far below where Python's own recursion ends."""
_LFS = b"version https://git-lfs"


class _TwiceError(ValueError):
    """A name stands twice in one object: JSON allows it, and the last value would win without a word."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def parse_json(text: bytes | str, place: str, form: str) -> Any:
    """Return a JSON value; `place` names it in errors and `form` says what is expected there.

    Raises:
        UserError: it is not UTF-8, not JSON, nested more than 100 deep, or holds a name twice in one object.
    """
    try:
        content = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
        value = json.loads(content, object_pairs_hook=_object)
        too_deep = content.count("[") + content.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH
    except RecursionError:
        too_deep = True
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not UTF-8 ({error.reason}, byte {error.start}); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON ({_where(error)}); {form}") from error
    except _TwiceError as error:
        line = _line_of_second(content, error.name)
        raise UserError(
            f"{place}{line}: the name {shown(error.name)} stands twice in one object; leave one of the two"
        ) from error
    except ValueError as error:  # integers of more than 4,300 digits
        raise UserError(f"{place}: a number of more than 4,300 digits; {form}, such numbers in quotes") from error
    if too_deep:
        raise UserError(f"{place}: lists or objects more than {MAX_DEPTH} deep in one another; {form}")
    return value


def read_json_lines(path: Path, key: str = "data.path", member: str | None = None) -> Iterator[tuple[str, Any]]:
    """Yield the values of a file of JSON Lines, compressed or not, each with its place; blank lines are passed over.

    `key` is the option that named the file, `member` its name in a zip archive. Lines count from 1.
    """
    line_idx = 0
    source = str(path) if member is None else f"{path}#{member}"
    try:
        require_no_pointer(path, f"{key}={path}")
        with opened(path, member) as file:
            for line_idx, line in enumerate(file, start=1):
                if line.strip():
                    place = f"{source}, line {line_idx}"
                    yield place, parse_json(line, place, "write one object per line")
    except FileNotFoundError as error:
        raise UserError(f"{key}={source}: no such file; check the path") from error
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"{key}={source}: {error.strerror}; check the path") from error
        raise UserError(
            f"{source}: broken {compression(path)} file after line {line_idx} ({error}); fetch or write it again"
        ) from error


def read_json_file(path: Path, key: str, form: str) -> Any:
    """Return the value of a .json or .json.gz file; `key` is the option that named it and `form` what is expected."""
    with told(path, f"{key}={path}"):
        require_no_pointer(path, f"{key}={path}")
        with opened(path) as file:
            content = file.read()
    return parse_json(content, f"{key}={path}", form)


def require_no_pointer(path: Path, place: str) -> None:
    """Refuse a pointer of Git LFS, as a clone without its large files has in place of each; `place` names the file.

    Raises:
        UserError: the file is one. An OSError is the caller's.
    """
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise UserError(f"{place}: a pointer of Git LFS in place of the file itself; run git lfs pull in the clone")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _TwiceError(next(name for name, count in counts.items() if count > 1))
    return found


def _depth(value: Any) -> int:
    """Return how many lists and objects stand in one another."""
    depth, level = 0, [value]
    while level := [entry for entry in level if isinstance(entry, list | dict)]:
        depth += 1
        level = [inner for entry in level for inner in (entry.values() if isinstance(entry, dict) else entry)]
    return depth


def _where(error: json.JSONDecodeError) -> str:
    line = f"line {error.lineno}, " if error.lineno > 1 else ""
    return f"{error.msg}, {line}column {error.colno}"


def _line_of_second(content: str, name: str) -> str:
    """Return the line of a name's second place in a text of several lines, where it has two places and no more."""
    spelled = json.dumps(name, ensure_ascii=False)
    before = content.split(spelled)
    if "\n" not in content.strip() or len(before) != 3:
        return ""
    return f", line {spelled.join(before[:2]).count(chr(10)) + 1}"
