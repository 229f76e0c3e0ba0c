"""The shard of every client: which rows are its own, and which of them are for training and which for testing.

Question sets repeat their questions (MedQuAD: 16,407 pairs, 14,979 questions), and clients share one global model. A
prompt that one client trains on and another tests on would be a leak, so a prompt is for testing in all or none.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fedlit.config.schema import DataConfig, PartitionConfig
from fedlit.data.partition import dirichlet, iid, natural
from fedlit.data.prompts import Row, render
from fedlit.data.sources import column_values
from fedlit.errors import UserError
from fedlit.seeding import numpy_generator


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """The rows of one client, as ascending positions in the list of rows."""

    client_id: int
    train: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def num_examples(self) -> int:
        """Number of training rows, the client's weight."""
        return len(self.train)


def make_shards(
    rows: Sequence[Row], data: DataConfig, partition: PartitionConfig, num_clients: int, seed: int
) -> list[Shard]:
    """Deal the rows to clients 0 .. num_clients - 1 and split each client's rows into training and test.

    A client's test part has max(ceil(test_fraction * n), min_test_rows) of its n rows. It has more where a drawn prompt
    has several rows or another client drew a prompt that this one has too, and fewer, though at least min_test_rows,
    where its prompts do not suffice.
    Streams: (seed, "partition") and, for each client, (seed, "split", client_id).

    Raises:
        UserError: a partition that these rows do not allow, or a client that cannot have both parts.
    """
    parts = _deal(rows, data, partition, num_clients, seed)
    prompts = [render(row, data)[0] for row in rows]
    test_prompts = _draw_test_prompts(parts, prompts, partition, seed)
    shards = []
    for client_id, part in enumerate(parts):
        test = tuple(i for i in part if prompts[i] in test_prompts)
        train = tuple(i for i in part if prompts[i] not in test_prompts)
        assert train, f"client {client_id} has no training row"
        if len(test) < partition.min_test_rows:
            raise UserError(
                f"client {client_id}: its {len(part)} rows have too few prompts for partition.min_test_rows="
                f"{partition.min_test_rows} ({len(test)} found), since training and test share none; "
                "lower partition.min_test_rows or use fewer clients"
            )
        shards.append(Shard(client_id=client_id, train=train, test=test))
    return shards


def label_counts(rows: Sequence[Row], shards: Sequence[Shard], label: str | None) -> list[dict[str, int]]:
    """Return, for each shard, how many of its rows (training and test) have each label; absent labels are left out."""
    return [_count(rows, shard.train + shard.test, label) for shard in shards]


def partition_record(rows: Sequence[Row], shards: Sequence[Shard], data: DataConfig) -> dict[str, Any]:
    """Return what `partition.json` holds: row numbers and label counts of every client's two parts.

    Row numbers are positions from 0 in the list that `load_rows` returns: empty rows left out, sample drawn.
    """
    return {
        "data": data.name,
        "label": data.label,
        "num_rows": len(rows),
        "rows_sha256": rows_checksum(rows),
        "num_rows_left_over": len(rows) - sum(len(shard.train) + len(shard.test) for shard in shards),
        "clients": [
            {
                "client_id": shard.client_id,
                "num_train": len(shard.train),
                "num_test": len(shard.test),
                "train_labels": _count(rows, shard.train, data.label),
                "test_labels": _count(rows, shard.test, data.label),
                "train": list(shard.train),
                "test": list(shard.test),
            }
            for shard in shards
        ],
    }


def rows_checksum(rows: Sequence[Row]) -> str:
    """Return the SHA-256 of the rows and their order: a run goes on only with the rows it began with."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _count(rows: Sequence[Row], numbers: Sequence[int], label: str | None) -> dict[str, int]:
    if label is None:
        return {}
    return dict(sorted(Counter(column_values([rows[i] for i in numbers], label, "data.label")).items()))


def _deal(
    rows: Sequence[Row], data: DataConfig, partition: PartitionConfig, num_clients: int, seed: int
) -> list[list[int]]:
    rng = numpy_generator(seed, "partition")
    if partition.name == "iid":
        return iid(len(rows), num_clients, rng)
    if partition.name == "dirichlet":
        if data.label is None:
            raise UserError(
                "partition.name=dirichlet skews labels and data.label is null; "
                "name a column with data.label= or choose partition.name=iid"
            )
        return dirichlet(column_values(rows, data.label, "data.label"), num_clients, partition.alpha, rng)
    if partition.name == "natural":
        key = "data.label" if partition.column is None else "partition.column"
        column = data.label if partition.column is None else partition.column
        if column is None:
            raise UserError(
                "partition.name=natural deals the values of a column and none is given; name one with partition.column="
            )
        return natural(column_values(rows, column, key), num_clients)
    raise UserError(f"partition.name={partition.name}: not a partition; choose one of dirichlet, iid, natural")


def _draw_test_prompts(
    parts: Sequence[Sequence[int]], prompts: Sequence[str], partition: PartitionConfig, seed: int
) -> set[str]:
    """Return the prompts whose rows are test rows in all clients.

    First a prompt of every client is kept for training, so that all clients have a training row: one that an earlier
    client keeps, or else one with the fewest rows. Then the clients, one after the other, draw prompts at random until
    they have enough test rows, counting the rows of prompts that an earlier client drew.
    """
    counts = [Counter(prompts[i] for i in part) for part in parts]
    targets = [_num_test(client_id, len(part), partition) for client_id, part in enumerate(parts)]
    orders = [_shuffled(list(count), seed, client_id) for client_id, count in enumerate(counts)]
    kept: set[str] = set()
    for order, count, target in zip(orders, counts, targets, strict=True):
        num_kept = sum(count[prompt] for prompt in kept)
        if not 0 < num_kept <= count.total() - target:
            kept.add(min(order, key=count.__getitem__))
    test_prompts: set[str] = set()
    for order, count, target in zip(orders, counts, targets, strict=True):
        num_test = sum(num for prompt, num in count.items() if prompt in test_prompts)
        for prompt in order:
            if num_test >= target:
                break
            if prompt not in kept and prompt not in test_prompts:
                test_prompts.add(prompt)
                num_test += count[prompt]
    return test_prompts


def _shuffled(prompts: Sequence[str], seed: int, client_id: int) -> list[str]:
    rng = numpy_generator(seed, "split", client_id=client_id)
    return [prompts[i] for i in rng.permutation(len(prompts)).tolist()]


def _num_test(client_id: int, num_rows: int, partition: PartitionConfig) -> int:
    """Return the number of test rows asked for; the client has more rows than that."""
    fraction = partition.test_fraction
    if not 0 <= fraction < 1:
        raise UserError(f"partition.test_fraction={fraction}: not a share; choose 0 or more and less than 1")
    # exact decimals: in floats 0.07 * 100 is a little more than 7 and its ceiling is 8
    target = max(math.ceil(Fraction(str(fraction)) * num_rows), partition.min_test_rows)
    if num_rows <= target:
        raise UserError(
            f"client {client_id} has {num_rows} rows and {target} are asked for its test part, none is left to train "
            f"on; use fewer clients or lower partition.min_test_rows={partition.min_test_rows}"
        )
    return target
