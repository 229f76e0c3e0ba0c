"""Rows that are given from Python: held to what a file is held to, dealt and recorded alike."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_runs import ROWS, SMALL, same_tensors, small_run, timeless

import fedlit
from fedlit.commands.endings import run_federation
from fedlit.config import load_config
from fedlit.config.keys import as_argument
from fedlit.data.own_rows import own_rows
from fedlit.inputs import gather_inputs
from fedlit.settings import values_of

PARTS = [ROWS[:9], ROWS[9:]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> fedlit.Result:
    return small_run(tmp_path_factory.mktemp("runs"))


def partition(result: fedlit.Result) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((result.folder / "partition.json").read_text())
    return content


def test_they_give_the_bits_of_a_file(tmp_path: Path, plain: fedlit.Result) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = {"data": "jsonl", "data.path": file, "data.label": None}
    of_file = fedlit.run({**SMALL, **words}, run={"dir": tmp_path})
    assert same_tensors(plain, of_file)
    assert timeless(plain) == timeless(of_file)
    assert partition(plain)["rows_sha256"] == partition(of_file)["rows_sha256"]
    assert partition(plain)["shards_sha256"] == partition(of_file)["shards_sha256"]
    assert (plain.config.data.source, plain.config.data.name) == ("memory", "memory")
    assert "source: memory" in (plain.folder / "config.yaml").read_text()


def test_a_dataset_is_as_a_list(tmp_path: Path, plain: fedlit.Result) -> None:
    datasets = pytest.importorskip("datasets")
    assert same_tensors(small_run(tmp_path, rows=datasets.Dataset.from_list(ROWS)), plain)


def test_the_callers_rows_stay_as_they_are(tmp_path: Path) -> None:
    rows = [{**row, "note": None, "extra": {"a": [1]}} for row in ROWS]
    before = copy.deepcopy(rows)
    small_run(tmp_path, rows=rows, num_rounds=1)
    assert rows == before


@pytest.mark.parametrize("named", [False, True])
def test_rows_of_each_client_are_its_own(tmp_path: Path, named: bool) -> None:
    given = dict(zip(("north", "south"), PARTS, strict=True)) if named else PARTS
    result = small_run(tmp_path, rows=given, num_rounds=1, config={"num_clients": 2})
    clients = partition(result)["clients"]
    assert [sorted(client["train"] + client["test"]) for client in clients] == [list(range(9)), list(range(9, 24))]
    assert [client.get("name") for client in clients] == (["north", "south"] if named else ["0", "1"])
    assert all(client["num_test"] == 2 for client in clients)
    assert (result.config.partition.name, result.config.num_clients) == ("given", 2)


def test_test_rows_of_nobody_and_of_each(tmp_path: Path) -> None:
    tests = [{"prompt": f"{number} + 2 =", "response": "x"} for number in range(4)]
    one = small_run(tmp_path, "one", rows=PARTS, test_rows=tests, num_rounds=1)
    assert [client["num_test"] for client in partition(one)["clients"]] == [0, 0]
    assert partition(one)["test_rows_sha256"] is not None
    each = small_run(tmp_path, "each", rows=PARTS, test_rows=[tests[:1], tests[1:]], num_rounds=1, eval={"on": "both"})
    assert [client["test"] for client in partition(each)["clients"]] == [[24], [25, 26, 27]]
    assert [client["num_train"] for client in partition(each)["clients"]] == [9, 15]
    assert {"global/loss", "client/0/own/loss"} <= each.records[-1].keys() or "own/loss" in each.records[-1]


def test_a_resumed_run_notices_other_rows(tmp_path: Path) -> None:
    tests = [{"prompt": "what?", "response": "x"}]
    small_run(tmp_path, num_rounds=1)
    for other in ({"rows": ROWS[1:]}, {"rows": ROWS[::-1]}, {"test_rows": tests}):
        with pytest.raises(fedlit.UserError, match=r"began with other (test )?rows than data\.name=memory gives today"):
            small_run(tmp_path, num_rounds=1, **other)
    small_run(tmp_path, "tests", num_rounds=1, test_rows=tests, eval={"on": "both"})
    with pytest.raises(fedlit.UserError, match=r"began with other test rows"):
        small_run(tmp_path, "tests", num_rounds=1, eval={"on": "both"})


def test_the_command_line_cannot_run_them_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], plain: fedlit.Result
) -> None:
    values = values_of(plain.config, {"run": {"dir": str(tmp_path), "name": "again"}})
    words = [f"{key}={as_argument(value)}" for key, value in values.items()]
    code = run_federation(words)
    line = capsys.readouterr().err
    assert code == 2
    assert line.startswith("error: data.source=memory: the rows were given from Python")
    assert line.count("\n") == 1


def inputs(rows: Any, test_rows: Any = None, *words: str) -> Any:
    """Gather inputs without training."""
    given = {word.split("=")[0] for word in words}
    plain = ["data=jsonl", "data.label=null", "data.source=memory", "partition.min_test_rows=2"]
    config = load_config([*(word for word in plain if word.split("=")[0] not in given), *words])
    tests = None if test_rows is None else own_rows(test_rows, "test_rows")
    return gather_inputs(config, own_rows(rows, "rows"), tests)


EACH = ("partition.name=given", "num_clients=2")
BAD = {"prompt": "a"}


@pytest.mark.parametrize(
    ("rows", "test_rows", "words", "message"),
    [
        ([], None, (), r"rows: no rows; give some"),
        ({}, None, (), r"rows: no clients"),
        (3, None, (), r"rows is of type int; give a list of mappings"),
        ("rows.jsonl", None, (), r"rows is of type str"),
        ([3], None, (), r"rows, row 0: int, not an object"),
        ([*ROWS, BAD], None, (), r"rows, row 24: no column 'response'"),
        ([*ROWS, {"prompt": "a", "response": 3}], None, (), r"rows, row 24: column 'response'.*holds 3, not a string"),
        ([*ROWS, {"prompt": "a", "response": ""}], None, (), r"rows, row 24: column 'response'.*is empty"),
        ([{**ROWS[0], 3: 4}], None, (), r"rows, row 0: the name 3 of a column is a int"),
        ([{**ROWS[0], "x": {1: 2, "a": 3}}], None, (), r"rows, row 0: column 'x' is nothing for JSON"),
        ([ROWS, [BAD]], None, EACH, r"rows of client 1, row 0: no column 'response'"),
        ({"a": ROWS, "b": []}, None, EACH, r"rows of client b: no rows"),
        ({1: ROWS, "1": ROWS}, None, EACH, r"two clients have one name as text"),
        (PARTS, None, (), r"rows= are for each client, and nothing is dealt"),
        (PARTS, None, (*EACH, "data.sample=3"), r"rows= are for each client, and nothing is dealt or drawn"),
        (PARTS, None, ("partition.name=given", "num_clients=3"), r"num_clients=3, and rows= has 2 clients"),
        (ROWS, None, EACH, r"partition\.name=given, and rows= is one list"),
        (ROWS, PARTS, (), r"test_rows= is for each client, and rows= is one list"),
        (PARTS, [*PARTS, ROWS], EACH, r"test_rows= has 3 clients and rows= has 2"),
        (PARTS, {"a": ROWS, "b": ROWS}, EACH, r"test_rows= has 2 clients.*other names"),
        (ROWS, ROWS[:3], (), r"test_rows=: all of its 3 rows are training rows too; give others, or test_rows=None"),
        (PARTS, [ROWS[:1], ROWS[1:2]], EACH, r"test_rows=: all of its 2 rows are training rows too"),
        (ROWS, [BAD], (), r"test_rows, row 0: no column 'response'"),
        (ROWS, None, ("data.test_columns=[a=b]",), r"data\.test_columns renames the columns of a file"),
        (
            ROWS,
            None,
            ("partition.min_test_rows=0", "partition.test_fraction=0"),
            r"leave no row to test on.*or test_rows=",
        ),
    ],
)
def test_a_mistake_is_one_line(rows: Any, test_rows: Any, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(fedlit.UserError, match=message) as caught:
        inputs(rows, test_rows, *words)
    assert "\n" not in str(caught.value)


def test_a_frame_and_a_set_of_splits_are_told(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(fedlit.UserError, match=r"rows is a DataFrame; give its rows, as frame\.to_dict"):
        own_rows(pandas.DataFrame(ROWS), "rows")
    datasets = pytest.importorskip("datasets")
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})
    with pytest.raises(fedlit.UserError, match=r"rows is a DatasetDict of splits \(train\)"):
        own_rows(splits, "rows")


def test_labels_and_numbers_of_numpy() -> None:
    rows = [{**row, "label": np.int64(number % 2)} for number, row in enumerate(ROWS)]
    found = inputs(rows, None, "data.label=label", "num_clients=2")
    assert found.labels.values[:3] == ("0", "1", "0")
