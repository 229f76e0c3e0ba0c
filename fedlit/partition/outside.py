"""Who holds which rows, by a part from outside: what `partition.name` may name beside the package's own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedlit.data.prompts import Row
from fedlit.errors import UserError
from fedlit.registry import build_part


class Partition(ABC):
    """Deals rows to clients; a dataclass below it, whose fields are the options in `partition.options`.

    Each client's rows are split into training and test afterwards, as under any other partition.
    """

    @abstractmethod
    def deal(
        self, rows: Sequence[Row], labels: Sequence[str] | None, num_clients: int, generator: np.random.Generator
    ) -> Sequence[Sequence[int]]:
        """Return the row numbers of every client: a list for each, not empty, no row in two of them.

        Args:
            rows: all that take part, in their order.
            labels: `data.label` of every row; None with data.label=null.
            num_clients: how many lists there must be.
            generator: the stream (seed, "partition"), the only source of chance.

        Raises:
            UserError: one line on why these rows do not allow it, and the remedy.
        """


def deal_outside(
    name: str,
    options: Mapping[str, Any],
    rows: Sequence[Row],
    labels: Sequence[str] | None,
    num_clients: int,
    generator: np.random.Generator,
) -> list[list[int]]:
    """Return the ascending row numbers of every client by a partition from outside.

    Raises:
        UserError: what it returns is no partition of the rows.
    """
    dealt = build_part("partition", name, options).deal(rows, labels, num_clients, generator)
    parts = [sorted(int(row) for row in part) for part in dealt]
    told = f"partition.name={name} returns"
    if len(parts) != num_clients:
        raise UserError(f"{told} the rows of {len(parts)} clients, and {num_clients} are asked for; mend its deal()")
    owners: dict[int, int] = {}
    for client, part in enumerate(parts):
        if not part:
            raise UserError(f"{told} no row for client {client}; mend its deal(), or give fewer clients")
        for row in part:
            if not 0 <= row < len(rows):
                raise UserError(f"{told} row {row} for client {client}, of {len(rows)} rows; mend its deal()")
            if row in owners:
                raise UserError(f"{told} row {row} for client {owners[row]} and client {client}; mend its deal()")
            owners[row] = client
    return parts
