"""A page from top to bottom: files are written, commands and Python run, what was printed is compared."""

import ast
import builtins
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pages
from claims import wrong_claims
from page_check import CLONE, write
from page_server import PageServer
from pages import REPOSITORY, Block
from printed import missing_lines
from readers_files import READERS_FILES
from shell_words import command_lines


@dataclass(frozen=True, slots=True)
class Step:
    """One command line or one Python block. fails: the page shows its mistake."""

    place: str
    text: str
    fails: bool


def run_page(page: str, server: PageServer, folder: Path, stage: Path, timeout_s: float = 900) -> list[str]:
    """Run a page in an empty folder and return what went wrong, one line each with its place."""
    for name in CLONE:
        (folder / name).symlink_to(REPOSITORY / name)
    for name, content in READERS_FILES.get(page, {}).items():
        write(folder / name, content)
    blocks = [block for block in pages.page_blocks(page) if block.kind != "directive"]
    script, steps = _script(blocks, stage)
    server.run(script, folder, timeout_s)
    problems = []
    for number, step in steps.items():
        code = stage / f"{number}.code"
        said = said_by(stage, number)
        if not code.exists():
            problems.append(f"{step.place}: not reached")
        elif (code.read_text() != "0") is not step.fails:
            last = "\n    ".join(said.strip().splitlines()[-6:])
            shown = step.text.strip().splitlines()[0]
            problems.append(f"{step.place}: {shown!r} ended with code {code.read_text()}\n    {last}")
    if problems:
        return problems
    outputs = {step.text: said_by(stage, number) for number, step in steps.items()}
    return [*_unprinted(blocks, steps, folder, stage), *wrong_claims(page, folder, outputs)]


def said_by(stage: Path, number: int) -> str:
    """Return what a step printed."""
    path = stage / f"{number}.out"
    return path.read_text(errors="replace") if path.exists() else ""


def _script(blocks: list[Block], stage: Path) -> tuple[str, dict[int, Step]]:
    """Return the script of a page, and its steps by their numbers: 1000 times that of the block, and on.

    What a page shows of a cluster's runs (`fedlit report`, `fedlit page`) comes at its end, for the runs made here.
    """
    lines, late, steps, python = ["export PYTHONUNBUFFERED=1"], [], {}, []
    for i, block in enumerate(blocks):
        following = blocks[i + 1] if i + 1 < len(blocks) else None
        fails = bool(pages.shown_failure(block, following))
        if block.kind == "file":
            assert block.name is not None
            write(stage / f"{i}.file", block.text)
            lines.append(f"mkdir -p {shlex.quote(str(Path(block.name).parent))}")
            lines.append(f"cp {shlex.quote(str(stage / f'{i}.file'))} {shlex.quote(block.name)}")
        elif block.mark == "no":
            continue
        elif block.kind == "commands":
            found = command_lines(block.text)
            for k, line in enumerate(found):
                place = f"{block.page}:{block.line + 1 + line.number}"
                steps[1000 * i + k] = Step(place, line.text, fails and k == len(found) - 1)
                text = re.sub(r"<[A-Za-z][^<>\n]*>", "placeholder", line.text)
                here = late if is_table(block) else lines
                here += _step(1000 * i + k, text, block.mark, stage, steps[1000 * i + k].fails)
        elif block.kind == "python":
            write(stage / f"{i}.py", _whole(block, python))
            python.append(block)
            steps[1000 * i] = Step(block.place, block.text, fails)
            text = f"python - <{shlex.quote(str(stage / f'{i}.py'))}"
            lines += _step(1000 * i, text, block.mark, stage, fails)
    return "\n".join([*lines, *late]), steps


def is_table(block: Block) -> bool:
    """Tell whether a block shows what runs of a cluster have come to."""
    words = [line.text.split()[:2] for line in command_lines(block.text)]
    return block.mark == "slurm" and all(each in (["fedlit", "report"], ["fedlit", "page"]) for each in words)


def _step(number: int, text: str, mark: str, stage: Path, fails: bool) -> list[str]:
    out, code = shlex.quote(str(stage / f"{number}.out")), shlex.quote(str(stage / f"{number}.code"))
    stop = [] if fails else [f"[ $code = 0 ] || exit {number % 250}"]
    return [f"export PAGES_MARK={mark}", "{", text, f"}} >{out} 2>&1", f"code=$?; printf %s $code >{code}", *stop]


def _whole(block: Block, before: list[Block]) -> str:
    """Return the program of a block; with those before it, silent, if it uses a name of theirs."""
    text = re.sub(r"(num_rounds\W{1,4})\d+", r"\g<1>1", block.text) if block.mark == "short" else block.text
    used, bound = set(), set(dir(builtins))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg | ast.ExceptHandler):
            bound.add(getattr(node, "arg", None) or getattr(node, "name", None) or "")
    if not used - bound or not before:
        return text
    first = "".join(entry.text for entry in before)
    quiet = "import contextlib as _c, io as _io\n_held = _c.redirect_stdout(_io.StringIO())\n_held.__enter__()\n"
    return f"{quiet}{first}_held.__exit__(None, None, None)\n{text}"


def _unprinted(blocks: list[Block], steps: dict[int, Step], folder: Path, stage: Path) -> list[str]:
    """Return the lines that output blocks show and that nothing before them printed; a block after a text that names a
    file shows that file. What only a cluster prints is not compared: no cluster is here.
    """
    problems = []
    for i, block in enumerate(blocks[1:], start=1):
        numbers = [number for number in steps if number // 1000 == i - 1]
        if not pages.answers(block, blocks[i - 1]) or not numbers:
            continue
        if blocks[i - 1].mark == "slurm" and not is_table(blocks[i - 1]):
            continue
        named = (folder / name for name in re.findall(r"`([\w./-]+\.\w+)`", block.before))
        files = [path.read_text(errors="replace") for path in named if path.is_file()]
        said = "\n".join([*(said_by(stage, number) for number in numbers), *files])
        for number, line in missing_lines(block.text, said, exact=not blocks[i - 1].mark):
            problems.append(f"{block.page}:{block.line + 1 + number}: is not printed: {line.strip()!r}")
    return problems
