"""Command lines of the scripts under experiments/: help that ends with an example, and every mistake as one line."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from fedlit.config.keys import nearest
from fedlit.errors import UserError


class CommandParser(argparse.ArgumentParser):
    """A parser whose mistakes are a UserError, with the nearest right name for a wrong option."""

    def __init__(self, prog: str, description: str | None, examples: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise the mistake."""
        raise UserError(f"{message}; see 'python experiments/{self.prog} --help'")

    def refuse_unknown_options(self, words: Sequence[str]) -> None:
        """Raise UserError for the first option that this parser does not have."""
        valid = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        for word in words:
            if word.startswith("--") and word.partition("=")[0] not in valid:
                raise UserError(f"unknown option {word}{nearest(word, valid)} Valid options: {', '.join(valid)}")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the options; positional words may stand between them."""
        self.refuse_unknown_options(words)
        return self.parse_intermixed_args(words)


def split_targets(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of a sweep or of run folders, and the key=value arguments that pick cells.

    Raises:
        UserError: nothing is named.
    """
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    targets = [word for word in words if word not in overrides]
    if not targets:
        what = f"{overrides[0]} alone names no runs" if overrides else "no runs are named"
        raise UserError(f"{what}; give the name of a sweep, or folders of runs")
    return targets, overrides
