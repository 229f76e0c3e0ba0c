"""The records of a run, metrics.jsonl: a line a round, `{"round": 3, "global/loss": 1.5}`, round 0 the untrained model.
No other file reads it.

A line counts from its line break on: what a kill cut short, or what is being written, is left out. A whole line that is
no JSON object with a whole number as its `round` is damage, and told. NaN and Infinity, which Python's JSON knows, are
read as they stand; `fedlit.scores.number` takes neither for a score, and no run writes them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fedlit.errors import UserError
from fedlit.scores import best_round

Record = dict[str, Any]
RecordT = TypeVar("RecordT", bound=Mapping[str, Any])

NAME = "metrics.jsonl"


def read_records(folder: Path) -> list[Record]:
    """Return the records of a run folder in their order; none where there is no file.

    Raises:
        UserError: a whole line is no record.
    """
    return [*newest_first(folder)][::-1]


def newest_first(folder: Path) -> Iterator[Record]:
    """Yield the records from the last to the first, each read when it is asked for.

    Raises:
        UserError: as `read_records`, of the lines that are read.
    """
    lines = _whole_lines(folder)
    for number in range(len(lines), 0, -1):
        try:
            record = json.loads(lines[number - 1])
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or type(record.get("round")) is not int:
            raise UserError(
                f"{folder} has a damaged {NAME} (line {number} is no record of a round); "
                "mend it, or move the folder away"
            )
        yield record


def count_records(folder: Path) -> int:
    """Return the number of records without reading into them."""
    return len(_whole_lines(folder))


def trained(records: Iterable[RecordT]) -> list[RecordT]:
    """Return the records of rounds of training, all but the untrained model's."""
    return [record for record in records if record["round"] > 0]


def best_record(records: Iterable[RecordT], key: str) -> RecordT | None:
    """Return the record of the best round by a score, by the rule of `fedlit.scores.best_round`; None without one.

    Of two records of one round the later counts.
    """
    by_round = {record["round"]: record for record in records}
    number = best_round(key, {number: record.get(key) for number, record in by_round.items()})
    return None if number is None else by_round[number]


def _whole_lines(folder: Path) -> list[bytes]:
    try:
        return (folder / NAME).read_bytes().split(b"\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"{folder / NAME} cannot be read ({error.strerror}); mend it, or move the folder away"
        ) from error
