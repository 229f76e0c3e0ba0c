"""What a command line did, and whether it may: it succeeds, or it ends with a code of the README's table and one line.

A line has at most 400 characters; lines that begin with `warning:` may stand before it.
"""

import re
from dataclasses import dataclass

LONGEST_LINE = 400
ENDS = {2: "error: ", 3: "diverged: ", 4: "out of memory: "}
"""How the line of each exit code begins; the other codes of the table need signals or other processes."""

FAILED_CELLS = 1
"""Exit code of commands that start other runs, some of which did not succeed."""
STARTERS = ("compare.py", "sweep.py")
READER_GONE = (0, 1, 2, 120, 141, -13)
"""Exit codes after `| head`: nobody reads them, and shells differ."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """code: of the process, minus the number of the signal that ended it. stderr: decoded, what is no UTF-8 escaped."""

    code: int
    stderr: str
    seconds: float
    script: str
    stdout: str = "file"

    @property
    def lines(self) -> list[str]:
        """What stands on stderr besides warnings and what was done as a sweep's arguments are remembered."""
        return [
            line
            for line in self.stderr.splitlines()
            if line.strip() and not line.startswith(("warning: ", "with the "))
        ]

    @property
    def kind(self) -> str:
        """`runs`, `refused` or `diverged` and the like; anything that breaks the contract begins with `!`."""
        if found := self._traceback() or self._signal() or self._too_long():
            return found
        if self.code == 0 or (self.stdout == "closed" and self.code in READER_GONE):
            return "runs" if self.stdout != "closed" else "runs, reader gone"
        if self.code == FAILED_CELLS and self.script in STARTERS:
            return "cells failed"
        return self._refusal()

    @property
    def is_violation(self) -> bool:
        return self.kind.startswith("!")

    def _refusal(self) -> str:
        if self.code not in ENDS:
            return f"! exit code {self.code}: {first_words(self.stderr)}"
        told = [line for line in self.lines if line.startswith(ENDS[self.code])]
        if len(told) != 1:
            return f"! exit code {self.code} with {len(told)} lines that begin with {ENDS[self.code]!r}"
        if self.script not in STARTERS and len(self.lines) != 1:
            return f"! more than one line: {skeleton(self.lines[-1])}"
        return {2: "refused", 3: "diverged", 4: "out of memory"}[self.code]

    def _signal(self) -> str | None:
        if self.code >= 0 or (self.stdout == "closed" and self.code in READER_GONE):
            return None
        return "! time limit" if self.code == -14 else f"! signal {-self.code}"

    def _too_long(self) -> str | None:
        found = next((line for line in self.stderr.splitlines() if len(line) > LONGEST_LINE), None)
        if found is None:
            return None
        why = "a long value" if re.search(r"\S{150}", found) else "a long list"
        return f"! line of more than {LONGEST_LINE} characters, {why}: {skeleton(found)}"

    def _traceback(self) -> str | None:
        """Return the exception's type and the innermost place in the package or a script."""
        if "Traceback (most recent call last)" not in self.stderr and "Exception ignored" not in self.stderr:
            return None
        last = self.stderr.split("Traceback (most recent call last)")[-1]
        places = re.findall(r'File "[^"]*?/((?:fedlit|experiments)/[^"]+)", line (\d+), in (\S+)', last)
        names = re.findall(
            r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning|Refused|ed|Constructor)\b)", last, re.M
        )
        path, line, function = places[-1] if places else ("outside the package", "", "")
        return f"! {names[-1].rsplit('.', 1)[-1] if names else 'exception'} at {path}:{line} {function}".rstrip(": ")


def skeleton(line: str) -> str:
    """Return the end of a message without its values, so that one kind has one name."""
    words = re.findall(r"[a-z]+(?= |$|;|,)", re.sub(r"(.)\1{5,}", " ", line))
    return " ".join(words[-6:])


def first_words(text: str) -> str:
    """Return the beginning of a text without its numbers and paths, so that one kind has one name."""
    return re.sub(r"\d+|/\S+", "#", " ".join(text.split())[:60])
