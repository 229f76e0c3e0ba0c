"""Rows, classes and the test set of a run together: training rows say what the classes are."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fedlit.config import RunConfig, load_config, to_yaml
from fedlit.errors import UserError
from fedlit.inputs import Inputs, gather_inputs
from fedlit.planning import make_plan
from fedlit.sizing import describe_sizes

TRAIN = [{"text": f"text {i}", "label": i % 3} for i in range(60)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def configured(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]], *more: str) -> RunConfig:
    paths = [
        f"data.path={write(folder / 'train.jsonl', train)}",
        f"data.test_path={write(folder / 'test.jsonl', test)}",
    ]
    return load_config(["data=texts", "model=tiny", "method=fedit", "num_clients=3", *paths, *more])


def gathered(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]], *more: str) -> Inputs:
    return gather_inputs(configured(folder, train, test, f"run.dir={folder / 'runs'}", *more))


def fails(folder: Path, test: list[dict[str, Any]], *parts: str, more: tuple[str, ...] = ()) -> None:
    with pytest.raises(UserError) as error:
        gathered(folder, TRAIN, test, *more)
    message = str(error.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


def test_a_test_set_without_labels_makes_no_class(tmp_path: Path) -> None:
    unlabelled = [{"text": f"other {i}", "label": -1} for i in range(20)]
    fails(tmp_path, unlabelled, "test.jsonl, line 1: ", "holds -1 here and in all 20 test rows", "an unlabelled split?")
    given = ("data.classes=[a,b,c]",)
    fails(tmp_path, unlabelled, "test.jsonl, line 1: ", "holds -1", "an unlabelled split?", more=given)
    mixed = [{"text": f"other {i}", "label": min(i, 3)} for i in range(20)]
    fails(tmp_path, mixed, "test.jsonl, line 4: ", "holds 3", "the classes are 0, 1, 2", "data.classes=[...]")


def test_numbers_that_are_all_one_are_no_test_set(tmp_path: Path) -> None:
    hidden = [{"text": f"other {i}", "label": -1.0} for i in range(20)]
    more = ("data.regression=true", "partition.name=iid", "eval.score=pearson", "data.scores=[pearson]")
    fails(tmp_path, hidden, "test.jsonl, line 1: ", "holds -1.0 here and in all 20 test rows", "unlabelled", more=more)


def test_classes_are_those_of_the_training_rows(tmp_path: Path) -> None:
    test = [{"text": f"other {i}", "label": i % 2} for i in range(20)]
    assert gathered(tmp_path, TRAIN, test).classes == ("0", "1", "2")
    assert gathered(tmp_path, TRAIN, test).notices == ()


def test_classes_that_the_test_set_writes_otherwise_are_told(tmp_path: Path) -> None:
    test = [{"text": f"other {i}", "label": str(i % 2)} for i in range(20)]
    (notice,) = gathered(tmp_path, TRAIN, test).notices
    assert notice.endswith("holds 0 in training rows and '0' in the test set, where '0' is taken for the class 0")
    named = [row | {"label": "abc"[row["label"]]} for row in TRAIN]
    (notice,) = gathered(tmp_path, named, [{"text": "other", "label": 1}]).notices
    assert notice.endswith("holds 'a' in training rows and 1 in the test set, where 1 is taken for the class b")


def test_a_sample_has_the_classes_of_all_rows(tmp_path: Path) -> None:
    rare = [*TRAIN, {"text": "rare", "label": 3}]
    test = [{"text": "other", "label": 3}]
    found = gathered(tmp_path, rare, test, "data.sample=30", "partition.name=iid")
    assert len(found.rows) == 30
    assert found.classes == ("0", "1", "2", "3")


def test_the_training_file_is_no_test_set(tmp_path: Path) -> None:
    fails(tmp_path, TRAIN, "data.test_path=", "all of its 60 rows are training rows too", "data.test_path=null")
    fails(tmp_path, TRAIN[:7], "all of its 7 rows are training rows too")
    path = write(tmp_path / "train.jsonl", TRAIN)
    with pytest.raises(UserError, match=r"data\.test_path=.*train\.jsonl: the rows that are trained on"):
        gather_inputs(load_config(["data=texts", "model=tiny", f"data.path={path}", f"data.test_path={path}"]))


def test_test_rows_that_are_trained_on_are_told(tmp_path: Path) -> None:
    test = [*TRAIN[:3], *({"text": f"other {i}", "label": 1} for i in range(5))]
    (notice,) = gathered(tmp_path, TRAIN, test).notices
    assert notice == f"data.test_path={tmp_path / 'test.jsonl'}: 3 of its 8 rows are training rows too"
    assert gathered(tmp_path, TRAIN, test[3:]).notices == ()


def test_labels_that_look_alike_or_are_of_two_kinds_are_told(tmp_path: Path) -> None:
    test = [{"text": "other", "label": 1}]
    for odd, told in (("a ", "holds 'a' and 'a ', which are taken for different labels"), (1, None)):
        train = [row | {"topic": "a"} for row in TRAIN] + [{"text": "x", "label": 1, "topic": odd}]
        notices = gathered(tmp_path, train, test, "data.label=topic").notices
        assert notices == (() if told is None else (f"column 'topic' (data.label) {told}",))
    train = [row | {"topic": row["label"]} for row in TRAIN] + [{"text": "x", "label": 1, "topic": "1"}]
    (notice,) = gathered(tmp_path, train, test, "data.label=topic").notices
    assert notice == "column 'topic' (data.label) holds 1 and '1', which are taken for one label"


@pytest.mark.parametrize(
    "content", ['"text"', "{", "[]", "[" * 100_000, '{"clients": "x"}', '{"clients": [1]}', "\udcff"]
)
def test_a_damaged_record_of_the_partition_is_told(tmp_path: Path, content: str) -> None:
    test = [{"text": "other", "label": 1}]
    config = configured(tmp_path, TRAIN, test, f"run.dir={tmp_path / 'runs'}", "run.name=mine")
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    (folder / "partition.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    (notice,) = gather_inputs(config).notices
    assert notice.startswith(f"{folder / 'partition.json'} is damaged; it is written anew")


def test_files_that_are_dealt_together_are_told(tmp_path: Path) -> None:
    for name in ("north", "south"):
        rows = [{"prompt": f"{name} {i}", "response": "yes", "label": "ab"[i % 2]} for i in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["data=table", "model=tiny", "num_clients=2", f"data.path={tmp_path}", "partition.min_test_rows=2"]
    together = gather_inputs(load_config([*words, f"run.dir={tmp_path / 'runs'}"]))
    assert "the rows of 2 files (north, south) are dealt together by partition.name=iid" in together.notices[0]
    apart = gather_inputs(load_config([*words, "partition.name=files", f"run.dir={tmp_path / 'runs'}"]))
    assert (apart.notices, apart.client_names) == ((), ("north", "south"))


def test_a_name_that_is_no_utf_8_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"prompt": f"q {i}", "response": "yes"}) + "\n" for i in range(20))
    for name in (b"north.jsonl", b"s\xfcd.jsonl"):
        (tmp_path / os.fsdecode(name)).write_text(rows.replace("q", name.decode("latin-1")), encoding="utf-8")
    words = ["data=table", "model=tiny", "num_clients=2", "partition.name=files", f"data.path={tmp_path}"]
    with pytest.raises(UserError, match=r"^the name of client 1, 's\\udcfcd', is no UTF-8; rename its file"):
        gather_inputs(load_config([*words, f"run.dir={tmp_path / 'runs'}"]))


def test_a_dry_run_has_the_names_of_the_clients(tmp_path: Path) -> None:
    for name in ("north", "south"):
        rows = [{"prompt": f"{name} {i}", "response": "yes"} for i in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["data=table", "model=tiny", "num_clients=2", "partition.name=files", f"data.path={tmp_path}"]
    inputs = gather_inputs(load_config([*words, f"run.dir={tmp_path / 'runs'}"]))
    assert "  of each    north 32, south 32" in describe_sizes(make_plan(inputs), 1)
