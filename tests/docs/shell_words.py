"""The command lines of a block: whole lines as bash reads them, and the single commands in each."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

PLACEHOLDER = "placeholder"
"""What stands for `<address>`, a value that only the reader knows."""

_OPENS = {"do": 1, "then": 1, "{": 1, "done": -1, "fi": -1, "}": -1}
_KEYWORDS = {"for", "while", "until", "if", "do", "then", "else", "elif", "done", "fi", "{", "}", "!", "time"}
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_BEFORE = {"env": 0, "nohup": 0, "timeout": 1}
"""Words before a command, and how many words of their own follow them."""


@dataclass(frozen=True, slots=True)
class Line:
    """One whole command line of a block. number: of its first line, counted from 0 in the block."""

    number: int
    text: str


def command_lines(text: str) -> list[Line]:
    """Return what bash reads as a whole: continued lines, loops and here-documents are one."""
    found: list[Line] = []
    held: list[str] = []
    start, depth, until = 0, 0, ""
    for number, line in enumerate(text.splitlines()):
        if not held and not without_comment(line).strip():
            continue
        start = number if not held else start
        held.append(line)
        if until:
            until = "" if line.strip() == until else until
        elif here := re.search(r"<<-?\s*['\"]?(\w+)", line):
            until = here[1]
        depth += sum(_OPENS.get(word, 0) for word in re.split(r"[\s;]+", without_comment(line)))
        if not until and depth <= 0 and not without_comment(line).rstrip().endswith(("\\", "|", "&&", "||")):
            found.append(Line(start, "\n".join(held)))
            held, depth = [], 0
    return [*found, Line(start, "\n".join(held))] if held else found


def without_comment(line: str) -> str:
    """Return a line without what stands behind a `#` that begins a word outside quotes."""
    quote = ""
    for i, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "#" and (i == 0 or line[i - 1].isspace()):
            return line[:i]
    return line


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in a whole line, without redirections, assignments and the shell's own words.

    Raises:
        ValueError: a quote that is not closed.
    """
    body = text.split("\n")[:1] if "<<" in text else text.split("\n")
    bare = [without_comment(line).rstrip() for line in body]
    joined = "".join(f"{line[:-1]} " if line.endswith("\\") else f"{line} ; " for line in bare)
    for name, value in re.findall(r"for (\w+) in (\S+)", joined):
        joined = re.sub(rf"\$(?:{name}\b|{{{name}}})", lambda _: value.rstrip(";"), joined)  # noqa: B023  used at once
    joined = re.sub(r"<[A-Za-z][^<>\n]*>", PLACEHOLDER, joined)
    lexer = shlex.shlex(joined, posix=True, punctuation_chars=";&|<>()")
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    skip = False
    for token in [*lexer, ";"]:
        if set(token) <= set(";&|()"):
            yield from _told(words)
            words = []
        elif set(token) <= set("<>&"):
            if words and words[-1] in ("1", "2"):
                words.pop()
            skip = True
        elif skip:
            skip = False
        else:
            words.append(token)


def _told(words: list[str]) -> Iterator[list[str]]:
    """Yield a command without what may stand before it; nothing for what the shell does itself."""
    if words and words[0] in ("for", "case"):
        return
    while words and (words[0] in _KEYWORDS or _ASSIGNMENT.fullmatch(words[0]) or words[0] in _BEFORE):
        words = words[1 + _BEFORE.get(words[0], 0) :]
    if words:
        yield words
