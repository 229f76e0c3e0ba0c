"""The commands and their options, from the parsers that read them."""

import io
import os
from contextlib import redirect_stdout, suppress
from importlib import import_module

from markdown import code, prose, table

from fedlit.cli import COMMANDS
from fedlit.config.help import INTRODUCTION


def overview() -> str:
    """Return the table of all commands."""
    rows = [(f"[{code(f'fedlit {name}')}](#fedlit-{name})", prose(text)) for name, text in COMMANDS.items()]
    return table(("command", "does"), rows, "commands")


def command(*words: str) -> str:
    """Return the help of a command as it is printed on a terminal of 100 columns."""
    return f":::{{container}} help\n\n```text\n{help_of(*words).rstrip()}\n```\n\n:::"


def help_of(*words: str) -> str:
    """Return what `fedlit WORDS --help` prints; of `run` without its keys, which have a page of their own."""
    if words == ("run",):
        return INTRODUCTION
    found, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with redirect_stdout(found), suppress(SystemExit):
            import_module(f"fedlit.commands.{words[0]}").main([*words[1:], "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return found.getvalue()
