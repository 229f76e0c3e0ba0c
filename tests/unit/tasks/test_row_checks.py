"""Every mistake in a row of any task is told at once: place, column, option, value and what to do."""

from typing import Any

import numpy as np
import pytest

from fedlit.config.schema import DataConfig
from fedlit.errors import UserError
from fedlit.tasks.registry import task_spec

PLACE = "rows.jsonl, line 12"
PAIR: dict[str, Any] = {"first": "A plane.", "second": "A train.", "label": 1}


def pairs(**options: Any) -> DataConfig:
    return DataConfig(task="sequence_classification", **{"text": ["first", "second"], **options})


def images(**options: Any) -> DataConfig:
    return DataConfig(task="image_classification", **options)


def check_row(record: Any, place: str, config: DataConfig) -> dict[str, Any] | None:
    return task_spec(config.task).check_row(record, place, config)


def fails(record: Any, config: DataConfig, *parts: str) -> None:
    with pytest.raises(UserError) as error:
        check_row(record, PLACE, config)
    message = str(error.value)
    assert message.startswith(f"{PLACE}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("record", "config"),
    [
        (PAIR, pairs()),
        (PAIR, pairs(classes=["no", "yes"])),
        (PAIR | {"label": "yes"}, pairs(classes=["no", "yes"])),
        (PAIR | {"label": "any name"}, pairs()),
        (PAIR | {"label": 3.8}, pairs(regression=True, label=None)),
        (PAIR | {"label": 3.8}, pairs(regression=True)),  # a label may be any plain value
        (PAIR | {"topic": 4}, pairs(label="topic")),
        (PAIR, pairs(text=["second"])),
        ({"prompt": "a", "response": "b", "label": 0}, DataConfig()),
        ({"image": np.zeros((8, 8), np.uint8), "label": 7}, images()),
        ({"image": np.zeros((8, 8, 3), np.uint8), "label": "glioma"}, images(classes=["glioma", "meningioma"])),
    ],
)
def test_a_good_row_stays_as_it_is(record: dict[str, Any], config: DataConfig) -> None:
    row = check_row(record, PLACE, config)
    assert row == record
    assert row is not record


def test_null_in_a_column_of_the_prompt_counts_as_blank() -> None:
    config = DataConfig(template="{prompt}{context}")
    record = {"prompt": "a", "context": None, "response": "b", "label": "c"}
    assert check_row(record, PLACE, config) == record | {"context": ""}


@pytest.mark.parametrize("config", [DataConfig(), pairs(), images()])
def test_a_row_is_an_object(config: DataConfig) -> None:
    fails(["a", "b"], config, "list, not an object", '{"column": value, ...}')


@pytest.mark.parametrize("value", [None, "", " \n", 5, ["a"]])
def test_a_text_is_a_string_that_is_not_blank(value: Any) -> None:
    fails(PAIR | {"second": value}, pairs(), "column 'second' (data.text)", f"holds {value!r},", "choose another")


@pytest.mark.parametrize(
    ("record", "config", "parts"),
    [
        ({"first": "a", "label": 1}, pairs(), ["no column 'second' (asked for by data.text)", "['first', 'label']"]),
        (
            {"first": "a", "second": "b", "labels": 1},
            pairs(),
            ["no column 'label' (asked for by data.target)", "'labels'"],
        ),
        (PAIR, pairs(label="topic"), ["no column 'topic' (asked for by data.label)", "give data.label=<column>, or"]),
        (PAIR, pairs(target="score"), ["no column 'score' (asked for by data.target)"]),
        (
            {"picture": 0, "label": 1},
            images(),
            ["'image' (asked for by data.image)", "give data.image=<column>"],
        ),
        ({"image": np.zeros((8, 8), np.uint8)}, images(), ["no column 'label' (asked for by data.target)"]),
    ],
)
def test_a_missing_column(record: dict[str, Any], config: DataConfig, parts: list[str]) -> None:
    fails(record, config, *parts)


@pytest.mark.parametrize(
    ("value", "options", "parts"),
    [
        (2, {"classes": ["no", "yes"]}, ["label out of range", "holds 2,", "or 0 to 1", "data.classes"]),
        ("maybe", {"classes": ["no", "yes"]}, ["unknown label", "holds 'maybe'"]),
        (None, {}, ["holds None", "fill it in"]),
        (0.5, {}, ["holds 0.5", "data.regression=true"]),
        ("0.5", {"regression": True}, ["holds '0.5', not a finite number"]),
        (float("nan"), {"regression": True}, ["holds nan, not a finite number"]),
        (1e6, {"regression": True}, ["holds 1000000.0, 32768 or more", "scale"]),
    ],
)
def test_a_target_that_is_none(value: Any, options: dict[str, Any], parts: list[str]) -> None:
    fails(PAIR | {"label": value}, pairs(**options), "column 'label' (data.target)", *parts)
    if not options.get("regression"):
        image = {"image": np.zeros((8, 8), np.uint8), "label": value}
        fails(image, images(**options), "column 'label' (data.target)", *parts)


@pytest.mark.parametrize("value", [None, "", float("nan"), ["a"]])
def test_a_partition_label_that_is_none(value: Any) -> None:
    for record, config in ((PAIR, pairs(label="topic")), ({"prompt": "a", "response": "b"}, DataConfig(label="topic"))):
        fails(
            record | {"topic": value}, config, "column 'topic' (data.label)", "not a label", "choose another data.label"
        )


@pytest.mark.parametrize("text", [[], ["first", "second", "first"]])
def test_one_text_or_two(text: list[str]) -> None:
    with pytest.raises(UserError, match=r"data\.text=.*columns; name the one to read, or two of a pair"):
        check_row(PAIR, PLACE, pairs(text=text))


def test_what_is_no_image() -> None:
    fails({"image": "scan.png", "label": 1}, images(), "data.image")
