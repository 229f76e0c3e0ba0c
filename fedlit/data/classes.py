"""The classes of a classification: their names, the number of a row's class, and the number a regression predicts.

A row names its class by the name or by its number from 0. Where the names are integers themselves (ratings 1 to 5,
say), an integer in a row is always a name, so that 1 cannot mean two things.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlit.data.columns import require_column
from fedlit.data.prompts import Row
from fedlit.data.values import looks, require_encodable, shown
from fedlit.errors import UserError

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig

OTHER_LABEL = "correct the row or data.classes"
OTHER_CLASSES = "correct the row, or name all classes with data.classes=[...]: those of a test set define none"
UNLABELLED = "an unlabelled split? give a test set with its labels (data.test_path or data.hub_test_split)"
NUMBER_LIMIT = 2**15
"""A number to predict is smaller in magnitude: squared errors are averaged in fixed point below 2**31."""


def class_names(rows: Sequence[Row], config: DataConfig) -> tuple[str, ...]:
    """Return the names of the classes in the order of their numbers.

    They are `data.classes`, or else the values of the target column of the training rows: integers in numeric order, or
    names in that of their characters. Test rows define none: those of an unlabelled split all hold -1.

    Raises:
        UserError: fewer than two classes, a name twice or blank, integers and names in one column, or names that look
            alike.
    """
    return _collected_names(rows, config) if config.classes is None else given_names(config.classes)


def class_index(
    row: Row, classes: Sequence[str], config: DataConfig, *, place: str = "a row", remedy: str = OTHER_LABEL
) -> int:
    """Return the number of a row's class, from 0; `place` names the row in errors, which end in `remedy`.

    Raises:
        UserError: the target column holds no class, or none of `classes`.
    """
    value = class_value(row, config, place)
    number = _number_of(value, classes)
    if number is None:
        what = "label out of range" if isinstance(value, int) else "unknown label"
        valid = f"{_shown(classes)}" if _has_integer_names(classes) else f"{_shown(classes)} or 0 to {len(classes) - 1}"
        raise UserError(
            f"{place}: {what}: {_holds(value, config)}, and the classes are {valid}; "
            f"{UNLABELLED if str(value) == '-1' else remedy}"
        )
    return number


def class_value(row: Row, config: DataConfig, place: str) -> int | str:
    """Return what the target column of a row holds, an integer or a name, without asking whether there is such a class.

    Raises:
        UserError: it holds something else.
    """
    value = row[config.target]
    if isinstance(value, bool) or not isinstance(value, (int, str)) or (isinstance(value, str) and not value.strip()):
        raise UserError(
            f"{place}: {_holds(value, config)}, neither a class's number from 0 nor "
            f"its name; {_remedy(value)}, or choose another data.target"
        )
    return value


def _remedy(value: Any) -> str:
    """Return what to do about a value that names no class."""
    if isinstance(value, bool):
        return f'write {int(value)}, or "{str(value).lower()}" in quotes'
    if isinstance(value, float) and value.is_integer():
        return f"write {int(value)} without a fraction; for numbers to predict, give data.regression=true"
    if isinstance(value, float) and math.isfinite(value):
        return "for numbers to predict, give data.regression=true"
    if isinstance(value, list | tuple):
        return "give a row one class"
    return "fill it in, or take the row out (an unlabelled split?)"


def target_number(row: Row, config: DataConfig, *, place: str = "a row") -> float:
    """Return the number that a regression predicts for a row; `place` names the row in errors.

    Raises:
        UserError: the target column holds no number, or one that is not finite or not below 2**15 in magnitude.
    """
    value: Any = row[config.target]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, float) and math.isfinite(value)):
        raise UserError(
            f"{place}: {_holds(value, config)}, not a finite number; write a number, or "
            "give data.regression=false for classes"
        )
    if abs(value) >= NUMBER_LIMIT:
        raise UserError(
            f"{place}: {_holds(value, config)}, {NUMBER_LIMIT} or more in magnitude; "
            "scale the numbers, to about 0 to 1 say"
        )
    return float(value)


def check_test_targets(rows: Sequence[Row], places: Sequence[str], classes: Sequence[str], config: DataConfig) -> None:
    """Check a test set's targets: classes of the training rows, or numbers that are not all one.

    Raises:
        UserError: there is another; `places` name the rows. Where all are one such value, or one number, the message
            asks whether this is an unlabelled split.
    """
    if config.regression:
        numbers = [target_number(row, config) for row in rows]
        if len(numbers) > 1 == len(set(numbers)):
            raise UserError(
                f"{places[0]}: {_holds(rows[0][config.target], config)} here and in all {len(rows)} test rows; "
                f"{UNLABELLED}"
            )
        return
    values = [class_value(row, config, place) for row, place in zip(rows, places, strict=True)]
    for value, row, place in zip(values, rows, places, strict=True):
        if classes and _number_of(value, classes) is None:
            if len(values) > 1 == len(set(values)):
                raise UserError(
                    f"{place}: {_holds(value, config)} here and in all {len(values)} test rows, and the classes of the "
                    f"training rows are {_shown(classes)}; {UNLABELLED}, or name all classes with data.classes"
                )
            class_index(row, classes, config, place=place, remedy=OTHER_CLASSES)


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
    """Return `data.classes`; UserError for a name twice, blank or not to be written, and for fewer than two."""
    names = tuple(map(str, classes))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"data.classes names {twice[0]!r} twice; give every class a name of its own")
    for name in names:
        require_encodable(name, "data.classes", shown(name))
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
            f"learn; choose another data.target or other rows{' (an unlabelled split?)' if names == ('-1',) else ''}"
        )
    alike = defaultdict(list)
    for name in names:
        alike[looks(name)].append(name)
    for same in alike.values():
        if len(same) > 1:
            raise UserError(
                f"{_holds(same[0], config)} and {shown(same[1])}, which look alike and would be two classes; write one "
                "of them in all rows, or name the classes with data.classes"
            )
    return names


def _number_of(value: int | str, classes: Sequence[str]) -> int | None:
    """Return the number of the class that a value stands for; None if there is none."""
    if isinstance(value, str) or _has_integer_names(classes):
        return classes.index(str(value)) if str(value) in classes else None
    return value if 0 <= value < len(classes) else None


def _has_integer_names(classes: Sequence[str]) -> bool:
    return any(name.isascii() and name.removeprefix("-").isdecimal() for name in classes)


def _holds(value: Any, config: DataConfig) -> str:
    return f"column {config.target!r} (data.target) holds {shown(value)}"


def _shown(names: Sequence[Any], limit: int = 5) -> str:
    return ", ".join(str(name)[:40] for name in names[:limit]) + (", ..." if len(names) > limit else "")
