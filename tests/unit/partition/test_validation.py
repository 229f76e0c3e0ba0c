"""The validation part of every client: a prompt is in one part of the three, over all clients; test parts stay."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlit.config import DataConfig, PartitionConfig
from fedlit.errors import UserError
from fedlit.partition.shards import Owned, Shard, make_shards, partition_record, rows_checksum, shards_checksum
from fedlit.partition.splitting import draw_validation_prompts
from fedlit.partition.validation import split_off_validation

DATA = DataConfig(label="kind")


def rows_of(num_rows: int, num_prompts: int, seed: int) -> list[dict[str, Any]]:
    """Return rows of which many share a prompt."""
    rng = np.random.default_rng(seed)
    return [
        {"prompt": f"question {rng.integers(num_prompts)}", "response": f"answer {i}", "kind": f"{rng.integers(3)}"}
        for i in range(num_rows)
    ]


def with_validation(
    rows: Sequence[dict[str, Any]], partition: PartitionConfig, num_clients: int, seed: int, owned: Owned | None = None
) -> tuple[list[Shard], list[Shard]]:
    """Return the shards without and with validation parts."""
    plain = make_shards(rows, DATA, partition, num_clients, seed, owned=owned)
    return plain, split_off_validation(plain, rows, DATA, partition, seed)


@pytest.mark.parametrize("name", ["iid", "dirichlet", "natural", "files"])
@pytest.mark.parametrize("num_prompts", [60, 200, 100_000])
def test_a_prompt_is_in_one_part_and_test_parts_stay(name: str, num_prompts: int) -> None:
    refused = 0
    for seed in range(12):
        rows = rows_of(240 + 7 * seed, num_prompts, seed)
        share = (0.01, 0.1, 0.25)[seed % 3]
        partition = PartitionConfig(name=name, alpha=0.5, min_test_rows=4, validation_fraction=share)
        owned = Owned(files=[f"file {i % 3}" for i in range(len(rows))]) if name == "files" else None
        try:
            plain, shards = with_validation(rows, partition, 3, seed, owned)
        except UserError as error:
            assert "client" in str(error)
            assert "\n" not in str(error)
            refused += 1
            continue
        assert [shard.test for shard in shards] == [shard.test for shard in plain]
        assert [shard.name for shard in shards] == [shard.name for shard in plain]
        for before, after in zip(plain, shards, strict=True):
            assert sorted(after.train + after.validation) == list(before.train)
            assert after.train
            asked = max(-(-int(share * 100) * (len(before.train) + len(before.test)) // 100), 1)
            assert len(after.validation) >= (asked if num_prompts > 1000 else 1)
        parts = {
            part: {rows[i]["prompt"] for shard in shards for i in getattr(shard, part)}
            for part in ("train", "validation", "test")
        }
        assert not parts["train"] & parts["validation"]
        assert not parts["train"] & parts["test"]
        assert not parts["validation"] & parts["test"]
        assert shards == with_validation(rows, partition, 3, seed, owned)[1]
    assert refused < 6


def test_parts_have_the_size_that_is_asked_for() -> None:
    rows = rows_of(300, 10**9, 0)
    for share, num in ((0.01, 1), (0.07, 7), (0.1, 10), (0.255, 26)):
        partition = PartitionConfig(name="iid", min_test_rows=5, validation_fraction=share)
        _, shards = with_validation(rows, partition, 3, 0)
        assert [len(shard.validation) for shard in shards] == [num] * 3


def test_each_client_draws_from_a_stream_of_its_own() -> None:
    """Other rows of one client move no validation row of another."""
    rows = rows_of(200, 10**9, 1)
    partition = PartitionConfig(name="natural", min_test_rows=2, validation_fraction=0.2)
    for row, number in zip(rows, range(200), strict=True):
        row["kind"] = str(number % 2)
    _, shards = with_validation(rows, partition, 2, 3)
    changed = [{**row, "prompt": row["prompt"] + "!"} if row["kind"] == "1" else row for row in rows]
    assert with_validation(changed, partition, 2, 3)[1][0] == shards[0]
    assert with_validation(rows, partition, 2, 4)[1][0].validation != shards[0].validation


def test_too_few_rows_and_too_few_prompts_are_one_line() -> None:
    partition = PartitionConfig(name="iid", min_test_rows=4, validation_fraction=0.5)
    rows = rows_of(10, 10**9, 0)
    with pytest.raises(UserError, match=r"client 0 has 1 rows beside its test part and 3 are asked for its validation"):
        with_validation(rows, partition, 2, 0)
    alike = [{**row, "prompt": "the same"} if i >= 4 else row for i, row in enumerate(rows_of(20, 10**9, 0))]
    shards = [Shard(client_id=0, train=tuple(range(4, 20)), test=(0, 1, 2, 3))]
    with pytest.raises(UserError, match=r"client 0: its 16 rows that are not tested have too few prompts"):
        split_off_validation(shards, alike, DATA, partition, 0)


def test_a_prompt_that_is_the_last_of_a_client_is_left_for_training() -> None:
    prompts = ["a", "b", "a", "c"]
    partition = PartitionConfig(validation_fraction=0.3)
    assert draw_validation_prompts([[0, 1], [2, 3]], prompts, [2, 2], partition, 0) <= {"a", "b", "c"}
    for seed in range(20):
        drawn = draw_validation_prompts([[0, 1], [2, 3]], prompts, [2, 2], partition, seed)
        assert all({prompts[i] for i in part} - drawn for part in ([0, 1], [2, 3]))


def test_the_record_has_validation_where_there_is_any_and_else_is_as_it_was() -> None:
    rows = rows_of(90, 10**9, 0)
    partition = PartitionConfig(name="iid", min_test_rows=4, validation_fraction=0.1)
    plain, shards = with_validation(rows, partition, 3, 0)
    before, after = (partition_record(rows, found, DATA) for found in (plain, shards))
    keys = ["client_id", "num_train", "num_test", "train_labels", "test_labels", "train", "test"]
    assert list(before["clients"][0]) == keys
    content = json.dumps([[shard.client_id, shard.train, shard.test] for shard in plain])
    assert before["shards_sha256"] == hashlib.sha256(content.encode()).hexdigest()
    assert "validation_rows_sha256" not in before
    client = after["clients"][0]
    assert (client["num_validation"], client["validation"]) == (3, list(shards[0].validation))
    assert sum(client["validation_labels"].values()) == 3
    assert (after["num_rows_left_over"], after["heterogeneity"]) == (0, before["heterogeneity"])
    assert shards_checksum(shards) != shards_checksum(plain)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[list[dict[str, Any]], list[Shard], PartitionConfig]:
    """Return rows, a run's shards of them, and the partition that takes them from the run's file."""
    rows = rows_of(90, 10**9, 0)
    _, shards = with_validation(rows, PartitionConfig(name="iid", min_test_rows=4, validation_fraction=0.1), 3, 0)
    path = tmp_path / "partition.json"
    path.write_text(json.dumps(partition_record(rows, shards, DATA)), encoding="utf-8")
    return rows, shards, PartitionConfig(name="file", path=str(path))


def test_the_parts_of_another_run_are_taken_as_they_are(
    stored: tuple[list[dict[str, Any]], list[Shard], PartitionConfig],
) -> None:
    rows, shards, partition = stored
    assert make_shards(rows, DATA, partition, 3, 7) == shards
    assert make_shards(rows, DATA, partition, 3, 7, with_test_parts=False) == shards


def test_a_prompt_in_two_parts_of_another_run_is_told(
    stored: tuple[list[dict[str, Any]], list[Shard], PartitionConfig],
) -> None:
    rows, shards, partition = stored
    for part, other in (("train", "validation"), ("validation", "test")):
        one, two = getattr(shards[0], part)[0], getattr(shards[1], other)[0]
        leaky = [{**row, "prompt": rows[two]["prompt"]} if i == one else row for i, row in enumerate(rows)]
        path = Path(str(partition.path))
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**content, "rows_sha256": rows_checksum(leaky)}), encoding="utf-8")
        name = {"train": "training"}.get(part, part)
        with pytest.raises(UserError, match=rf"rows {one} \({name}\) and {two} \({other}\) have one prompt"):
            make_shards(leaky, DATA, dataclasses.replace(partition), 3, 0)
