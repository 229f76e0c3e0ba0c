import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from fedlit.config.schema import DataConfig, PartitionConfig
from fedlit.errors import UserError
from fedlit.partition.files import FilePartition, read_partition_file

RUN = {
    "data": "pydoc",
    "num_rows": 10,
    "rows_sha256": "abc",
    "clients": [{"client_id": 0, "train": [1, 5], "test": [3]}, {"client_id": 1, "train": [0], "test": []}],
}
NAMED = {"note": "of a paper", "classes": ["a", "b"], "one": {"a": [0, 1], "b": [2]}, "two": [[5], [4, 3], [9]]}


def read(
    folder: Path, content: Any, num_clients: int = 2, key: str | None = None, data: DataConfig | None = None
) -> FilePartition:
    path = folder / "split.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    partition = PartitionConfig(name="file", path=str(path), key=key)
    return read_partition_file(data or DataConfig(), partition, num_clients, 10, "abc")


@pytest.mark.parametrize(
    ("content", "key", "rows"),
    [
        ([[3, 1], [2]], None, [[1, 3], [2]]),
        ({"0": [3, 1], "1": [2]}, None, [[1, 3], [2]]),
        ({"client_10": [4], "client_9": [2]}, None, [[2], [4]]),
        ({"b": [4], "a": [2], "unassigned": [0, 1]}, None, [[2], [4]]),
        (NAMED, "one", [[0, 1], [2]]),
        (NAMED, "two", [[5], [3, 4], [9]]),
        ({"only": {"x": [1]}, "note": "n"}, None, [[1]]),
        ({"only": {"x": [1]}, "note": "n"}, "only", [[1]]),
    ],
)
def test_every_form_is_read(tmp_path: Path, content: Any, key: str | None, rows: list[list[int]]) -> None:
    assert read(tmp_path, content, len(rows), key) == FilePartition(rows=rows, test=None)


def test_a_gzipped_file(tmp_path: Path) -> None:
    path = tmp_path / "split.json.gz"
    path.write_bytes(gzip.compress(b"[[0], [1]]"))
    partition = PartitionConfig(name="file", path=str(path))
    assert read_partition_file(DataConfig(), partition, 2, 10, "").rows == [[0], [1]]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="broken gzip file"):
        read_partition_file(DataConfig(), partition, 2, 10, "")
    path.write_bytes(b"[[0], [1]]")
    with pytest.raises(UserError, match="broken gzip file"):
        read_partition_file(DataConfig(), partition, 2, 10, "")


def test_a_runs_own_file_keeps_its_test_parts(tmp_path: Path) -> None:
    found = read(tmp_path, RUN, data=DataConfig(sample=10, drop_empty=True))
    assert found == FilePartition(rows=[[1, 3, 5], [0]], test=[[3], []], validation=[[], []])


MISTAKES: list[tuple[Any, int, str | None, str]] = [
    ([[0], [10]], 2, None, "client 1: 10 is not the number of a row; .* rows 0 to 9"),
    ([[0], [-1]], 2, None, "client 1: -1 is not the number of a row"),
    ([[0], [True]], 2, None, "client 1: True is not the number of a row"),
    ([[0], ["1"]], 2, None, "client 1: '1' is not the number of a row"),
    ([[0], [1.0]], 2, None, "client 1: 1.0 is not the number of a row"),
    ([[0], [1, 0]], 2, None, "row 0 belongs to client 0 and client 1"),
    ([[0], [1, 1]], 2, None, "row 1 belongs to client 1 twice"),
    ([[0], []], 2, None, "client 1: no row numbers; every client needs some"),
    ([[0], [1]], 3, None, r"num_clients=3: .* has 2 clients \(client 0, client 1\); set num_clients=2"),
    ([[i] for i in range(9)], 2, None, r"has 9 clients \(client 0, client 1, client 2, client 3, \.\.\.\)"),
    ([[0], [1]], 2, "one", "partition.key=one: .* holds one split without a name"),
    (NAMED, 2, None, "several splits; choose partition.key=one or two"),
    (NAMED, 2, "three", "partition.key=three: not in .*; valid values: one, two"),
    (NAMED, 2, "note", "partition.key=note: not in .*; valid values: one, two"),
    (RUN, 2, "train", "partition.key=train: .* is a run's partition.json"),
    (RUN, 3, None, "num_clients=3: .* has 2 clients"),
    (RUN | {"rows_sha256": "x"}, 2, None, r"is of other rows \(10 of data.name=pydoc\) than this run's 10"),
    (RUN | {"clients": [1, 2]}, 2, None, "its clients have no train and test rows"),
    (RUN | {"clients": [{"train": [0], "test": [0]}]}, 1, None, "row 0 belongs to client 0 twice"),
    (RUN | {"clients": [{"train": [], "test": [0]}]}, 1, None, "client 0: no row numbers"),
    (RUN | {"clients": [{"train": [0], "test": [11]}]}, 1, None, "client 0: 11 is not the number of a row"),
    ([0, 1], 2, None, "no row numbers; write a list of lists, or an object"),
    ({"note": "nothing"}, 2, None, "no row numbers; write a list of lists, or an object"),
    ({}, 2, None, "no row numbers"),
    ([], 2, None, "no row numbers"),
    (7, 2, None, "no row numbers"),
    ("{'a': [1]}", 2, None, "not JSON"),
]


@pytest.mark.parametrize(("content", "num_clients", "key", "match"), MISTAKES)
def test_mistakes(tmp_path: Path, content: Any, num_clients: int, key: str | None, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        read(tmp_path, content, num_clients, key)
    assert "\n" not in str(caught.value)


def test_mistakes_in_the_path(tmp_path: Path) -> None:
    def fails(match: str, path: str | None) -> None:
        with pytest.raises(UserError, match=match):
            read_partition_file(DataConfig(), PartitionConfig(name="file", path=path), 2, 10, "")

    fails("partition.name=file without a file; give partition.path=", None)
    fails("no such file; check the path", str(tmp_path / "none.json"))
    fails("Is a directory; check the path", str(tmp_path))
    (tmp_path / "latin.json").write_bytes(b'{"\xe9": [1]}')
    fails("not UTF-8 .*save the file as UTF-8", str(tmp_path / "latin.json"))


@pytest.mark.parametrize(
    ("data", "option"), [(DataConfig(sample=5), "data.sample"), (DataConfig(drop_empty=True), "data.drop_empty=true")]
)
def test_row_numbers_are_of_all_rows(tmp_path: Path, data: DataConfig, option: str) -> None:
    with pytest.raises(UserError, match=f"its row numbers are of all rows and {option} leaves some out"):
        read(tmp_path, [[0], [1]], data=data)
