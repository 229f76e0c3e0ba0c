"""Options that name files of rows: one path, a pattern, a folder, or a list of these."""

import re
from collections.abc import Sequence

DATA_PATHS = ("data.path", "data.test_path", "data.validation_path")
"""The keys of files of rows."""


def given_paths(value: str | Sequence[str] | None) -> list[str]:
    """Return what one of `DATA_PATHS` holds as a list, in its order."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Order client_2 before client_10."""
    pieces = re.split("([0-9]+)", name)
    keys = [(len(digits := piece.lstrip("0")), digits) if i % 2 else (-1, piece) for i, piece in enumerate(pieces)]
    return keys, name  # of two numbers the longer is the larger: int() takes no more than 4,300 digits
