"""Numbers are decimal, keys are text, values are of their key's type as they stand, and the rest is one line."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.config import load_config, to_yaml
from fedlit.config.keys import as_argument, run_options, show
from fedlit.config.loading import CONFIG_DIR
from fedlit.config.reading import MAX_DEPTH, dump_yaml, parse_yaml
from fedlit.errors import UserError
from fedlit.recipes import all_options

NOT_DECIMAL = ("010", "08", "00", "1:30", "0x10", "0b11", "1_000", "12:30:45", "1_0.5", "01.5", "1:30.5")
NO_NUMBERS = ("１２", "٣", "1 2", '"12"', "twelve", "1e", "0o17", "½", "²")


def refusal(*arguments: str, config_dir: Path = CONFIG_DIR) -> str:
    with pytest.raises(UserError) as caught:
        load_config(arguments, config_dir)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and len(message) <= 400 and message.isprintable()
    return message


@pytest.mark.parametrize("text", NOT_DECIMAL)
@pytest.mark.parametrize("key", ["seed", "local.lr", "data.sample"])
def test_a_number_in_other_digits_is_refused(key: str, text: str) -> None:
    assert "decimal digits" in refusal(f"{key}={text}")


@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("key", ["seed", "local.lr", "data.sample", "method.galore.rank"])
def test_a_text_is_no_number(key: str, text: str) -> None:
    assert "has the wrong type" in refusal("method=fedftg", f"{key}={text}")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("1.5e3", 1500.0), ("2.e1", 20.0), (".5", 0.5), ("+3", 3), ("12", 12), ("0", 0)],
)
def test_decimal_numbers_are_numbers(text: str, value: float) -> None:
    read = parse_yaml(text, "here")
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("text", ["3", "0", "1", "1.0", '"true"', "y"])
def test_no_number_is_a_truth_value(text: str) -> None:
    assert "expected: true or false" in refusal(f"run.example_scores={text}")


@pytest.mark.parametrize("name", ["sample", "label"])
def test_numbers_in_a_file_are_decimal_too(name: str, config_dir: Path) -> None:
    (config_dir / "data/pydoc.yaml").write_text(f"name: pydoc\n{name}: 0300\n", encoding="utf-8")
    message = refusal(config_dir=config_dir)
    assert "configs/data/pydoc.yaml, line 2" in message and "0300" in message and "decimal digits" in message


@pytest.mark.parametrize(
    "argument",
    [
        "seed=!!int x",
        "local.lr=!!float x",
        "run.example_scores=!!bool x",
        "data.required=!!binary aGk=",
        "data.required=!!set {a}",
        "data.required=!!timestamp 2026-01-01",
        "seed=!!python/object:a.b x",
        "seed=" + "9" * 5000,
        "seed=-" + "9" * 900,
        "local.lr=" + "9" * 5000 + ".5",
        "method.lora_rank=99999999999999999999",
        "method.lora_rank=[1, 2, 99999999999999999999]",
        "data.required=" + "[" * 3000,
        "data.required=" + "[" * 100_000,
        "data.required=" + "- " * 3000,
        "data.required=" + "{a: " * 3000,
        "data.required=&a [*a]",
        "data.required=[&a [x, x], &b [*a, *a], &c [*b, *b], &d [*c, *c]]",
        "data.required={[a]: b}",
        "data.name=caf\udce9",
        "caf\udce9=1",
        "--caf\udce9",
        "caf\udce9",
        "data.template=a\0b",
        'data.template="a\\0b"',
        'data.required=["a\\0"]',
        'data.required=["\\ud83d"]',
        'data.name="two\\nlines"',
        'run.name="\\e[2J"',
        "data.task=" + "x" * 1_000_000,
        "x" * 1_000_000 + "=1",
        "x" * 1_000_000,
        "data.name=" + "[" + "x" * 1_000_000,
        "data.path=" + "x" * 1_000_000,
        "method.residual_rank=x",
        "local.lr=1e400",
        "seed=-1e400",
        "cohort.options={1: 2}",
    ],
    ids=lambda argument: ascii(argument[:40]),
)
def test_what_cannot_be_read_is_one_line(argument: str) -> None:
    refusal("method=fedex_lora", argument)


def test_a_number_beyond_all_is_told_as_it_stands() -> None:
    assert "1e400 is beyond what a number can hold" in refusal("seed=1e400")


def test_a_file_that_is_not_utf8_is_named_with_its_line(config_dir: Path) -> None:
    (config_dir / "data/pydoc.yaml").write_bytes(b"name: pydoc\n# caf\xe9\n")
    assert "configs/data/pydoc.yaml, line 2" in refusal(config_dir=config_dir)


@pytest.mark.parametrize(
    "recipe",
    ["method=fedex_lora method.residual_rank", "method=fed_sb method.init_lr", "method=fedftg method.galore.rank"],
)
@pytest.mark.parametrize("text", ["x", "true", "[1]", "{a: 1}", "-1"])
def test_an_option_whose_default_is_null_has_a_type(recipe: str, text: str) -> None:
    method, key = recipe.split()
    assert key in refusal(method, f"{key}={text}")


def test_every_option_whose_default_is_null_has_a_type() -> None:
    null = {key: found.hint for key, found in run_options(all_options()).items() if found.default is None}
    assert len(null) > 20 and Any not in null.values()


def test_a_key_is_the_text_that_stands_there(config_dir: Path) -> None:
    (config_dir / "experiment/both.yaml").write_text("eval: {on: both}\n", encoding="utf-8")
    assert load_config(["experiment=both"], config_dir).eval.on == "both"


def test_a_dollar_stands_before_a_column_of_a_template_and_nowhere_else() -> None:
    config = load_config(["data.template=What is ${prompt}$?", "data.required=[prompt]"])
    assert config.data.template == "What is ${prompt}$?"
    assert "${prompt}$" in to_yaml(config)
    assert "not expanded" in refusal("data.path=${prompt}")
    assert "not expanded" in refusal("data.required=[a, '${prompt}']")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3),
    max_leaves=6,
).filter(lambda value: "\\u0000" not in ascii(value) and "\\x00" not in ascii(value))


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_what_is_written_is_read(value: object) -> None:
    assert repr(parse_yaml(dump_yaml({"a": value}), "here")["a"]) == repr(value)
    if not isinstance(value, str):  # a text stands as it is, save that it is written in quotes where it must be
        assert repr(parse_yaml(as_argument(value), "here")) == repr(value)


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1).filter(lambda text: "\0" not in text and text.strip() not in ("", "???")))
def test_a_text_argument_comes_back(text: str) -> None:
    assert load_config([f"data.template={as_argument(text)}", "data.required=[]"]).data.template == text


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("[]{}&*!|>%@`'\"#:,-?~ \n\t\\ a1.e0x_\u2028\x7f\ud800")))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        parse_yaml(text, "here")
    except UserError as mistake:
        assert str(mistake).isprintable() and len(str(mistake)) <= 400


def test_a_value_is_shown_up_to_its_two_hundredth_character() -> None:
    assert show("x" * 200) == "x" * 200
    assert len(show("x" * 1_000_000)) == 200 and show("x" * 1_000_000).endswith("... (1,000,000 characters)")
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "here")
