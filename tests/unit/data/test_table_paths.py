"""Which files a path, a pattern, a folder or a list stands for, their order and their names as clients."""

import json
import zipfile
from pathlib import Path

import pytest

from fedlit.config.schema import DataConfig
from fedlit.data.paths import natural_order
from fedlit.data.sources import load_test_rows, read_data
from fedlit.data.table_paths import missing, table_files
from fedlit.errors import UserError


def make(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([{"prompt": name, "response": "r"}]))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def found(given: str | list[str], key: str = "data.path") -> list[tuple[str, str]]:
    return [(str(file), file.name) for file in table_files(given, key)]


def refused(given: str | list[str], key: str = "data.path") -> str:
    with pytest.raises(UserError) as caught:
        table_files(given, key)
    assert len(str(caught.value)) <= 400
    return str(caught.value)


def test_numbers_in_names_count_as_numbers() -> None:
    make(*(f"d/client_{i}.json" for i in range(12)))
    assert [name for _, name in found("d")] == [f"client_{i}" for i in range(12)]
    assert [name for _, name in found("d/client_1*.json")] == ["client_1", "client_10", "client_11"]
    assert sorted(["b10", "b9", "a"], key=natural_order) == ["a", "b9", "b10"]


def test_a_list_is_in_the_order_of_names_and_may_hold_patterns() -> None:
    make("x/b.json", "x/a.json", "y/c.json")
    assert found(["y/c.json", "x/*"]) == [("x/a.json", "a"), ("x/b.json", "b"), ("y/c.json", "c")]


def test_files_of_one_name_are_called_by_their_folders() -> None:
    make("boolq/train.json", "piqa/train.json", "more/piqa/train.json")
    assert found("*/train.json") == [("boolq/train.json", "boolq"), ("piqa/train.json", "piqa")]
    make("piqa/other.json")
    assert [name for _, name in found(["boolq/train.json", "piqa/*.json"])] == [
        "boolq/train",
        "piqa/other",
        "piqa/train",
    ]
    names = [name for _, name in found("**/train.json")]
    assert len(set(names)) == 3
    assert "more/piqa" in names


def test_endings_are_no_part_of_a_name() -> None:
    make("v1.2_north.json", "south.v2.json")
    Path("west.csv.gz").touch()
    assert [name for _, name in found(["v1.2_north.json", "south.v2.json", "west.csv.gz"])] == [
        "south.v2",
        "v1.2_north",
        "west",
    ]


def test_a_name_that_looks_like_a_pattern_or_a_part_is_a_name_first() -> None:
    make("r[o]ws.json", "a#b.json")
    assert found("r[o]ws.json") == [("r[o]ws.json", "r[o]ws")]
    assert found("a#b.json") == [("a#b.json", "a#b")]
    assert "no such file" in refused("none#b.json")


def test_a_file_is_named_once() -> None:
    make("d/a.json", "d/b.json")
    assert "names d/a.json twice" in refused(["d/a.json", "d/*.json"])
    assert "twice" in refused(["d/a.json", "d/../d/a.json"])


def test_a_pattern_without_files() -> None:
    make("d/e/a.json")
    assert "no file has such a name (seen from" in refused("d/*.csv")
    assert missing("d/*.csv") == "d/*.csv"
    assert missing(["d", "d/*", "d/**/*.json"]) is None
    assert missing(["d", "x" * 5000, "\0"]) == "x" * 5000
    assert "folders and no file; add /*.csv" in refused("d/**/e")


def test_folders_that_a_pattern_finds_stand_for_their_tables() -> None:
    make("sites/north/rows.json", "sites/south/rows.json")
    assert [name for _, name in found("sites/*")] == ["north", "south"]


@pytest.mark.parametrize(
    ("names", "proposal"),
    [
        (["train.json", "test.json"], "data.path=d/train.json data.test_path=d/test.json"),
        (["train-0.json", "train-1.json", "dev.json"], "data.path='d/train-*.json' data.validation_path=d/dev.json"),
        (["a.json", "b.json", "a_test.json"], "data.path='[d/a.json,d/b.json]' data.test_path=d/a_test.json"),
        (["my train.json", "test.json"], "data.path='d/my train.json' data.test_path=d/test.json"),
    ],
)
def test_files_of_several_sets_are_proposed_filled_in(names: list[str], proposal: str) -> None:
    make(*(f"d/{name}" for name in names))
    for key, given in (("data.path", "d"), ("data.test_path", "d/*.json")):
        line = refused(given, key)
        assert line.startswith(f"{key}={given}: ")
        assert f"of different sets by their names; give {proposal}, or a list" in line
    assert len(found([f"d/{name}" for name in names])) == len(names), "a list is taken at its word"


def test_what_a_name_says_counts_more_than_its_folder() -> None:
    make("test/a.json", "test/b.json", "dev/train.json", "dev/rows.json")
    assert [name for _, name in found("test")] == ["a", "b"]
    assert [name for _, name in found("dev")] == ["rows", "train"], "the folder is the same for both"
    make("set/train/part.json", "set/test/part.json")
    assert "data.path=set/train/part.json data.test_path=set/test/part.json" in refused("set/*/*.json")
    make("words/latest.json", "words/contest.json")
    assert len(found("words")) == 2


def test_rows_in_a_form_that_is_not_read_are_not_left_out_without_a_word() -> None:
    make("d/a.json", "d/README.md", "d/dataset_infos.json", "d/.hidden.json")
    assert found("d") == [("d/a.json", "a")] == found("d/*")
    Path("d/b.xlsx").touch()
    assert "d/b.xlsx: a spreadsheet" in refused("d")
    assert "d/b.xlsx: a spreadsheet" in refused("d/*")


def test_texts_and_empty_folders() -> None:
    Path("t").mkdir()
    assert "it is empty" in refused("t")
    Path("t/a.txt").touch()
    assert "of texts give 't/*.txt'" in refused("t")


def test_a_place_knows_its_client_and_a_column_file_is_made_where_one_is_asked_for() -> None:
    make("boolq/train.json", "piqa/train.json", "boolq/test.json", "piqa/test.json")
    config = DataConfig(path="*/train.json", test_path="*/test.json", label="file", score_by="file")
    read = read_data(config)
    assert read.files == ("boolq", "piqa")
    assert [row["file"] for row in read.rows] == ["boolq", "piqa"]
    assert [row["file"] for row in load_test_rows(config)] == ["boolq", "piqa"]
    assert "file" not in read_data(DataConfig(path="*/train.json", label=None)).rows[0]
    Path("own.json").write_text(json.dumps([{"prompt": "p", "response": "r", "file": "mine"}]))
    assert read_data(DataConfig(path="own.json", label="file")).rows[0]["file"] == "mine"


def test_targets_of_all_files_are_numbers_or_none_is() -> None:
    Path("a.csv").write_text("text,label\nx,1\ny,0\n")
    Path("b.csv").write_text("text,label\nx,unknown\n")
    config = DataConfig(task="sequence_classification", path=["a.csv", "b.csv"])
    assert [row["label"] for row in read_data(config).rows] == ["1", "0", "unknown"]


def test_an_archive_with_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile("rows.zip", "w") as archive:
        archive.writestr("rows.csv", "prompt,response\n")

    def locked(*_: object) -> None:
        raise RuntimeError("File 'rows.csv' is encrypted, password required for extraction")

    monkeypatch.setattr(zipfile.ZipFile, "open", locked)
    with pytest.raises(UserError, match=r"rows\.zip.*: a zip file with a password; unpack it"):
        read_data(DataConfig(path="rows.zip", label=None))
