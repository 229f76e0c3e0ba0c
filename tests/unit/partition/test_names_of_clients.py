"""A client carries the name of its file, of its values, or of another run's record; the rows stay where they were."""

import json
from pathlib import Path

import pytest

from fedlit.config.schema import DataConfig, PartitionConfig
from fedlit.data.prompts import Row
from fedlit.errors import UserError
from fedlit.partition.shards import Owned, Shard, make_shards, partition_record, shards_checksum

SITES = [*["GHR"] * 8, *["GARD"] * 6, *["NIH"] * 5, *["CDC"] * 4]
ROWS: list[Row] = [
    {"prompt": f"p{i}", "response": "r", "label": "ab"[i % 2], "site": site} for i, site in enumerate(SITES)
]
NATURAL = PartitionConfig(name="natural", column="site", min_test_rows=1)


def deal(partition: PartitionConfig, num_clients: int = 2, owned: Owned | None = None) -> list[Shard]:
    return make_shards(ROWS, DataConfig(), partition, num_clients, 0, owned=owned)


@pytest.mark.parametrize("with_test_parts", [True, False])
def test_values_of_the_natural_column(*, with_test_parts: bool) -> None:
    shards = make_shards(ROWS, DataConfig(), NATURAL, 2, 0, with_test_parts=with_test_parts)
    assert [(shard.name, shard.values) for shard in shards] == [
        ("GHR, CDC", ("GHR", "CDC")),
        ("GARD, NIH", ("GARD", "NIH")),
    ]
    four = make_shards(ROWS, DataConfig(), NATURAL, 4, 0, with_test_parts=with_test_parts)
    assert [shard.name for shard in four] == ["GHR", "GARD", "NIH", "CDC"]


def test_a_record_has_the_name_and_all_values() -> None:
    rows = [{**row, "site": f"a long name of site number {i // 2}"} for i, row in enumerate(ROWS[:20])]
    shards = make_shards(rows, DataConfig(), NATURAL, 2, 0)
    clients = json.loads(json.dumps(partition_record(rows, shards, DataConfig())))["clients"]
    assert clients[0]["name"].endswith(" +4")
    assert clients[0]["values"] == [f"a long name of site number {i}" for i in (0, 2, 4, 6, 8)]


def test_only_some_of_the_shards_take_part() -> None:
    partition = PartitionConfig(name="natural", column="site", min_test_rows=1, num_shards=4)
    assert [shard.name for shard in deal(partition)] == ["GHR", "GARD"]


def test_other_partitions_have_no_names_and_the_record_no_key() -> None:
    shards = deal(PartitionConfig(name="iid", min_test_rows=1))
    assert {shard.name for shard in shards} == {""}
    assert not {"name", "values"} & partition_record(ROWS, shards, DataConfig())["clients"][0].keys()


def test_a_runs_record_hands_its_names_on(tmp_path: Path) -> None:
    shards = deal(NATURAL)
    path = tmp_path / "partition.json"
    path.write_text(json.dumps(partition_record(ROWS, shards, DataConfig())))
    again = deal(PartitionConfig(name="file", path=str(path)))
    assert [shard.name for shard in again] == ["GHR, CDC", "GARD, NIH"]
    assert shards_checksum(again) == shards_checksum(shards)


def test_a_split_by_names_hands_them_on(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    rows = list(range(len(ROWS)))
    partition = PartitionConfig(name="file", path=str(path), min_test_rows=1)
    path.write_text(json.dumps({"south": rows[:9], "north": rows[9:]}))
    assert [shard.name for shard in deal(partition)] == ["north", "south"]
    for unnamed in ([rows[:9], rows[9:]], {"0": rows[:9], "1": rows[9:]}):
        path.write_text(json.dumps(unnamed))
        assert [shard.name for shard in deal(partition)] == ["", ""]


def test_an_error_about_a_client_has_its_name() -> None:
    rows = [{**row, "prompt": "the same" if i < 8 else f"p{i}"} for i, row in enumerate(ROWS)]
    with pytest.raises(UserError, match=r"client 0 \(GHR\): its 8 rows have too few prompts"):
        make_shards(rows, DataConfig(), NATURAL, 4, 0)
