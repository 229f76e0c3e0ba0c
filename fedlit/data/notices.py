"""What is odd about rows that are all valid: told, or refused where no score would mean anything."""

from collections.abc import Iterator, Sequence
from typing import Any

from fedlit.config.schema import DataConfig
from fedlit.data.classes import class_index
from fedlit.data.columns import label_notices
from fedlit.data.images import digest, is_cheap
from fedlit.data.paths import given_paths
from fedlit.data.prompts import Row
from fedlit.data.values import shown
from fedlit.errors import UserError


def row_notices(
    rows: Sequence[Row],
    test_rows: Sequence[Row],
    data: DataConfig,
    *,
    columns: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> list[str]:
    """Return lines a person should read about the rows and those of a test set.

    `columns` are those that the task reads, `classes` the names of the training rows' classes.

    Raises:
        UserError: the test set holds training rows only.
    """
    notices = [] if data.label is None else label_notices(rows, data.label, "data.label")
    if not test_rows:
        return notices
    if classes and type(here := rows[0][data.target]) is not type(there := test_rows[0][data.target]):
        name = classes[class_index(test_rows[0], classes, data)]
        notices.append(
            f"column {data.target!r} (data.target) holds {shown(here)} in training rows and {shown(there)} in the test "
            f"set, where {shown(there)} is taken for the class {name}"
        )
    if not all(is_cheap(row[column]) for row in (rows[0], test_rows[0]) for column in columns):
        return notices
    return notices + _common_rows(rows, test_rows, data, columns)


def _common_rows(rows: Sequence[Row], test_rows: Sequence[Row], data: DataConfig, columns: Sequence[str]) -> list[str]:
    """Return a line where some rows of the test set are trained on; UserError where all are."""
    key, value, none = "data.hub_test_split", data.hub_test_split, "null"
    if data.test_path is not None:
        key, value = "data.test_path", ", ".join(given_paths(data.test_path))
    elif data.source == "memory":
        key, value, none = "test_rows", "", "None"
    remedy = f"give others, or {key}={none} to test on a part of every client's rows"
    return _told_common(f"{key}={value}", test_rows, rows, "training rows", remedy, columns)


def validation_notices(
    train_rows: Sequence[Row],
    test_rows: Sequence[Row],
    validation_rows: Sequence[Row],
    data: DataConfig,
    *,
    columns: Sequence[str],
    is_own: bool,
) -> list[str]:
    """Return a line where some rows on which rounds and rates are chosen are trained on or tested on.

    is_own: the validation set belongs to nobody; else it is a part of the clients' rows, and none is trained on.

    Raises:
        UserError: all of them are.
    """
    sets = [rows for rows in (validation_rows, train_rows, test_rows) if rows]
    if not all(is_cheap(rows[0][column]) for rows in sets for column in columns):
        return []
    remedy = "give other rows, or eval.choose_on=test, which says so"
    if data.source == "memory":
        where = "validation_rows="
    elif data.validation_path is not None:
        where = f"data.validation_path={', '.join(given_paths(data.validation_path))}"
    elif is_own:
        where = f"data.hub_validation_split={data.hub_validation_split}"
    else:
        where = "partition.validation_fraction"
    found = _told_common(where, validation_rows, train_rows, "training rows", remedy, columns) if is_own else []
    found += _told_common(where, validation_rows, test_rows, "test rows", remedy, columns)
    if is_own and len(found) > 1:  # some of both kinds, perhaps nothing else
        _told_common(where, validation_rows, [*train_rows, *test_rows], "training or test rows", remedy, columns)
    return found


def _told_common(
    where: str, rows: Sequence[Row], others: Sequence[Row], what: str, remedy: str, columns: Sequence[str]
) -> list[str]:
    """Return a line where some rows of a set are among others; UserError where all are."""
    known = set(_keys(others, columns))
    num_known = sum(key in known for key in _keys(rows, columns))
    if num_known == len(rows):
        raise UserError(f"{where}: all of its {num_known} rows are {what} too; {remedy}")
    return [f"{where}: {num_known} of its {len(rows)} rows are {what} too"] if num_known else []


def _keys(rows: Sequence[Row], columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield what a model is shown of every row and what it is to answer."""
    for row in rows:
        values = (row[column] for column in columns)
        yield tuple(value if isinstance(value, str | int | float) else digest(value) for value in values)
