"""A configuration from Python's own values."""

from pathlib import Path
from typing import Any

import pytest

from fedlit.config import RunConfig, load_config, to_yaml
from fedlit.config.loading import load_config_from
from fedlit.errors import UserError


def test_values_dotted_or_nested_are_an_experiment(config_dir: Path) -> None:
    expected = load_config(["data=questions", "local.lr=0.5", "local.batch_size=4", "num_rounds=2"], config_dir)
    nested = {"data": "questions", "local": {"lr": 0.5}, "local.batch_size": 4}
    assert load_config_from(nested, {"num_rounds": 2}, config_dir) == expected
    assert load_config_from(None, {**nested, "num_rounds": 2}, config_dir) == expected
    assert load_config_from({}, None, config_dir) == load_config([], config_dir)


def test_an_experiment_a_path_and_a_configuration_are_sources(config_dir: Path, tmp_path: Path) -> None:
    expected = load_config(["experiment=both", "seed=3"], config_dir)
    assert load_config_from({"experiment": "both"}, {"seed": 3}, config_dir) == expected
    assert load_config_from(None, {"experiment": "both", "seed": 3}, config_dir) == expected
    assert load_config_from(config_dir / "experiment/both.yaml", {"seed": 3}, config_dir) == expected
    whole = tmp_path / "config.yaml"
    whole.write_text(to_yaml(expected), encoding="utf-8")
    assert load_config_from(str(whole), None, config_dir) == expected
    assert load_config_from(expected, None, config_dir) == expected
    changed = load_config_from(expected, {"method.flag": True, "local.epochs": 2}, config_dir)
    assert (changed.method.options["flag"], changed.local.steps, changed.local.epochs) == (True, None, 2)


def test_tuples_are_lists_and_paths_are_texts(config_dir: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.touch()
    columns = ("a", "b")
    config = load_config_from({"data": {"required": columns, "path": rows}}, {"run.dir": tmp_path}, config_dir)
    assert (config.data.required, config.data.path, config.run.dir) == (["a", "b"], str(rows), str(tmp_path))


def test_nothing_is_shared_with_the_caller(config_dir: Path) -> None:
    columns = ["a"]
    config = load_config_from({"data.required": columns}, None, config_dir)
    config.data.required.append("b")
    assert columns == ["a"]


def endless() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["data"] = value
    return value


@pytest.mark.parametrize(
    ("source", "overrides", "parts"),
    [
        ({}, {"num_rounds": "3"}, ["num_rounds=3 (keyword argument) has the wrong type", "integer"]),
        ({"num_rounds": True}, {}, ["num_rounds=true (mapping) has the wrong type"]),
        ({"local.stepz": 3}, {}, ["'local.stepz' (mapping)", "'local.steps'"]),
        ({}, {"stepz": 3}, ["'stepz' (keyword argument)"]),
        ({}, {"num_rounds": -1}, ["num_rounds=-1 (keyword argument) is out of range"]),
        ({}, {"data": "qestions"}, ["data=qestions (keyword argument)", "'questions'"]),
        ({}, {"data": 3}, ["data=3 (keyword argument)"]),
        ({}, {"method": {"name": "nested"}}, ["method.name=nested", "write method=nested"]),
        ({}, {"local": {"lr": 1.0}, "local.lr": 2.0}, ["local.lr is given twice (keyword argument)"]),
        ({1: 2}, {}, ["has the key 1, which is no text"]),
        ({"local": {2: 3}}, {}, ["local has the key 2"]),
        ({}, {"data.name": "a\0b"}, ["NUL"]),
        ({}, {"data.name": "\ud800"}, ["data.name holds", "no character"]),
        ({}, {"data.name": object()}, ["data.name=", "wrong type"]),
        (endless(), {}, ["lists and mappings deep"]),
        ([1], {}, ["the configuration=[1] is a list", "give a mapping"]),
        ("nowhere.yaml", {}, ["configuration=nowhere.yaml is not there"]),
        ({"axes": {"seed": [1]}}, {}, ["mapping is a sweep"]),
        ({"plugins": "x"}, {}, ["plugins=x (mapping) has the wrong type"]),
    ],
)
def test_mistakes_are_one_line_with_an_origin(
    source: Any, overrides: dict[str, Any], parts: list[str], config_dir: Path
) -> None:
    with pytest.raises(UserError) as caught:
        load_config_from(source, overrides, config_dir)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert [part for part in parts if part not in message] == [], message


def test_the_origin_of_overrides_is_the_caller_s_to_name(config_dir: Path) -> None:
    with pytest.raises(UserError, match=r"'x' \(function f\)"):
        load_config_from(RunConfig(), {"x": 1}, config_dir, origin="function f")
