"""What a machine has for fedlit, one finding a line; nothing here imports torch into the process that asks."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Whether a person has to do anything."""

    OK = "ok"
    NOTE = "note"
    """A run works; something is missing that some runs need, or differs from what was tested."""
    PROBLEM = "problem"
    """No run works here until it is mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was found, and what to do about it."""

    name: str
    text: str
    verdict: Verdict = Verdict.OK
    remedy: str = ""


def note(name: str, text: str, remedy: str = "") -> Finding:
    """Return a finding that a person should know."""
    return Finding(name, text, Verdict.NOTE, remedy)


def problem(name: str, text: str, remedy: str) -> Finding:
    """Return a finding that keeps every run from working."""
    return Finding(name, text, Verdict.PROBLEM, remedy)
