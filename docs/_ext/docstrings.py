"""Docstrings of the house as Sphinx wants them: an indented block is code, `field: what it is` in the docstring of a
dataclass is a list of its fields.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from sphinx.application import Sphinx

BEFORE_NAPOLEON = 400


def as_code(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a docstring with a directive before every block that is indented after a blank line."""
    indent, blank, inside = 0, False, False
    for line in lines:
        if not line.strip():
            blank = True
            yield line
            continue
        own = len(line) - len(line.lstrip())
        if inside and own <= indent:
            inside = False
        if not inside:
            if blank and own >= indent + 4:
                inside = True
                yield from (f"{' ' * indent}.. code-block:: {_language(line)}", "")
            else:
                indent = own
        blank = False
        yield line


def _language(line: str) -> str:
    return "python" if re.match(r"\s*(from|import|class|def|@|\w+ = |fedlit\.)", line) else "text"


def as_fields(lines: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the lines of a class's docstring with the sentences `field: ...` as one section at its end."""
    one = "|".join(map(re.escape, names))
    begins = re.compile(rf"(?:^|(?<=[.;] ))((?:{one})(?:, (?:{one}))*): ")
    kept: list[str] = []
    fields: list[str] = []
    for paragraph in "\n".join(lines).split("\n\n"):
        text = " ".join(paragraph.split())
        if paragraph.startswith((" ", "|")) or not begins.match(text):
            kept.append(paragraph)
            continue
        _, *pieces = begins.split(text)
        for name, told in zip(pieces[::2], pieces[1::2], strict=True):
            fields.append(f"    {name}: {told.strip()}")
    return "\n\n".join(kept).rstrip().split("\n") + (["", "Attributes:", *fields, ""] if fields else [])


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what in ("class", "exception") and dataclasses.is_dataclass(obj):
        lines[:] = as_fields(lines, [entry.name for entry in dataclasses.fields(obj)])
    if ">>>" not in "\n".join(lines):
        lines[:] = as_code(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hook."""
    app.connect("autodoc-process-docstring", _process, priority=BEFORE_NAPOLEON)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
