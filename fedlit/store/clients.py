"""Numbers of single clients where there are many: clients.jsonl, a line for each round and client, beside the records.

A record of a thousand clients would have thousands of keys, and so would every logger. From MANY clients on, what a
record holds under `client/<id>/` goes into this table, and the record keeps what it says of all of them:

    clients/<name>          the mean of a number with a point, the sum of a count or of a matrix
    clients/<name>_q10, _median, _q90   quantiles of a number with a point

A line begins with its round, so that a resumed run drops what it is going to do again by the rounds of its records.
"""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlit.store.round_lines import append_lines, lines_until, read_lines

NAME = "clients.jsonl"

MANY = 100
"""Clients of a run beyond which its records hold no single one."""

_KEY = re.compile(r"client/([0-9]+)/(.+)", re.ASCII)


def split_clients(record: Mapping[str, Any], num_clients: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a record of a run with so many clients as it is written, and the lines of the table, by client."""
    if num_clients <= MANY:
        return dict(record), []
    kept: dict[str, Any] = {}
    lines: dict[int, dict[str, Any]] = {}
    for key, value in record.items():
        match = _KEY.fullmatch(key)
        if match is None:
            kept[key] = value
        else:
            client_id = int(match[1])
            lines.setdefault(client_id, {"round": record["round"], "client": client_id})[match[2]] = value
    table = [lines[client_id] for client_id in sorted(lines)]
    return {**_summary(table), **kept}, table


def append_clients(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add the lines of a round, on the disk before its record is."""
    append_lines(folder / NAME, lines)


def read_clients(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run folder in their order, without what a kill cut short; none where there is no table."""
    return read_lines(folder / NAME)


def clients_until(folder: Path, last_round: int) -> str:
    """Return the text of the table up to and with a round: what is left of it when a run goes on after that round."""
    return lines_until(folder / NAME, last_round)


def _summary(table: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the record says of all clients; of a number that some lack, of those that have it."""
    result: dict[str, Any] = {}
    for name in dict.fromkeys(name for line in table for name in line if name not in ("round", "client")):
        values = [line[name] for line in table if name in line]
        key = f"clients/{name}"
        if all(isinstance(value, float) for value in values):
            result[key] = math.fsum(values) / len(values)
            deciles = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else values * 9
            result |= {f"{key}_q10": deciles[0], f"{key}_median": statistics.median(values), f"{key}_q90": deciles[-1]}
        elif all(type(value) is int for value in values):
            result[key] = sum(values)
        elif all(isinstance(value, list) for value in values):
            total = _sum_of_matrices(values)
            result |= {} if total is None else {key: total}
    return result


def _sum_of_matrices(values: Sequence[list[list[int]]]) -> list[list[int]] | None:
    """Return the sum of matrices of one shape; None for other lists."""
    try:
        return [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*values, strict=True)]
    except (TypeError, ValueError):
        return None
