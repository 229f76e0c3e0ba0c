"""Folders of a user's own beside the shipped one."""

import os
from pathlib import Path

import pytest

from fedlit.config import load_config, load_sweep
from fedlit.config.places import VARIABLE, config_dir_words, list_choices, own_folders, take_config_dirs
from fedlit.config.sweep import load_sweeps
from fedlit.errors import UserError


@pytest.fixture
def mine(tmp_path: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of one's own, which is in the search path; the working folder is the one above."""
    assert config_dir.is_dir()
    for name, text in {
        "mine/data/pydoc.yaml": "name: my_docs\nsample: 5\n",
        "mine/data/own.yml": "label: topic\n",
        "mine/experiment/own.yaml": "data: own\nnum_rounds: 3\n",
        "mine/sweep/grid.yaml": "# mine\nexperiment: own\naxes: {seed: [0, 1]}\n",
        "other/data/own.yaml": "name: other\n",
        "other/data/third.yaml": "name: third\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "mine")
    return tmp_path / "mine"


def test_own_files_come_before_the_shipped_ones(mine: Path, config_dir: Path) -> None:
    assert list(list_choices(config_dir, "data")) == ["pydoc", "own", "questions"]
    assert load_config([], config_dir).data.name == "my_docs"
    config = load_config(["experiment=own"], config_dir)
    assert (config.data.name, config.data.label, config.num_rounds) == ("own", "topic", 3)
    assert load_config(["experiment=both"], config_dir).method.name == "nested"
    assert mine.is_dir()


def test_the_first_folder_wins(mine: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mine.is_dir()
    monkeypatch.setenv(VARIABLE, os.pathsep.join(["", "other", "mine", ""]))
    assert load_config(["data=own"], config_dir).data.name == "other"
    monkeypatch.setenv(VARIABLE, os.pathsep.join(["mine", "other"]))
    assert load_config(["data=own"], config_dir).data.name == "own"
    assert load_config(["data=third"], config_dir).data.name == "third"


def test_a_mistake_names_the_real_file(mine: Path, config_dir: Path) -> None:
    (mine / "data/pydoc.yaml").write_text("name: x\nsampel: 5\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"'data.sampel' \(mine/data/pydoc.yaml\); did you mean 'data.sample'"):
        load_config([], config_dir)
    with pytest.raises(UserError, match="pydoc, own, questions"):
        load_config(["data=onw"], config_dir)


def test_sweeps_are_found_by_name(mine: Path, config_dir: Path) -> None:
    sweep = load_sweep("grid", config_dir)
    assert (sweep.origin, len(sweep.cells())) == ("mine/sweep/grid.yaml", 2)
    assert load_sweep("mine/sweep/grid.yaml", config_dir) == sweep
    assert [each.comment for each in load_sweeps(config_dir)] == ["mine"]
    assert load_config(sweep.cells()[0].arguments, config_dir).num_rounds == 3
    assert mine.is_dir()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nowhere", ["=nowhere is not there (seen from", "like configs/"]),
        ("file", ["=file is a file"]),
        ("empty", ["=empty holds none of the folders data, model"]),
        ("mine/data", ["=mine/data holds none", "give the folder above it"]),
        ("~nobody_of_this_name/x", ["~nobody_of_this_name"]),
    ],
)
def test_a_folder_without_configurations_is_one_line(
    mine: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch, text: str, parts: list[str]
) -> None:
    Path("file").touch()
    Path("empty").mkdir()
    messages = []
    with pytest.raises(UserError) as caught:
        take_config_dirs(["--config-dir", text, "seed=1"], {})
    messages.append(str(caught.value))
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UserError) as caught:
        load_config([], config_dir)
    messages.append(str(caught.value))
    assert "--config-dir" in messages[0]
    assert VARIABLE in messages[1]
    assert [part for part in parts for message in messages if part not in message] == [], messages
    assert mine.is_dir()


def test_the_words_of_folders_are_taken_out_and_lie_in_front(mine: Path) -> None:
    environ = {VARIABLE: "/x"}
    words = ["--config-dir", "mine", "seed=1", "--config-dir=other", "--config-dir=mine", "x.yaml"]
    assert take_config_dirs(words, environ) == ["seed=1", "x.yaml"]
    here = str(mine.parent)
    assert environ[VARIABLE].split(os.pathsep) == [f"{here}/mine", f"{here}/other", "/x"]
    environ[VARIABLE] = environ[VARIABLE].removesuffix("/x")
    assert own_folders(environ) == [mine, mine.parent / "other"]
    again = config_dir_words(environ)
    assert again == [f"--config-dir={here}/mine", f"--config-dir={here}/other"]
    before = dict(environ)
    assert take_config_dirs(again, environ) == []
    assert own_folders(environ) == own_folders(before)


@pytest.mark.parametrize("words", [["--config-dir"], ["--config-dir="], ["x=1", "--config-dir", "a:b"]])
def test_a_word_without_a_folder_is_one_line(words: list[str]) -> None:
    with pytest.raises(UserError, match="--config-dir"):
        take_config_dirs(words, {})


def test_without_a_search_path_there_are_the_shipped_files(config_dir: Path) -> None:
    assert own_folders({}) == own_folders({VARIABLE: ""}) == own_folders({VARIABLE: os.pathsep}) == []
    assert config_dir_words({}) == []
    assert list(list_choices(config_dir, "data")) == ["pydoc", "questions"]
