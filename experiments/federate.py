"""Run one federation: `fabric run experiments/federate.py data=... method=...`; --help lists every option."""

import sys

from fedlit.command import run_federation, without_traceback
from fedlit.config import help_text


def main(arguments: list[str]) -> int:
    """Run the federation that `arguments` describe and return the exit code."""
    if {"-h", "--help"} & set(arguments):
        return without_traceback(show_help)
    return run_federation(arguments)


def show_help() -> int:
    """Print every option."""
    print(help_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
