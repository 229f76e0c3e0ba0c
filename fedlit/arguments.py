"""Command lines of the commands: help that ends with an example, and every mistake as one line."""

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from fedlit.config.keys import nearest, show
from fedlit.config.places import OPTION, take_config_dirs
from fedlit.config.reading import is_there, require_text
from fedlit.errors import UserError


def integer(text: str) -> int:
    """Return an integer in decimal digits, for argparse: Python's int takes `1_0` and the digits of other scripts."""
    if not re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no integer in decimal digits")
    return int(text)


def positive(text: str) -> int:
    """Return an integer of at least 1, for argparse."""
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no integer of at least 1")
    return int(text)


def require_words(words: Sequence[str]) -> None:
    """Raise UserError for a word with bytes that are not UTF-8: it could be neither printed nor written down."""
    for word in words:
        require_text(word, f"{show(word)} (command line)")


def require_file(path: Path | None, option: str) -> None:
    """Raise UserError unless a file of this name can be written: a device, say, would be replaced by one."""
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{option}={show(str(path))} is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        raise UserError(f"{option}={show(str(path))} is no regular file; give the name of a file")


@contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """Turn what keeps a file, or a folder, from being written into a UserError that names it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"cannot write {show(str(path))} ({reason}); give another place with {option}") from error


class CommandParser(argparse.ArgumentParser):
    """A parser whose mistakes are a UserError, with the nearest right name for a wrong option."""

    def __init__(self, prog: str, description: str | None, examples: str) -> None:
        super().__init__(
            prog=prog if prog.startswith("fedlit ") else f"fedlit {prog}",  # a subcommand has the whole of it
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument(
            OPTION, metavar="DIR", help="folder like configs/, looked into before the shipped one; may be repeated"
        )

    def error(self, message: str) -> NoReturn:
        """Raise the mistake."""
        raise UserError(f"{message}; see '{self.prog} --help'")

    def refuse_unknown_options(self, words: Sequence[str]) -> None:
        """Raise UserError for the first option that this parser does not have."""
        valid = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        for word in words:
            if word.startswith("--") and word.partition("=")[0] not in valid:
                raise UserError(f"unknown option {word}{nearest(word, valid)} Valid options: {', '.join(valid)}")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the options; positional words may stand between them."""
        require_words(words)
        words = take_config_dirs(words)
        self.refuse_unknown_options(words)
        return self.parse_intermixed_args(words)


def split_targets(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of a sweep or of run folders, and the key=value arguments that pick cells.

    Raises:
        UserError: nothing is named.
    """
    overrides = [word for word in words if "=" in word and not is_there(word)]
    targets = [word for word in words if word not in overrides]
    if not targets:
        what = f"{overrides[0]} alone names no runs" if overrides else "no runs are named"
        raise UserError(f"{what}; give the name of a sweep, or folders of runs")
    return targets, overrides
