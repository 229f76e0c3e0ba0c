"""The classes of a classification: their names, the number of a row's class, and the number a regression predicts.

A row names its class by the name or by its number from 0. Where the names are integers themselves (ratings 1 to 5,
say), an integer in a row is always a name, so that 1 cannot mean two things.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlit.data.columns import require_column
from fedlit.data.prompts import Row
from fedlit.errors import UserError

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig

NUMBER_LIMIT = 2**15
"""A number to predict is smaller in magnitude: squared errors are averaged in fixed point below 2**31."""


def class_names(rows: Sequence[Row], config: DataConfig) -> tuple[str, ...]:
    """Return the names of the classes in the order of their numbers.

    They are `data.classes`, or else the values of the target column: integers in numeric order, or names in that of
    their characters.

    Raises:
        UserError: fewer than two classes, a name twice or blank, or integers and names in one column.
    """
    return _collected_names(rows, config) if config.classes is None else given_names(config.classes)


def class_index(row: Row, classes: Sequence[str], config: DataConfig, *, place: str = "a row") -> int:
    """Return the number of a row's class, from 0; `place` names the row in errors.

    Raises:
        UserError: the target column holds no class, or none of `classes`.
    """
    value = class_value(row, config, place)
    number = _number_of(value, classes)
    if number is None:
        what = "label out of range" if isinstance(value, int) else "unknown label"
        valid = f"{_shown(classes)}" if _has_integer_names(classes) else f"{_shown(classes)} or 0 to {len(classes) - 1}"
        raise UserError(
            f"{place}: {what}: column {config.target!r} (data.target) holds {value!r}, and the classes are {valid}; "
            "correct the row or data.classes"
        )
    return number


def class_value(row: Row, config: DataConfig, place: str) -> int | str:
    """Return what the target column of a row holds, an integer or a name, without asking whether there is such a class.

    Raises:
        UserError: it holds something else.
    """
    value = row[config.target]
    if isinstance(value, bool) or not isinstance(value, (int, str)) or (isinstance(value, str) and not value.strip()):
        remedy = "for numbers to predict, give data.regression=true" if isinstance(value, float) else "fill it in"
        raise UserError(
            f"{place}: column {config.target!r} (data.target) holds {value!r}, neither a class's number from 0 nor "
            f"its name; {remedy}, or choose another data.target"
        )
    return value


def target_number(row: Row, config: DataConfig, *, place: str = "a row") -> float:
    """Return the number that a regression predicts for a row; `place` names the row in errors.

    Raises:
        UserError: the target column holds no number, or one that is not finite or not below 2**15 in magnitude.
    """
    value: Any = row[config.target]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, float) and math.isfinite(value)):
        raise UserError(
            f"{place}: column {config.target!r} (data.target) holds {value!r}, not a finite number; write a number, or "
            "give data.regression=false for classes"
        )
    if abs(value) >= NUMBER_LIMIT:
        raise UserError(
            f"{place}: column {config.target!r} (data.target) holds {value!r}, {NUMBER_LIMIT} or more in magnitude; "
            "scale the numbers, to about 0 to 1 say"
        )
    return float(value)


def check_target(row: Row, place: str, config: DataConfig) -> None:
    """Check that data.target holds a class, one of data.classes where they are given, or a number for a regression.

    Raises:
        UserError: it is not there, or holds something else; `place` names the row.
    """
    require_column(row, config.target, place, "data.target")
    if config.regression:
        target_number(row, config, place=place)
    elif config.classes is None:
        class_value(row, config, place)
    else:
        class_index(row, given_names(config.classes), config, place=place)


def given_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Return `data.classes`; UserError for a name twice or blank, and for fewer than two."""
    names = tuple(map(str, classes))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"data.classes names {twice[0]!r} twice; give every class a name of its own")
    if any(not name.strip() for name in names):
        raise UserError(f"data.classes={list(names)} holds a blank name; give every class a name")
    if len(names) < 2:
        raise UserError(f"data.classes={list(names)} has {len(names)} of at least 2 classes; name all, or give null")
    return names


def _collected_names(rows: Sequence[Row], config: DataConfig) -> tuple[str, ...]:
    values = {class_value(row, config, f"row {i}") for i, row in enumerate(rows)}
    integers = sorted(value for value in values if isinstance(value, int))
    texts = sorted(value for value in values if isinstance(value, str))
    if integers and texts:
        raise UserError(
            f"column {config.target!r} (data.target) holds numbers ({_shown(integers)}) and names ({_shown(texts)}) of "
            "classes; write one kind, or give the names in the order of the numbers with data.classes"
        )
    names = tuple(map(str, integers)) or tuple(texts)
    if len(names) < 2:
        raise UserError(
            f"column {config.target!r} (data.target) holds one class only ({_shown(names)}) and there is nothing to "
            "learn; choose another data.target or other rows"
        )
    return names


def _number_of(value: int | str, classes: Sequence[str]) -> int | None:
    """Return the number of the class that a value stands for; None if there is none."""
    if isinstance(value, str) or _has_integer_names(classes):
        return classes.index(str(value)) if str(value) in classes else None
    return value if 0 <= value < len(classes) else None


def _has_integer_names(classes: Sequence[str]) -> bool:
    return any(name.removeprefix("-").isdecimal() for name in classes)


def _shown(names: Sequence[Any], limit: int = 5) -> str:
    return ", ".join(map(str, names[:limit])) + (", ..." if len(names) > limit else "")
