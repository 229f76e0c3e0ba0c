"""Checks a whole page without running it: files, fragments and every command line, from top to bottom."""

import ast
import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pages
import yaml
from command_check import Wrong, check_command
from forked_child import returned
from pages import REPOSITORY, Block
from printed import missing_lines
from readers_files import READERS_FILES
from shell_words import command_lines, commands

CLONE = ("experiments", "slurm", "configs", "tests", "fedlit", "findings", "constraints.txt", "Makefile")
"""What a command of a page may name as if it stood in a clone."""


def check_page(page: str, folder: Path) -> list[str]:
    """Return what is wrong with a page, one line each, with its place. It changes the process: fork first."""
    os.chdir(folder)
    sys.path.insert(0, "")  # as `python -m` has it: a page's modules are found
    for name in CLONE:
        (folder / name).symlink_to(REPOSITORY / name)
    for name, content in READERS_FILES.get(page, {}).items():
        write(folder / name, content)
    blocks = [block for block in pages.page_blocks(page) if block.kind != "directive"]
    has_modules = any(block.kind == "file" and block.language == "python" for block in blocks)
    problems: list[str] = []
    for block, following in zip(blocks, [*blocks, None][1:], strict=True):
        if problem := _block_problem(block):
            problems.append(f"{block.place}: {problem}")
        if block.kind == "file":
            assert block.name is not None
            write(folder / block.name, block.text)
        elif block.kind == "commands":
            problems += _command_problems(block, pages.shown_failure(block, following), alone=has_modules)
    return problems


def write(path: Path, text: str) -> None:
    """Write a file, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _block_problem(block: Block) -> str:
    """Return why a file or a fragment cannot be read as its language; nothing if it can."""
    try:
        if block.language in ("python", "py"):
            ast.parse(block.text)
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "jsonl":
            list(map(json.loads, block.text.splitlines()))
        elif block.language == "csv":
            widths = {len(row) for row in csv.reader(io.StringIO(block.text))}
            return "" if len(widths) == 1 else f"rows of {sorted(widths)} cells"
    except (SyntaxError, ValueError, yaml.YAMLError) as error:
        return f"the block in {block.language} cannot be read: {' '.join(str(error).split())}"
    if block.language == "bash":
        done = subprocess.run(["bash", "-n"], input=_plain(block.text), capture_output=True, text=True, check=False)
        return done.stderr.strip()
    return ""


def _plain(text: str) -> str:
    return re.sub(r"<[A-Za-z][^<>\n]*>", "placeholder", text)


def _check_alone(words: list[str]) -> None:
    def said() -> str:
        try:
            check_command(words)
        except Wrong as error:
            return str(error)
        return ""

    if problem := returned(said):
        raise Wrong(problem)


def _command_problems(block: Block, failure: str, *, alone: bool) -> list[str]:
    """Return what is wrong with commands. failure: what the page shows if the last one fails. alone: each in its own
    process, since modules change on the page.
    """
    problems = []
    lines = command_lines(block.text)
    for line in lines:
        try:
            for words in commands(line.text):
                if alone:
                    _check_alone(words)
                else:
                    check_command(words)
        except (Wrong, ValueError, SyntaxError) as error:
            if line is lines[-1] and failure and _is_shown(str(error), failure):
                continue
            problems.append(f"{block.page}:{block.line + 1 + line.number}: {line.text.strip()!r}: {error}")
    return problems


def _is_shown(error: str, failure: str) -> bool:
    """Tell whether each line of a page that tells a mistake is what the check says."""
    told = "\n".join(line for line in failure.splitlines() if pages.FAILS.match(line))
    return not list(missing_lines(told, error, exact=True))
