"""Whose a row is by the value of a column: what `partition.name=natural` deals, and what its clients hold."""

from collections import Counter
from collections.abc import Sequence

from fedlit.config.schema import DataConfig, PartitionConfig
from fedlit.data.columns import column_values
from fedlit.data.prompts import Row
from fedlit.errors import UserError


def natural_values(rows: Sequence[Row], data: DataConfig, partition: PartitionConfig) -> list[str]:
    """Return of every row the value of `partition.column`, or of `data.label`.

    Raises:
        UserError: neither names a column, or a row lacks it.
    """
    key = "data.label" if partition.column is None else "partition.column"
    column = data.label if partition.column is None else partition.column
    if column is None:
        raise UserError(
            "partition.name=natural deals the values of a column and none is given; name one with partition.column="
        )
    return list(column_values(rows, column, key))


def held_values(parts: Sequence[Sequence[int]], values: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the values that each client holds, those of most rows first, ties in their order.

    Args:
        parts: row numbers of every client.
        values: of every row.
    """
    counts = [Counter(values[i] for i in part) for part in parts]
    return [tuple(sorted(count, key=lambda value: (-count[value], value))) for count in counts]
