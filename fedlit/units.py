"""Quantities as a person reads them."""


def readable_bytes(num_bytes: float) -> str:
    """Return a size with a decimal unit, as networks are measured."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
