"""Every key of a run with its default and meaning, or those of one group."""

from collections.abc import Sequence

from fedlit.commands.endings import without_traceback
from fedlit.config import help_text
from fedlit.outside.loading import describe_installed


def main(words: Sequence[str]) -> int:
    """Print the help and return the exit code."""
    return without_traceback(show_help)


def show_help() -> int:
    """Print every option."""
    print(help_text())
    if plugins := describe_installed():
        print("Installed plugins, each imported when a configuration names one of its parts:", *plugins, sep="\n  ")
    return 0
