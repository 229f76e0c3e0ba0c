"""What clients are called by those whose data it is: a file, a value of a column, a name given from Python.

A client is known by its number from 0; its name stands beside it wherever a person reads, and never takes its place in
a key. Names come from file names and columns: they may be long, alike, or hold characters that act on a terminal.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedlit.lines import printable

MAX_CHARACTERS = 32
"""Of a client's label in a table or a picture."""
MAX_LISTED = 12
"""Names in a line that lists them; a record has all."""


def own_name(client_id: int, name: str) -> str:
    """Return a client's name; '' if it says no more than the number."""
    return "" if name.strip() in ("", str(client_id), f"client {client_id}") else name


def told(client_id: int, names: Sequence[str] = ()) -> str:
    """Return what a sentence calls a client: `client 3 (north)`, or its number alone where it has no name."""
    name = short_name(client_id, names)
    return f"client {client_id} ({name})" if name else f"client {client_id}"


def short_name(client_id: int, names: Sequence[str]) -> str:
    """Return a client's name as a sentence has it; '' if it has none."""
    return _short(own_name(client_id, names[client_id])) if client_id < len(names) else ""


def labels(names: Sequence[str], num_clients: int | None = None) -> tuple[str, ...]:
    """Return a different label for every client: its name, of at most 32 characters, `client 3` without one, and the
    number behind it where two would look alike.

    num_clients: where there may be more than `names`.
    """
    num = len(names) if num_clients is None else num_clients
    own = [own_name(client_id, names[client_id]) if client_id < len(names) else "" for client_id in range(num)]
    short = [_short(name) if name else f"client {client_id}" for client_id, name in enumerate(own)]
    while len(counts := Counter(short)) < len(short):  # a name may look like another with its number
        short = [f"{text} ({client_id})" if counts[text] > 1 else text for client_id, text in enumerate(short)]
    return tuple(short)


def rows_of_each(names: Sequence[str], num_rows: Sequence[int]) -> list[str]:
    """Return the line that tells the clients' names and training rows; none where they have no names."""
    if not are_named(names):
        return []
    told_each = [f"{label} {num:,}" for label, num in zip(labels(names), num_rows, strict=True)]
    rest = len(told_each) - MAX_LISTED
    more = f", and {rest:,} more (partition.json has all)" if rest > 0 else ""
    return [f"  of each    {', '.join(told_each[:MAX_LISTED])}{more}"]


def are_named(names: Sequence[str]) -> bool:
    """Tell whether any client has a name that says more than its number."""
    return any(own_name(client_id, name) for client_id, name in enumerate(names))


def name_of_values(values: Sequence[str]) -> str:
    """Return the name of a client that holds these values of a column: those that there is room for, and how many
    more.
    """
    shown = [_short(value) or "(blank)" for value in values]
    kept = shown[:1]
    for value in shown[1:]:
        if len(", ".join([*kept, value])) > MAX_CHARACTERS - 5:
            break
        kept.append(value)
    more = len(shown) - len(kept)
    return ", ".join(kept) + (f" +{more}" if more else "")


def names_in(partition: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the names of the clients in a partition.json, '' where one has none; none where nobody has."""
    clients = (partition or {}).get("clients", ())
    names = tuple(name if isinstance(name := client.get("name"), str) else "" for client in clients)
    return names if are_named(names) else ()


def _short(name: str) -> str:
    """Return a name of at most 32 characters, without those that act on a terminal; of a longer one both ends."""
    text = printable(" ".join(name.split()))
    tail = MAX_CHARACTERS // 3
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - tail - 1]}…{text[-tail:]}"
