"""A case: one command line with the files it finds, as small and as readable as Hypothesis can make it."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

STDOUTS = ("file", "full", "closed")
"""Where the output goes: a file, a device without room (/dev/full), a pipe whose reader has gone (`| head`)."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """script: name of a file in experiments/ or here. words: its command line. files: content by path below the working
    folder; None is a folder. runs: the finished runs of runner.Runner are there. removed: what of them is missing.
    """

    script: str
    words: tuple[str, ...]
    files: Mapping[str, bytes | None] = field(default_factory=dict)
    runs: bool = False
    removed: tuple[str, ...] = ()
    stdout: str = "file"

    @property
    def size(self) -> int:
        """How much there is to read."""
        return sum(map(len, self.words)) + sum(len(content or b"") for content in self.files.values())

    def without(self, part: str) -> "Case":
        """Return the case less one word or file."""
        return replace(
            self,
            words=tuple(word for word in self.words if word != part),
            files={path: content for path, content in self.files.items() if path != part},
            removed=tuple(path for path in self.removed if path != part),
        )

    def __str__(self) -> str:
        lines = [f"{self.script} " + " ".join(short(word) for word in self.words)]
        lines += [
            f"  {path}: {'a folder' if content is None else readable(content)}" for path, content in self.files.items()
        ]
        lines += [f"  {path}: removed" for path in self.removed]
        lines += [f"  stdout: {self.stdout}"] if self.stdout != "file" else []
        return "\n".join(lines)


def readable(content: bytes) -> str:
    """Return what of a file is unlike the rest of it: of rows that differ in their numbers alone, one is enough."""
    lines = content.splitlines()
    alike = Counter(re.sub(rb"\d+", b"#", line) for line in lines)
    odd = [f"line {i + 1}: {short(line)}" for i, line in enumerate(lines) if alike[re.sub(rb"\d+", b"#", line)] == 1]
    return f"{len(lines)} lines, {'; '.join(odd)}" if len(lines) > 4 and 0 < len(odd) < 4 else short(content)


def short(value: str | bytes, limit: int = 160) -> str:
    """Return a value as Python writes it, cut in the middle."""
    text = repr(value)
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]} ({len(value)} long)"
