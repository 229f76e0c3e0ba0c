"""Every file a client: rows stay together as somebody put them into files, folders or configurations."""

from collections.abc import Sequence

from fedlit.data.paths import natural_order
from fedlit.errors import UserError


def deal_files(files: Sequence[str], num_clients: int) -> tuple[list[list[int]], list[str]]:
    """Return the ascending row numbers of every client and the clients' names, in the order of the names (numbers in
    them count as numbers).

    Args:
        files: of every row, the name of its file.
        num_clients: as the configuration has it.

    Raises:
        UserError: the rows come from no files, or from another number of them.
    """
    if not files:
        raise UserError(
            "partition.name=files makes each file a client, and these rows come from none; give data.path=[a, b], a "
            "folder or a pattern such as data.path='hospitals/*.csv', or choose another partition"
        )
    names = sorted(set(files), key=natural_order)
    if len(names) != num_clients:
        shown = ", ".join([*names[:4], *(["..."] if len(names) > 4 else [])])
        raise UserError(
            f"num_clients={num_clients}: the rows are of {len(names)} file{'s' if len(names) > 1 else ''} ({shown}); "
            f"set num_clients={len(names)}"
        )
    parts: dict[str, list[int]] = {name: [] for name in names}
    for number, name in enumerate(files):
        parts[name].append(number)
    return list(parts.values()), names
