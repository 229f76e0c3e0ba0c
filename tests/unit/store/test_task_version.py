"""A task version is the same whatever order it was made in, survives its file, and tells a run that changed it."""

import json
from pathlib import Path

import pytest

from fedlit.config import RunConfig, RunFolderConfig
from fedlit.store.environment import read_version
from fedlit.store.folder import RunFolder
from fedlit.store.task_version import TaskVersion, digest, shown

VERSION = TaskVersion(parts={"template": "a1", "tokenizer": "b1"}, rows={"global": "c1"})
OTHER = TaskVersion(parts={"template": "a1", "tokenizer": "b2"}, rows={"global": "c1"})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(RunConfig(num_rounds=2, run=RunFolderConfig(dir=str(tmp_path), name="mine")))


def test_a_version_is_a_hash_of_its_parts_by_name_and_not_of_its_rows() -> None:
    turned = TaskVersion(parts={"tokenizer": "b1", "template": "a1"}, rows={"global": "other"})
    assert turned.protocol == VERSION.protocol != OTHER.protocol
    assert turned.all_rows != VERSION.all_rows == OTHER.all_rows
    assert (len(VERSION.protocol), shown(VERSION.protocol)) == (64, VERSION.protocol[:8])
    swapped = TaskVersion(parts={"tokenizer": "a1", "template": "b1"}, rows={})
    assert swapped.protocol != VERSION.protocol


def test_a_digest_knows_values_from_one_another() -> None:
    values = [1, "1", None, "null", [1], {"a": 1}, {"a": None}, {}, [], "", True]
    assert len({digest(value) for value in values}) == len(values)


def test_what_environment_json_holds_is_the_version(folder: RunFolder) -> None:
    folder.prepare({}, "cpu", VERSION)
    assert read_version(folder.path) == VERSION
    assert json.loads((folder.path / "environment.json").read_text())["task_version"]["protocol"] == VERSION.protocol


@pytest.mark.parametrize("content", [None, [], "x", {}, {"parts": {"a": 1}, "rows": {}}, {"parts": {}}])
def test_what_is_no_version_is_unknown(content: object) -> None:
    assert TaskVersion.from_json(content) is None


def test_a_run_that_goes_on_with_its_version_changes_nothing(folder: RunFolder) -> None:
    folder.prepare({}, "cpu", VERSION)
    before = (folder.path / "environment.json").read_bytes()
    folder.prepare({}, "another device", VERSION)
    assert folder.version_notices(VERSION) == []
    assert (folder.path / "environment.json").read_bytes() == before


def test_a_run_that_goes_on_with_another_version_has_neither(folder: RunFolder) -> None:
    folder.prepare({}, "cpu", VERSION)
    folder.append({"round": 0})
    (notice,) = folder.version_notices(OTHER)
    assert "began with another task version (tokenizer)" in notice
    now = read_version(folder.path)
    assert now is not None
    assert now.parts == {"template": "a1", "tokenizer": "b1+b2"}
    assert now.rows == VERSION.rows
    assert folder.version_notices(OTHER) == folder.version_notices(VERSION) == []  # it is told once
    environment = json.loads((folder.path / "environment.json").read_text())
    assert environment["device"] == "cpu"


def test_a_run_that_is_done_keeps_the_version_of_its_scores(folder: RunFolder) -> None:
    folder.prepare({}, "cpu", VERSION)
    folder.append({"round": 2})
    assert folder.version_notices(OTHER) == []
    assert read_version(folder.path) == VERSION


def test_a_run_of_an_older_fedlit_stays_unknown(folder: RunFolder) -> None:
    folder.prepare({}, "cpu")
    folder.prepare({}, "cpu", VERSION)
    assert folder.version_notices(VERSION) == []
    assert read_version(folder.path) is None
