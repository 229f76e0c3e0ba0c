"""Stored configurations of older versions mean today what they meant."""

from pathlib import Path

import pytest

from fedlit.config import load_config
from fedlit.config.record import differences, load_yaml, read_stored, to_yaml
from fedlit.config.schema import RunConfig


def older(config: RunConfig) -> str:
    """Return the configuration as it was stored before `data.text` could name plain text."""
    kept = [line for line in to_yaml(config).splitlines() if line.strip() not in ("text: null", "messages: null")]
    text = "\n".join(kept).replace("data:\n", "data:\n  text: [text]\n", 1)
    assert "messages" not in text
    return text


@pytest.mark.parametrize("read", [load_yaml, read_stored])
def test_a_run_of_an_older_version_goes_on(read: object) -> None:
    config = RunConfig()
    stored = read(older(config), "config.yaml")  # type: ignore[operator]
    assert stored.data.text is None
    assert differences(stored, config) == []


@pytest.mark.parametrize("task", ["image_classification", "sequence_classification"])
def test_runs_of_other_tasks_go_on_too(task: str) -> None:
    config = RunConfig()
    config.data.task = task
    assert differences(load_yaml(older(config)), config) == []


def test_a_whole_configuration_of_an_older_version_is_run_as_it_was(tmp_path: Path) -> None:
    config = load_config(["data=pydoc", "model=tiny", "run.result=best", "eval.choose_on=test"])
    lines = [line for line in older(config).splitlines() if "choose_on" not in line]
    (tmp_path / "config.yaml").write_text("\n".join(lines), encoding="utf-8")
    assert load_config([str(tmp_path / "config.yaml")]).eval.choose_on == "test"


def test_the_columns_of_a_classification_stay() -> None:
    config = RunConfig()
    config.data.task = "sequence_classification"
    assert load_yaml(older(config)).data.text == ["text"]


def test_one_required_column_named_or_not_is_the_same_run() -> None:
    named, silent = RunConfig(), RunConfig()
    named.data.required = ["prompt"]
    assert differences(named, silent) == []
    named.data.required = []
    assert differences(named, silent) != []
