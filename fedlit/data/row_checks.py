"""Every row is checked as it is read, before a model is loaded, so that a mistake in line 16,000 shows at once."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedlit.config.schema import DataConfig
from fedlit.data import images
from fedlit.data.classes import class_index, class_value, given_names, target_number
from fedlit.data.prompts import Row, prompt_template, required_columns, template_columns
from fedlit.errors import UserError


def check_row(record: Any, place: str, config: DataConfig) -> Row | None:
    """Return the row with every column that the configuration needs, or None if it is left out.

    causal_lm: template columns hold strings, null counts as blank; the response is a string that is not blank; a row
    with an empty one is left out with data.drop_empty. sequence_classification: the one or two columns of data.text
    hold strings that are not blank. image_classification: data.image holds an image. Both: data.target holds a class,
    one of data.classes where they are given, or a finite number for a regression. `place` names the row in errors.

    Raises:
        UserError: the column that is not there or holds something else, and what to do about it.
    """
    if not isinstance(record, dict):
        raise UserError(f'{place}: {type(record).__name__}, not an object; write each row as {{"column": value, ...}}')
    if config.task == "causal_lm":
        return _checked(record, place, config, text_columns(config))
    row = dict(record)
    if config.task == "sequence_classification":
        _check_texts(row, place, config)
    else:
        _require_column(row, config.image, place, "data.image")
        images.check_cell(row[config.image], place, "data.image")
    _check_target(row, place, config)
    if config.label is not None:
        _label_text(row, config.label, place, "data.label")
    return row


def _check_texts(row: Row, place: str, config: DataConfig) -> None:
    if len(config.text) not in (1, 2):
        raise UserError(f"data.text={config.text}: {len(config.text)} columns; name the one to read, or two of a pair")
    for column in config.text:
        _require_column(row, column, place, "data.text")
        if not isinstance(row[column], str) or not row[column].strip():
            raise UserError(
                f"{place}: column {column!r} (data.text) holds {row[column]!r}, not a text to read; write a string "
                "that is not blank, or choose another data.text"
            )


def _check_target(row: Row, place: str, config: DataConfig) -> None:
    _require_column(row, config.target, place, "data.target")
    if config.regression:
        target_number(row, config, place=place)
    elif config.classes is None:
        class_value(row, config, place)
    else:
        class_index(row, given_names(config.classes), config, place=place)


def column_values(rows: Sequence[Row], column: str, key: str) -> list[str]:
    """Return one column of every row as text; `key` is the option that named the column.

    Raises:
        UserError: a row lacks the column, or has null or blank or no plain value there.
    """
    return [_label_text(row, column, f"row {i}", key) for i, row in enumerate(rows)]


def text_columns(config: DataConfig) -> dict[str, str]:
    """Map every column that holds a language model's text to the option that asks for it.

    Raises:
        UserError: a template is none.
    """
    key = "data.template" if config.prompt is None else "data.prompt"
    columns = dict.fromkeys(template_columns(prompt_template(config)), key)
    columns |= dict.fromkeys(template_columns(prompt_template(config, test=True)), "data.test_template") | columns
    return columns | dict.fromkeys(required_columns(config), "data.required") | {config.response: "data.response"}


def _checked(record: Row, place: str, config: DataConfig, texts: Mapping[str, str]) -> Row | None:
    """Return the row of a language model, or None if it is left out for its empty response."""
    row = dict(record)
    for column, key in texts.items():
        _require_column(row, column, place, key)
        if row[column] is None:
            row[column] = ""
        if not isinstance(row[column], str):
            raise UserError(
                f"{place}: column {column!r} ({key}) holds {row[column]!r}, not a string; write it as a string"
            )
    if not row[config.response].strip():
        if config.drop_empty:
            return None
        raise UserError(
            f"{place}: column {config.response!r} (data.response) is empty; fill it in, "
            "or leave such rows out with data.drop_empty=true"
        )
    for column in required_columns(config):
        if not row[column].strip():
            raise UserError(f"{place}: column {column!r} is blank; fill it in or take it off data.required")
    if config.label is not None:
        _label_text(row, config.label, place, "data.label")
    return row


def _require_column(row: Row, column: str, place: str, key: str) -> None:
    if column not in row:
        columns = [str(name) for name in row]
        close = difflib.get_close_matches(column, columns, n=1, cutoff=0.0)
        nearest = f"; the nearest is {close[0]!r}" if close else ""
        raise UserError(f"{place}: no column {column!r} (asked for by {key}) among {columns}{nearest}")


def _label_text(row: Row, column: str, place: str, key: str) -> str:
    _require_column(row, column, place, key)
    value = row[column]
    is_label = isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    if not is_label or not str(value).strip():
        raise UserError(
            f"{place}: column {column!r} ({key}) holds {value!r}, not a label; fill it in or choose another {key}"
        )
    return str(value)
