"""Tables that grow by round beside the records: JSON Lines that begin with their round, so that a resumed run drops
what it is going to do again by the rounds of its records.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def append_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add the lines of a round, on the disk before its record is; a file is made for the first."""
    if not lines:
        return
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines in their order, without what a kill cut short; none where there is no file."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a name that no file has, with a zero in it
        return []
    lines = []
    for line in text.split(b"\n")[:-1]:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict) and type(content.get("round")) is int:
            lines.append(content)
    return lines


def lines_until(path: Path, last_round: int) -> str:
    """Return the text up to and with a round: what is left of it when a run goes on after that round."""
    return "".join(json.dumps(line) + "\n" for line in read_lines(path) if line["round"] <= last_round)
