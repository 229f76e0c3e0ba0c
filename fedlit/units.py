"""Quantities as a person reads them."""

from collections.abc import Sequence


def readable_bytes(num_bytes: float) -> str:
    """Return a size with a decimal unit, as networks are measured."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def told_apart(heading: str, lines: Sequence[str]) -> list[str]:
    """Return lines below one another, the first behind a heading."""
    return [f"  {heading if place == 0 else '':10} {line}" for place, line in enumerate(lines)]
