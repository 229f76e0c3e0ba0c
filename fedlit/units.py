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


def readable_flops(number: float) -> str:
    """Return a number of floating point operations with a decimal unit: `1.2 TFLOP`."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if number < 1000:
            return f"{number:.3g} {unit}FLOP"
        number /= 1000
    return f"{number:.3g} EFLOP"


def readable_seconds(seconds: float) -> str:
    """Return a length of time in a unit of its size: `8.4 s`, `12 min`, `3.5 h`, `2.1 d`."""
    for unit, unit_s, limit_s in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit_s:
            return f"{seconds / unit_s:.{1 if seconds / unit_s < 10 else 0}f} {unit}"
    return f"{seconds / 86_400:.1f} d"
