"""A page of the documentation as blocks: what a reader types, what he writes into files, what he sees.

The forms of blocks, and nothing else, are known:

| fence | what |
|---|---|
| `bash` | commands, one a line; `\\` continues |
| `text`, no language, `console` | what was printed, or a drawing |
| `yaml`, `json`, `csv`, `python` ... with a name | a file: the name is its first line, or in the text before |
| `yaml`, `json` without a name | a part of a file: it must parse |
| `python` without a name | is run as it stands |
| `py` | a part of a program: it must compile |
| `{...}` | a directive of the site |

On the line before a block may stand `<!-- run: short -->`, `dry`, `slurm` or `no, REASON`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

FILES = {
    "yaml": (".yaml", ".yml"),
    "json": (".json",),
    "jsonl": (".jsonl",),
    "csv": (".csv",),
    "tsv": (".tsv",),
    "jinja": (".jinja",),
    "python": (".py",),
    "toml": (".toml",),
}
"""Languages of files that a reader writes, and their endings."""

OUTPUT = ("", "text", "console", "none")
COMMANDS = ("bash",)
FRAGMENTS = ("py", "markdown", "latex", "bibtex", "diff", "ini", "mermaid", "html", "make")
MARKS = ("short", "dry", "slurm", "no")

_FENCE = re.compile(r"^(?P<indent>[ >]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")
_MARK = re.compile(r"^\s*<!--\s*run:\s*(?P<mark>.*?)\s*-->\s*$")
_NAME = re.compile(r"^(?:#|//|<!--|\{#)\s*(?P<name>[\w./-]+\.\w+)\s*(?:-->|#\})?\s*$")
_SPOKEN = re.compile(r"`(?P<name>[\w./-]+\.\w+)`")


FAILS = re.compile(
    r"^\s*(?:(?:error|diverged|out of memory|timed out|lost|stopped): |Traceback |fedlit\.\w+Error)", re.MULTILINE
)
"""What a command that fails prints."""

NEAR = 7
"""Lines of text between a command and the block of what it prints, at most."""


class PageError(Exception):
    """A block of no known form: page, line, reason."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    page: its path in the repository. line: of its opening fence, from 1. name: of the file that it is; None if it is
    none. mark, reason: what stands in `<!-- run: mark, reason -->`. text: without the fence, and without a first line
    that is a name but no comment of its language. before: the paragraph right before it.
    """

    page: str
    line: int
    language: str
    text: str
    name: str | None = None
    mark: str = ""
    reason: str = ""
    before: str = ""

    @property
    def kind(self) -> str:
        """What it is for: commands, file, python, output, fragment or directive."""
        if self.language.startswith("{"):
            return "directive"
        if self.name is not None:
            return "file"
        if self.language in COMMANDS:
            return "commands"
        if self.language in OUTPUT:
            return "output"
        return "python" if self.language == "python" else "fragment"

    @property
    def place(self) -> str:
        """Page and line for a message."""
        return f"{self.page}:{self.line}"


def answers(block: Block, before: Block) -> bool:
    """Tell whether a block shows what the one before it printed: it stands close to it."""
    end = before.line + before.text.count("\n") + 1
    return block.kind == "output" and block.line - end <= NEAR


def shown_failure(block: Block, following: Block | None) -> str:
    """Return the text that shows that the last command of a block fails; nothing if it is to succeed."""
    if following is None or not answers(following, block) or not FAILS.search(following.text):
        return ""
    return following.text


def all_pages() -> list[str]:
    """Return every page, as paths in the repository."""
    folders = [REPOSITORY / "docs", REPOSITORY / "experiments"]
    single = ["README.md", "slurm/README.md", "configs/README.md", "fedlit/README.md"]
    found = [path for folder in folders for path in sorted(folder.rglob("*.md"))]
    inside = [path.relative_to(REPOSITORY).as_posix() for path in found]
    return [*single, *(path for path in inside if not path.startswith(("docs/_", "docs/build")))]


def read_page(page: str) -> str:
    """Return the text of a page."""
    return (REPOSITORY / page).read_text(encoding="utf-8")


def page_blocks(page: str) -> list[Block]:
    """Return the blocks of a page; raises PageError."""
    return list(blocks_of(read_page(page), page))


def blocks_of(text: str, page: str) -> Iterator[Block]:
    """Yield the blocks of a text from top to bottom.

    Raises:
        PageError: a language or a mark that is not known, a mark without a block, a fence that is not closed.
    """
    lines = text.splitlines()
    marked: tuple[int, str] | None = None
    before: list[str] = []
    i = 0
    while i < len(lines):
        if found := _MARK.match(lines[i]):
            marked = (i + 1, found["mark"])
            i += 1
            continue
        opened = _FENCE.match(lines[i])
        if opened is None:
            if marked is not None:
                raise PageError(f"{page}:{marked[0]}: the mark stands on the line before a block; here is none")
            before = [lines[i]] if not before or not before[-1].strip() else [*before, lines[i]]
            i += 1
            continue
        end = _end(lines, i, opened["fence"], page)
        body = [line.removeprefix(opened["indent"]) for line in lines[i + 1 : end]]
        yield _block(page, i + 1, opened["info"].strip(), body, marked[1] if marked else "", " ".join(before))
        marked, before = None, []
        i = end + 1
    if marked is not None:
        raise PageError(f"{page}:{marked[0]}: the mark stands on the line before a block; here is none")


def _end(lines: list[str], start: int, fence: str, page: str) -> int:
    for i in range(start + 1, len(lines)):
        stripped = lines[i].lstrip(" >")
        if set(stripped.strip()) == {fence[0]} and len(stripped.strip()) >= len(fence):
            return i
    raise PageError(f"{page}:{start + 1}: the block is not closed")


def _block(page: str, line: int, info: str, body: list[str], mark: str, before: str) -> Block:
    language = info.split(maxsplit=1)[0] if info else ""
    kind, _, reason = (part.strip() for part in mark.partition(","))
    if mark and kind not in MARKS:
        raise PageError(f"{page}:{line}: the mark {mark!r} is none of {', '.join(MARKS)}")
    if kind == "no" and not reason:
        raise PageError(f"{page}:{line}: `run: no` needs a reason, as in `run: no, pip install`")
    known = (*OUTPUT, *COMMANDS, *FRAGMENTS, *FILES)
    if language not in known and not language.startswith("{"):
        raise PageError(f"{page}:{line}: a block in {language!r}; known are {', '.join(filter(None, known))}")
    name = _file_name(language, body, before)
    if name and body and _NAME.match(body[0]) and language not in ("python", "yaml", "toml"):
        body = body[1:]
    return Block(page, line, language, "\n".join([*body, ""]), name, kind, reason, before)


def _file_name(language: str, body: list[str], before: str) -> str | None:
    """Return the name of the file that a block is: in its first line, or alone in the paragraph right before it."""
    endings = FILES.get(language, ())
    if not endings:
        return None
    if body and (found := _NAME.match(body[0])) and found["name"].endswith(endings):
        return found["name"]
    spoken = {found["name"] for found in _SPOKEN.finditer(before) if found["name"].endswith(endings)}
    if language == "csv" and not spoken:
        spoken = set(re.findall(r"[\w./-]+\.csv(?=:?\s*$)", before))
    return spoken.pop() if len(spoken) == 1 else None
