import dataclasses
import functools
import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fedlit.config.schema import DataConfig, PartitionConfig
from fedlit.data.prompts import Row, render
from fedlit.data.sources import load_rows
from fedlit.errors import UserError
from fedlit.partition.heterogeneity import jensen_shannon
from fedlit.partition.shards import (
    RowLabels,
    Shard,
    make_shards,
    partition_record,
    row_labels,
    rows_checksum,
    shards_checksum,
)

REPO = Path(__file__).parents[3]
SHARED = REPO.parent / "shared" / "data"
DATA = DataConfig()


def rows_of(prompts: list[Any], labels: str | list[str] = "ab") -> list[Row]:
    return [
        {"prompt": str(prompt), "response": f"r{i}", "label": labels[i % len(labels)]}
        for i, prompt in enumerate(prompts)
    ]


def check_no_prompt_in_both_parts(rows: list[Row], data: DataConfig, shards: list[Shard]) -> None:
    train = {render(rows[i], data)[0] for shard in shards for i in shard.train}
    test = {render(rows[i], data)[0] for shard in shards for i in shard.test}
    assert not train & test
    numbers = [i for shard in shards for i in shard.train + shard.test]
    assert len(numbers) == len(set(numbers))
    assert [shard.client_id for shard in shards] == list(range(len(shards)))
    assert all(shard.train for shard in shards)


def test_num_examples_is_the_number_of_training_rows() -> None:
    assert Shard(client_id=0, train=(1, 2, 3), test=(4,)).num_examples == 3


@pytest.mark.parametrize(
    ("num_rows", "fraction", "minimum", "expected"),
    [(100, 0.07, 0, 7), (100, 0.071, 0, 8), (100, 0.01, 8, 8), (3_750, 0.01, 8, 38), (10, 0.0, 0, 0), (10, 0.5, 9, 9)],
)
def test_size_of_the_test_part(num_rows: int, fraction: float, minimum: int, expected: int) -> None:
    partition = PartitionConfig(name="iid", test_fraction=fraction, min_test_rows=minimum)
    (shard,) = make_shards(rows_of(list(range(num_rows))), DATA, partition, 1, 0)
    assert len(shard.test) == expected
    assert len(shard.train) == num_rows - expected


@given(
    prompts=st.lists(st.integers(0, 25), min_size=12, max_size=80),
    num_clients=st.integers(1, 4),
    name=st.sampled_from(["iid", "dirichlet"]),
    fraction=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 20),
)
def test_no_prompt_is_in_both_parts(
    prompts: list[int], num_clients: int, name: str, fraction: float, seed: int
) -> None:
    rows = rows_of(prompts, "abc")
    partition = PartitionConfig(name=name, test_fraction=fraction, min_test_rows=0)
    shards = make_shards(rows, DATA, partition, num_clients, seed)
    check_no_prompt_in_both_parts(rows, DATA, shards)
    assert {len(shard.train) + len(shard.test) for shard in shards} == {len(rows) // num_clients}
    assert shards == make_shards(rows, DATA, partition, num_clients, seed)


def test_prompts_are_compared_as_rendered() -> None:
    rows = [{"prompt": f"p{i}", "context": str(i % 4), "response": "r", "label": "a"} for i in range(40)]
    data = DataConfig(template="{context}\n")
    shards = make_shards(rows, data, PartitionConfig(name="iid", min_test_rows=5), 2, 0)
    check_no_prompt_in_both_parts(rows, data, shards)
    assert all(len(shard.test) >= 5 for shard in shards)


@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=12), target=st.integers(1, 30), seed=st.integers(0, 9))
def test_never_fewer_test_rows_than_asked_where_possible(sizes: list[int], target: int, seed: int) -> None:
    rows = rows_of([k for k, size in enumerate(sizes) for _ in range(size)])
    partition = PartitionConfig(name="iid", test_fraction=0.0, min_test_rows=target)
    if target <= len(rows) - min(sizes):  # one whole prompt must stay for training
        (shard,) = make_shards(rows, DATA, partition, 1, seed)
        assert target <= len(shard.test) < target + max(sizes)
    else:
        with pytest.raises(UserError, match=r"client 0.*partition\.min_test_rows"):
            make_shards(rows, DATA, partition, 1, seed)


def test_clients_with_the_same_prompts_agree_on_the_test_prompts() -> None:
    rows = rows_of(["a", "b"] * 40)
    for seed in range(10):
        partition = PartitionConfig(name="iid", min_test_rows=1)
        check_no_prompt_in_both_parts(rows, DATA, make_shards(rows, DATA, partition, 4, seed))


def test_the_test_part_is_a_random_draw() -> None:
    rows = rows_of(list(range(200)))
    partition = PartitionConfig(name="natural", min_test_rows=20)
    draws = [make_shards(rows, DATA, partition, 2, seed) for seed in range(40)]
    assert len({draw[0].test for draw in draws}) == 40
    mean = sum(i for draw in draws for i in draw[0].test) / (40 * 20)
    assert abs(mean - 99) < 12  # even row numbers 0 .. 198; the standard error is 2
    first, second = draws[0]
    assert [i + 1 for i in first.test] != list(second.test)  # a stream of its own for every client


def test_a_client_draws_the_same_prompts_whatever_the_others_hold() -> None:
    rows = rows_of(list(range(100)), ["a"] * 60 + ["b"] * 40)
    partition = PartitionConfig(name="natural", min_test_rows=10)
    shards = make_shards(rows, DATA, partition, 2, 0)
    changed = [row | {"prompt": "other " + row["prompt"]} if row["label"] == "b" else row for row in rows]
    assert make_shards(changed, DATA, partition, 2, 0)[0] == shards[0]
    reordered = [dict(reversed(row.items())) for row in rows]
    assert make_shards(reordered, DATA, partition, 2, 0) == shards


def test_shards_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "from fedlit.config.schema import *; from fedlit.partition.shards import *\n"
        "rows = [{'prompt': str(i % 30), 'response': 'r', 'label': 'abc'[i % 3]} for i in range(60)]\n"
        "print(make_shards(rows, DataConfig(), PartitionConfig(min_test_rows=3), 2, 0))"
    )
    env = os.environ | {"PYTHONHASHSEED": "5867", "PYTHONPATH": str(REPO)}
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    rows = rows_of([i % 30 for i in range(60)], "abc")
    assert run.stdout.strip() == str(make_shards(rows, DATA, PartitionConfig(min_test_rows=3), 2, 0))


def fails(match: str, rows: list[Row], data: DataConfig = DATA, num_clients: int = 2, **partition: Any) -> None:
    with pytest.raises(UserError, match=match) as caught:
        make_shards(rows, data, PartitionConfig(**partition), num_clients, 0)
    assert "\n" not in str(caught.value)


def test_a_client_needs_a_training_row() -> None:
    rows = rows_of(list(range(17)))
    fails("client 0 has 8 rows and 8 are asked for its test part.*fewer clients or lower .*min_test_rows=8", rows)
    fails("client 1 has 1 rows and 1 are asked", rows_of([1, 2, 3], "aab"), name="natural", min_test_rows=1)
    fails("client 0 has 8 rows and 8 are asked", rows, test_fraction=0.99, min_test_rows=0)


def test_a_client_with_one_prompt_has_no_test_part() -> None:
    two = rows_of(["same"] * 19 + ["other"])
    fails(r"client \d: its 10 rows have too few prompts for partition\.min_test_rows=8 \(0 found\)", two, name="iid")
    rows = rows_of(["same"] * 20)
    fails(r"all 20 rows have one prompt \(data\.template\).*give a test set with data\.test_path=", rows, name="iid")
    partition = PartitionConfig(name="iid", min_test_rows=0)
    assert [shard.test for shard in make_shards(rows, DATA, partition, 2, 0)] == [(), ()]


def test_partition_mistakes() -> None:
    rows = rows_of(list(range(40)))
    unlabelled = DataConfig(label=None)
    fails("partition.name=dirichlet skews labels and data.label is null.*partition.name=iid", rows, unlabelled)
    fails("partition.name=natural .* none is given; name one with partition.column=", rows, unlabelled, name="natural")
    fails("no column 'lable' .*partition.column.*nearest is 'label'", rows, name="natural", column="lable")
    fails(
        "partition.name=dirichlett: not a partition; choose one of dirichlet, quantity, pathological, natural",
        rows,
        name="dirichlett",
    )
    fails("partition.alpha=0.0: not a positive", rows, alpha=0.0)
    fails("num_clients=41: more than the 40 rows", rows, num_clients=41)
    fails("num_clients=3: .* has 2", rows, name="natural", num_clients=3)
    fails("partition.test_fraction=1.0: not a share", rows, test_fraction=1.0)
    fails("partition.test_fraction=nan: not a share", rows, test_fraction=float("nan"))


def test_natural_partition_over_another_column() -> None:
    rows = [row | {"hospital": i % 3} for i, row in enumerate(rows_of(list(range(60))))]
    partition = PartitionConfig(name="natural", column="hospital", min_test_rows=2)
    shards = make_shards(rows, DataConfig(label=None), partition, 3, 0)
    assert [{rows[i]["hospital"] for i in shard.train + shard.test} for shard in shards] == [{0}, {1}, {2}]


def test_the_record_counts_labels() -> None:
    rows = rows_of(list(range(41)), "abb")
    shards = make_shards(rows, DATA, PartitionConfig(min_test_rows=3), 2, 0)
    record = json.loads(json.dumps(partition_record(rows, shards, DATA)))
    assert (record["num_rows"], record["num_rows_left_over"], record["label"]) == (41, 1, "label")
    for shard, client in zip(shards, record["clients"], strict=True):
        assert (tuple(client["train"]), tuple(client["test"])) == (shard.train, shard.test)
        assert (client["num_train"], client["num_test"]) == (shard.num_examples, len(shard.test))
        assert client["train_labels"] == dict(Counter(rows[i]["label"] for i in shard.train))
        assert client["test_labels"] == dict(Counter(rows[i]["label"] for i in shard.test))
    assert partition_record(rows, shards, DataConfig(label=None))["clients"][0]["train_labels"] == {}


def test_record_says_how_unlike_the_clients_are() -> None:
    rows = rows_of(list(range(40)), "ab")
    by_label = make_shards(rows, DATA, PartitionConfig(name="natural", min_test_rows=2), 2, 0)
    numbers = partition_record(rows, by_label, DATA)["heterogeneity"]
    assert numbers["jensen_shannon"] == pytest.approx(0.311278124459)  # two clients without a common label
    assert numbers["size_variation"] == 0.0
    unlabelled = partition_record(rows, by_label, DataConfig(label=None))
    assert unlabelled["heterogeneity"] == {"jensen_shannon": None, "size_variation": 0.0}
    assert unlabelled["label"] is None


def test_record_has_checksums_of_rows_and_shards() -> None:
    rows = rows_of(list(range(40)))
    partition = PartitionConfig(name="iid", min_test_rows=2)
    shards, others = (make_shards(rows, DATA, partition, 2, seed) for seed in (0, 1))
    record = partition_record(rows, shards, DATA, own_test_rows=rows[:3])
    assert record["rows_sha256"] == partition_record(rows, others, DATA)["rows_sha256"]
    assert record["test_rows_sha256"] == rows_checksum(rows[:3])
    assert partition_record(rows, shards, DATA)["test_rows_sha256"] is None
    assert record["shards_sha256"] == shards_checksum(shards) != shards_checksum(others)
    moved = [Shard(client_id=s.client_id, train=s.test, test=s.train) for s in shards]
    assert shards_checksum(moved) != shards_checksum(shards)


@pytest.mark.parametrize("with_test_parts", [True, False])
@pytest.mark.parametrize("name", ["iid", "quantity", "natural", "topics", "dirichlet", "pathological"])
def test_every_partition_deals_training_and_test_rows(name: str, with_test_parts: bool) -> None:
    words = ["rose tulip seed", "oven flour pan", "sail mast tide"]
    rows = [row | {"response": words[i // 2 % 3]} for i, row in enumerate(rows_of(list(range(240)), "abcd"))]
    partition = PartitionConfig(name=name, alpha=0.5, num_topics=3, min_test_rows=4, test_fraction=0.1)
    shards = make_shards(rows, DATA, partition, 3, 0, with_test_parts=with_test_parts)
    check_no_prompt_in_both_parts(rows, DATA, shards)
    assert all((len(shard.test) >= 4) is with_test_parts for shard in shards)
    assert sum(len(shard.train + shard.test) for shard in shards) == 240
    labels = row_labels(rows, DATA, partition, 0)
    assert shards == make_shards(rows, DATA, partition, 3, 0, labels=labels, with_test_parts=with_test_parts)


@pytest.mark.parametrize("name", ["iid", "quantity", "topics"])
def test_partitions_that_need_no_labels(name: str) -> None:
    words = ["rose tulip seed", "oven flour pan"]
    rows: list[Row] = [{"prompt": f"p{i}", "response": words[i % 2]} for i in range(90)]
    partition = PartitionConfig(name=name, num_topics=2, alpha=0.5, min_test_rows=3)
    shards = make_shards(rows, DataConfig(label=None), partition, 3, 0)
    assert [len(shard.test) for shard in shards] == [3] * 3
    assert (row_labels(rows, DataConfig(label=None), partition, 0) is None) == (name != "topics")


@pytest.mark.parametrize(("fraction", "minimum", "smallest"), [(0.01, 8, 9), (0.9, 0, 10), (0.5, 3, 4), (0.0, 0, 1)])
def test_quantity_leaves_every_client_enough_to_train_and_test(fraction: float, minimum: int, smallest: int) -> None:
    rows = rows_of(list(range(100)))
    partition = PartitionConfig(name="quantity", alpha=1e-6, test_fraction=fraction, min_test_rows=minimum)
    shards = make_shards(rows, DATA, partition, 4, 0)
    sizes = sorted(len(shard.train + shard.test) for shard in shards)
    assert sizes == [smallest] * 3 + [100 - 3 * smallest]
    assert all(shard.train for shard in shards)


def test_topics_are_the_labels_of_the_record() -> None:
    words = ["rose tulip seed", "oven flour pan", "sail mast tide"]
    rows = [row | {"response": words[i % 3]} for i, row in enumerate(rows_of(list(range(120)), "ab"))]
    partition = PartitionConfig(name="topics", num_topics=3, alpha=1e-6, min_test_rows=4)
    labels = row_labels(rows, DATA, partition, 0)
    assert labels is not None
    assert labels.name == "topic"
    assert [labels.values.index(value) for value in labels.values] == [i % 3 for i in range(120)]
    shards = make_shards(rows, DATA, partition, 3, 0)
    record = partition_record(rows, shards, DATA, labels=labels)
    assert record["label"] == "topic"
    for shard, client in zip(shards, record["clients"], strict=True):
        assert client["train_labels"] == dict(Counter(labels.values[i] for i in shard.train))
    held = [Counter(labels.values[i] for i in shard.train + shard.test) for shard in shards]
    assert record["heterogeneity"]["jensen_shannon"] == jensen_shannon(held) != 0.0
    by_label = row_labels(rows, DATA, PartitionConfig(), 0)
    assert by_label == RowLabels(name="label", values=tuple("ab" * 60))


def test_a_run_can_take_over_the_shards_of_another(tmp_path: Path) -> None:
    rows = rows_of([i % 50 for i in range(80)], "abc")
    shards = make_shards(rows, DATA, PartitionConfig(alpha=0.3, min_test_rows=5), 3, 7)
    path = tmp_path / "partition.json"
    path.write_text(json.dumps(partition_record(rows, shards, DATA)))
    partition = PartitionConfig(name="file", path=str(path))
    for seed in (0, 1):
        assert make_shards(rows, DATA, partition, 3, seed) == shards
        assert make_shards(rows, DATA, partition, 3, seed, with_test_parts=False) == shards
    fails("is of other rows .80 of data.name=pydoc. than this run's 79", rows[:79], num_clients=3, **vars(partition))
    template = DataConfig(template="{label}\n")
    fails("rows .* and .* have one prompt in this run", rows, template, num_clients=3, **vars(partition))


def test_the_shards_of_a_run_without_test_parts(tmp_path: Path) -> None:
    rows = rows_of(list(range(40)))
    shards = make_shards(rows, DATA, PartitionConfig(name="iid"), 2, 0, with_test_parts=False)
    path = tmp_path / "partition.json"
    path.write_text(json.dumps(partition_record(rows, shards, DATA)))
    partition = PartitionConfig(name="file", path=str(path))
    assert make_shards(rows, DATA, partition, 2, 0, with_test_parts=False) == shards
    fails("no client of that run has test rows, and this run needs some", rows, **vars(partition))


def test_a_file_without_test_parts_gets_them(tmp_path: Path) -> None:
    rows = rows_of(list(range(60)))
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([list(range(0, 30)), list(range(59, 31, -1))]))
    partition = PartitionConfig(name="file", path=str(path), min_test_rows=6)
    shards = make_shards(rows, DataConfig(label=None), partition, 2, 0)
    assert [sorted(shard.train + shard.test) for shard in shards] == [list(range(30)), list(range(32, 60))]
    assert [len(shard.test) for shard in shards] == [6, 6]
    assert partition_record(rows, shards, DATA)["num_rows_left_over"] == 2


@pytest.mark.parametrize(("key", "num_clients", "left_over"), [("distribution1", 3, 3_755), ("distribution2", 4, 3)])
def test_the_authors_own_shards_of_dolly(key: str, num_clients: int, left_over: int) -> None:
    rows, data = real("dolly", "dolly15k/dolly15k.jsonl.gz")
    path = SHARED / "dolly15k" / "paper_shards.json.gz"
    partition = PartitionConfig(name="file", path=str(path), key=key)
    shards = make_shards(rows, data, partition, num_clients, 0)
    check_no_prompt_in_both_parts(rows, data, shards)
    published = json.loads(gzip.decompress(path.read_bytes()))[key]
    names = sorted(set(published) - {"unassigned"})
    for name, shard in zip(names, shards, strict=True):
        assert sorted(published[name]) == sorted(shard.train + shard.test)
    assert partition_record(rows, shards, data)["num_rows_left_over"] == left_over


def real(name: str, path: str) -> tuple[list[Row], DataConfig]:
    if not (SHARED / path).exists():
        pytest.skip(f"needs the shared data set {path}")
    rows, data = read_once(name, path)
    return rows, dataclasses.replace(data)


@functools.cache
def read_once(name: str, path: str) -> tuple[list[Row], DataConfig]:
    node = OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.load(REPO / f"configs/data/{name}.yaml"))
    data = OmegaConf.to_object(node)
    assert isinstance(data, DataConfig)
    data.path = str(SHARED / path)
    return load_rows(data, 0), data


@pytest.mark.parametrize("alpha", [1e-6, 0.1, 1e6])
def test_medquad(alpha: float) -> None:
    rows, data = real("medquad", "medquad/medquad.jsonl.gz")
    shards = make_shards(rows, data, PartitionConfig(alpha=alpha), 3, 0)
    assert [len(shard.train) + len(shard.test) for shard in shards] == [5_469] * 3
    check_no_prompt_in_both_parts(rows, data, shards)
    assert all(55 <= len(shard.test) <= 80 for shard in shards)  # 1 % of 5,469 and whole prompts of up to 20 rows
    clients = partition_record(rows, shards, data)["clients"]
    counts = sum((Counter(client["train_labels"]) + Counter(client["test_labels"]) for client in clients), Counter())
    assert counts == Counter(row["question_type"] for row in rows)  # 16,407 is 3 x 5,469
    assert counts["support groups"] == 1


def test_medquad_as_in_the_papers() -> None:
    rows, data = real("medquad", "medquad/medquad.jsonl.gz")
    data.sample = 15_000
    rows = load_rows(data, 0)
    shards = make_shards(rows, data, PartitionConfig(), 4, 0)
    assert [len(shard.train) + len(shard.test) for shard in shards] == [3_750] * 4
    check_no_prompt_in_both_parts(rows, data, shards)


def test_dolly_as_in_the_papers() -> None:
    rows, data = real("dolly", "dolly15k/dolly15k.jsonl.gz")
    shards = make_shards(rows, data, PartitionConfig(), 4, 0)
    assert [len(shard.train) + len(shard.test) for shard in shards] == [3_752] * 4
    check_no_prompt_in_both_parts(rows, data, shards)
    assert partition_record(rows, shards, data)["num_rows_left_over"] == 3


def test_the_first_shards_take_part() -> None:
    """Three of four shards, as in the SCL and FedFTG papers: the rows that they have among four clients."""
    rows = rows_of(list(range(80)), "abcd")
    four = make_shards(rows, DATA, PartitionConfig(min_test_rows=3), 4, 0)
    three = make_shards(rows, DATA, PartitionConfig(min_test_rows=3, num_shards=4), 3, 0)
    assert [sorted(shard.train + shard.test) for shard in three] == [
        sorted(shard.train + shard.test) for shard in four[:3]
    ]
    assert partition_record(rows, three, DATA)["num_rows_left_over"] == 20
