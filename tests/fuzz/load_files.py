"""Reads a configuration from the folder `configs` beside it, as experiments/federate.py does from the repository's."""

import sys
from pathlib import Path

from fedlit.commands.endings import without_traceback
from fedlit.config import load_config


def _load() -> int:
    load_config(sys.argv[1:], Path("configs"))
    return 0


if __name__ == "__main__":
    sys.exit(without_traceback(_load))
