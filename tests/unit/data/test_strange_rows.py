"""What JSON allows and a run cannot use is told as it is read: file, line and column."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlit.config.schema import DataConfig, PartitionConfig
from fedlit.data.sources import load_rows, load_test_rows
from fedlit.errors import UserError
from fedlit.partition.files import read_partition_file
from fedlit.partition.shards import make_shards

GOOD = [{"prompt": f"p{i}", "response": f"r{i}", "label": "ab"[i % 2]} for i in range(40)]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
DEEP = 100_000


def write(path: Path, *lines: str) -> str:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def line_of(**changes: Any) -> str:
    return json.dumps({**GOOD[0], **changes})


def told(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) <= 393
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("column", ["prompt", "response", "label", "kind"])
def test_half_of_a_surrogate_pair(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "rows.jsonl", line_of(kind="k"), line_of(**{"kind": "k", column: "cut \ud83d"}))
    with pytest.raises(UserError) as error:
        load_rows(DataConfig(path=path, score_by="kind"), 0)
    told(error, f"rows.jsonl, line 2: column '{column}' holds half of a surrogate pair", r"\ud83d", "character 5 of 5")


def test_half_of_a_surrogate_pair_in_texts_with_classes_and_in_a_test_set(tmp_path: Path) -> None:
    good = json.dumps({"text": "t", "label": "a"})
    path = write(tmp_path / "rows.jsonl", good, json.dumps({"text": "t", "label": "\udc80"}))
    with pytest.raises(UserError) as error:
        load_rows(DataConfig(task="sequence_classification", path=path), 0)
    told(error, "rows.jsonl, line 2: column 'label' holds half", r"\udc80")
    with pytest.raises(UserError) as error:
        load_test_rows(DataConfig(path=write(tmp_path / "a.jsonl", line_of()), test_path=path, response="text"))
    test = write(tmp_path / "test.jsonl", line_of(), line_of(response="\ud83d"))
    with pytest.raises(UserError) as error:
        load_test_rows(DataConfig(path=write(tmp_path / "a.jsonl", line_of()), test_path=test))
    told(error, "test.jsonl, line 2: column 'response' holds half")


def test_a_whole_pair_and_a_column_that_nobody_reads_are_fine(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", line_of(prompt="\U0001f600"), line_of(note="cut \ud83d"))
    assert [row["prompt"] for row in load_rows(DataConfig(path=path), 0)] == ["\U0001f600", "p0"]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('{"prompt": "p", "response": "r", "label": "a", "label": "b"}', "the name 'label' stands twice"),
        ('{"prompt": "p", "response": "r", "label": "a", "x": {"k": 1, "k": 2}}', "the name 'k' stands twice"),
        ("[" * DEEP + "]" * DEEP, "more than 100 deep"),
        ('{"a":' * DEEP + "1" + "}" * DEEP, "more than 100 deep"),
        ('{"prompt": "p", "response": "r", "label": ' + "[" * 200 + "]" * 200 + "}", "more than 100 deep"),
        ('{"prompt": "p", "response": "r", "label": "a", "n": ' + "9" * 5000 + "}", "more than 4,300 digits"),
        ('{"prompt": "p", "response": "r", "label": "a", "n": ' + "9" * 4000, "not JSON"),
        ('{"prompt": "p", "response": ' + "9" * 4000 + ', "label": "a"}', "not a string"),
        ('"text"', "str, not an object"),
        ("true", "bool, not an object"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_row_of_another_kind(tmp_path: Path, line: str, part: str) -> None:
    path = write(tmp_path / "rows.jsonl", line_of(), line)
    with pytest.raises(UserError) as error:
        load_rows(DataConfig(path=path), 0)
    told(error, "rows.jsonl, line 2: ", part)


def test_a_hundred_levels_are_no_trouble(tmp_path: Path) -> None:
    deep = json.loads("[" * 99 + "]" * 99)
    assert load_rows(DataConfig(path=write(tmp_path / "rows.jsonl", line_of(x=deep))), 0)[0]["x"] == deep


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_pointer_of_git_lfs_in_place_of_rows(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, POINTER)
    with pytest.raises(UserError) as error:
        load_rows(DataConfig(path=path), 0)
    told(error, f"{name}: a pointer of Git LFS", "run git lfs pull")
    with pytest.raises(UserError) as error:
        load_test_rows(DataConfig(path=write(tmp_path / "a.jsonl", line_of()), test_path=path))
    told(error, "data.test_path=", "run git lfs pull")


def test_a_pointer_of_git_lfs_in_place_of_images(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    write(tmp_path / "set" / "a" / "1.png", POINTER)
    for path in (str(tmp_path / "set"), write(tmp_path / "set.npz", POINTER)):
        with pytest.raises(UserError) as error:
            load_rows(DataConfig(task="image_classification", source="images", path=path), 0)
        told(error, "a pointer of Git LFS", "run git lfs pull")


def split_of(path: Path, content: str, num_clients: int = 2) -> Any:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, encoding="utf-8")
    return read_partition_file(DataConfig(), PartitionConfig(name="file", path=str(path)), num_clients, 10, "abc")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("[" * DEEP + "]" * DEEP, ["more than 100 deep"]),
        ('{"a":' * DEEP + "1" + "}" * DEEP, ["more than 100 deep"]),
        ("[[0], [" + "9" * 5000 + "]]", ["more than 4,300 digits"]),
        ("[[0], [" + "9" * 4000 + "]]", ["client 1: 999", "is not the number of a row"]),
        ('{"a": [0],\n "b": [1],\n "a": [2]}', ["split.json, line 3: the name 'a' stands twice"]),
        ('{"a": [0], "b": [1], "a": [2]}', ["split.json: the name 'a' stands twice"]),
        ('"a text"', ["no row numbers; write a list of lists"]),
        ("null", ["no row numbers; write a list of lists"]),
        ("[[[0]], [1]]", ["no row numbers"]),
        (
            '{"rows_sha256": "abc", "clients": [{"train": [[[0]]], "test": []}, {"train": [1], "test": []}]}',
            ["client 0"],
        ),
        ('{"rows_sha256": "abc", "clients": "two"}', ["its clients have no train and test rows"]),
        ('{"rows_sha256": ["x"], "num_rows": ' + "[" * 90 + "]" * 90 + "}", ["is of other rows"]),
        (POINTER, ["a pointer of Git LFS", "run git lfs pull"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_partition_file_of_another_kind(tmp_path: Path, content: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        split_of(tmp_path / "split.json", content)
    told(error, *parts)


def test_names_of_clients_may_have_numbers_of_any_length(tmp_path: Path) -> None:
    names = {f"c{'9' * 5000}": [3], "c10": [2], "c9": [1], "c007": [0]}
    found = split_of(tmp_path / "split.json.gz", json.dumps(names), num_clients=4)
    assert found.rows == [[0], [1], [2], [3]]


def test_rows_that_all_ask_the_same_are_told_to_bring_a_test_set() -> None:
    same = [row | {"prompt": "same"} for row in GOOD]
    texts = [{"text": "same", "label": row["label"]} for row in GOOD]
    images = [{"image": np.zeros((4, 4), np.uint8), "label": row["label"]} for row in GOOD]
    for rows, data, key in (
        (same, DataConfig(), "data.template"),
        (same, DataConfig(prompt="prompt"), "data.prompt"),
        (texts, DataConfig(task="sequence_classification"), "data.text"),
        (images, DataConfig(task="image_classification"), "data.image"),
    ):
        with pytest.raises(UserError) as error:
            make_shards(rows, data, PartitionConfig(name="iid"), 2, 0)
        told(error, f"all 40 rows have one prompt ({key})", "give a test set with data.test_path=")
        assert "fewer clients" not in str(error.value)
