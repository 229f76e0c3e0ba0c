"""Numbers of cells as SLURM's --array writes them: `0-3,7`."""

import re
from collections.abc import Iterable

from fedlit.errors import UserError


def ranges(indices: Iterable[int]) -> str:
    """Return numbers as SLURM's --array takes them: `0-3,7`."""
    parts: list[list[int]] = []
    for index in sorted(set(indices)):
        if parts and parts[-1][-1] == index - 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def numbers(text: str, num_cells: int, told: str = "--cells=") -> tuple[int, ...]:
    """Return the numbers that a text of `ranges` names, in its order; messages call it `told` and the text.

    Raises:
        UserError: another text, or a number beyond the last cell.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        if not re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})?", part):
            raise UserError(f"{told}{text:.60} is no list of cells; write it as 0-3,7")
        first, _, last = part.partition("-")
        if int(last or first) >= num_cells:
            raise UserError(f"{told}{text:.60}: there is no cell {last or first}; give 0 to {num_cells - 1}")
        if last and int(last) < int(first):
            raise UserError(f"{told}{text:.60}: {part} ends before it begins; write it as 0-3,7")
        found.update(dict.fromkeys(range(int(first), int(last or first) + 1)))
    return tuple(found)
