"""Partitions: each distinct one once, the rarest labels together, no row lost."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from synthetic_runs import NUM_LABELS, collection

from fedlit.lab.analysis.collection import Entry
from fedlit.lab.dashboard.shards import MAX_LABELS, NO_LABEL, label_distributions
from fedlit.store.status import RunStatus


def entry(partition: Mapping[str, Any] | None, seed: int = 0) -> Entry:
    return Entry(
        name="a",
        folder=Path("a"),
        settings={"seed": seed},
        status=RunStatus(),
        config=None,
        records=(),
        partition=partition,
    )


CLIENTS = st.lists(st.dictionaries(st.text(max_size=4), st.integers(0, 50), max_size=40), min_size=1, max_size=6)


@given(CLIENTS, CLIENTS)
def test_no_row_is_lost_and_labels_fall(train: list[dict[str, int]], test: list[dict[str, int]]) -> None:
    clients = [
        {"num_train": 0, "num_test": 0, "train_labels": one, "test_labels": other}
        for one, other in zip(train, test, strict=False)
    ]
    (data,) = label_distributions([entry({"data": "d", "label": "kind", "clients": clients})])
    (shards,) = data.shards
    for client, counts in zip(clients, shards.counts, strict=True):
        assert sum(counts) == sum(client["train_labels"].values()) + sum(client["test_labels"].values())
        assert len(counts) == len(data.labels) <= MAX_LABELS + 1
    totals = [sum(column) for column in zip(*shards.counts, strict=True)][: MAX_LABELS if data.has_other else None]
    assert totals == sorted(totals, reverse=True)
    assert all(totals)


def test_runs_of_one_partition_share_a_picture() -> None:
    found = label_distributions(collection(Path("c"), num_clients=(4, 8), datas=("medquad", "dolly")).entries)
    assert [(data.data, data.column) for data in found] == [("medquad", "kind"), ("dolly", "kind")]
    for data in found:
        assert [(len(shards.counts), shards.seeds) for shards in data.shards] == [
            (4, [0]),
            (4, [1]),
            (8, [0]),
            (8, [1]),
        ]
        assert data.labels[-1] == f"other ({NUM_LABELS - MAX_LABELS} labels)"
        assert data.shards[0].title == "4 clients · dirichlet, alpha 0.1"
        assert data.shards[0].skew == 0.312346


def test_seeds_with_equal_rows_are_named_together() -> None:
    first, second = collection(Path("c"), methods=("fedit",)).entries
    (data,) = label_distributions([first, replace(second, partition=first.partition)])
    assert [shards.seeds for shards in data.shards] == [[0, 1]]


def test_rows_without_labels_are_one_colour() -> None:
    clients = [{"num_train": 5, "num_test": 2, "train_labels": {}, "test_labels": {}}]
    (data,) = label_distributions([entry({"data": "d", "label": None, "clients": clients}), entry(None)])
    assert (data.labels, data.column, data.shards[0].counts) == ([NO_LABEL], "", [[7]])


def test_of_many_clients_every_kth_is_shown() -> None:
    clients = [{"num_train": 1 + i, "num_test": 0, "train_labels": {"a": 1 + i}} for i in range(1000)]
    (data,) = label_distributions([entry({"data": "d", "label": "kind", "clients": clients})])
    (shards,) = data.shards
    assert shards.clients == list(range(0, 1000, 5))
    assert shards.counts == [[1 + i] for i in range(0, 1000, 5)]
    assert shards.title == "200 of 1000 clients"
    (few,) = label_distributions([entry({"data": "d", "label": "kind", "clients": clients[:200]})])[0].shards
    assert (few.clients, few.title) == (list(range(200)), "200 clients")


def test_clients_have_their_names() -> None:
    clients = [{"num_train": 1, "num_test": 1, "name": name} for name in ("north", "south", "north")]
    rows = {"data": "d", "label": None, "clients": clients}
    unnamed = {**rows, "clients": [{"num_train": 1, "num_test": 1} for _ in clients]}
    (data,) = label_distributions([entry(rows), entry(unnamed)])
    assert [shards.names for shards in data.shards] == [["north (0)", "south", "north (2)"], []]
    many = {**rows, "clients": [{**clients[0], "name": f"site {i}"} for i in range(401)]}
    (shards,) = label_distributions([entry(many)])[0].shards
    assert [shards.names[i] for i in (0, 1, -1)] == [f"site {shards.clients[i]}" for i in (0, 1, -1)]
