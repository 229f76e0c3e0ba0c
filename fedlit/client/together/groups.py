"""Which clients are trained, or scored, together. It depends on their ids alone, and not on the number of processes."""

from collections.abc import Sequence
from itertools import groupby


def groups_of(client_ids: Sequence[int], size: int, *, at_home: bool) -> list[tuple[int, ...]]:
    """Return clients, in their order, as groups of at most `size`.

    at_home: clients keep something between rounds, each on one process. Then a group is of those whose ids are in one
    block of `size`, and a process is the home of whole blocks.
    """
    if at_home:
        return [tuple(group) for _, group in groupby(client_ids, key=lambda client_id: client_id // size)]
    return [tuple(client_ids[start : start + size]) for start in range(0, len(client_ids), size)]
