"""Options that name files of rows: one path, a pattern, a folder, or a list of these."""

from collections.abc import Sequence

DATA_PATHS = ("data.path", "data.test_path", "data.validation_path")
"""The keys of files of rows."""


def given_paths(value: str | Sequence[str] | None) -> list[str]:
    """Return what one of `DATA_PATHS` holds as a list, in its order."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
