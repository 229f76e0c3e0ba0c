"""Text of the package as Markdown."""

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\*_{}\[\]<>$|#~^])")


def prose(text: str) -> str:
    """Return a line of plain text, in which only backticks mean something, as Markdown that a table's cell takes."""
    pieces = " ".join(text.split()).split("`")
    if len(pieces) % 2 == 0:  # a lone backtick
        return _SPECIAL.sub(r"\\\1", " ".join(text.split()).replace("`", "'"))
    return "".join(_SPECIAL.sub(r"\\\1", piece) if i % 2 == 0 else code(piece) for i, piece in enumerate(pieces))


def code(text: str) -> str:
    """Return text as code that a table's cell takes; line breaks and the like as a configuration writes them."""
    shown = text.replace("\n", "\\n").replace("|", "\\|")
    if not shown.strip():
        return '`""`' if not shown else f"`'{shown}'`"
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """Return a table; its kind is the class by which `site.css` knows it."""
    lines = [f":::{{container}} {kind}", "", _row(heading), _row(["---"] * len(heading))]
    return "\n".join([*lines, *map(_row, rows), "", ":::"])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
