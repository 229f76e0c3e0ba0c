"""The task version of a run: hashes of what decides the meaning of its scores, by name, and of the rows they are of.

Two runs with one protocol ask a model the same and judge it the same; with the same rows, too, their scores can be
subtracted. What trains the model, the method, its rates and its rows, is no part of either. Kept in environment.json.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeGuard

NUM_SHOWN_DIGITS = 8
KEY = "task_version"
"""In environment.json."""
SETS = ("global", "own", "validation")
"""What rows are scored as: the first part of a score's key in the record."""


def digest(content: Any) -> str:
    """Return the SHA-256 of plain values, whatever the order of a mapping's keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskVersion:
    """What scores mean. parts: a hash of each thing that decides on it, by name. rows: a hash of the scored rows, in
    any order, by set.
    """

    parts: Mapping[str, str]
    rows: Mapping[str, str]

    @property
    def protocol(self) -> str:
        """The hash of all parts."""
        return digest(dict(self.parts))

    @property
    def all_rows(self) -> str:
        """The hash of the rows of all sets."""
        return digest(dict(self.rows))

    def to_json(self) -> dict[str, Any]:
        """Return what environment.json holds."""
        parts, rows = dict(sorted(self.parts.items())), dict(sorted(self.rows.items()))
        return {"protocol": self.protocol, "parts": parts, "rows": rows}

    @classmethod
    def from_json(cls, content: Any) -> Self | None:
        """Return what environment.json holds; None if it holds none: of an older run, or damaged."""
        if not isinstance(content, dict):
            return None
        parts, rows = content.get("parts"), content.get("rows")
        if not _are_texts(parts) or not _are_texts(rows):
            return None
        return cls(parts=parts, rows=rows)

    def going_on(self, now: Self) -> Self:
        """Return the version of a run that began with this one and goes on with another: of what differs both hashes,
        which no other run has.
        """
        return type(self)(parts=_both(self.parts, now.parts), rows=_both(self.rows, now.rows))

    def differing(self, other: Self) -> list[str]:
        """Return the names of the parts and sets that differ."""
        pairs = ((self.parts, other.parts), (self.rows, other.rows))
        return [name for a, b in pairs for name in sorted({**a, **b}) if a.get(name) != b.get(name)]


def shown(digits: str) -> str:
    """Return the beginning of a hash, as tables show it."""
    return digits[:NUM_SHOWN_DIGITS]


def _both(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    joined = {}
    for name in {**before, **now}:
        old, new = before.get(name, "none"), now.get(name, "none")
        joined[name] = old if new in old.split("+") else f"{old}+{new}"
    return joined


def _are_texts(content: Any) -> TypeGuard[dict[str, str]]:
    return isinstance(content, dict) and all(type(value) is str for value in content.values())
