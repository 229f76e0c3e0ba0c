"""Run one federation, or go on with it; `fedlit run --help` lists every option."""

from collections.abc import Sequence

from fedlit.commands.endings import run_federation, without_traceback
from fedlit.commands.help import show_help


def main(words: Sequence[str]) -> int:
    """Run the federation that `words` describe and return the exit code."""
    if {"-h", "--help"} & set(words):
        return without_traceback(show_help)
    return run_federation(words)
