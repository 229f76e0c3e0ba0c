"""The shard of every client: which rows are its own, and which of them are for training and which for testing."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedlit.client_names import name_of_values, own_name, told
from fedlit.config.schema import DataConfig, PartitionConfig, RunConfig
from fedlit.data.columns import column_values
from fedlit.data.images import digest
from fedlit.data.prompts import Row
from fedlit.errors import UserError
from fedlit.partition.by_files import deal_files
from fedlit.partition.by_values import held_values, natural_values
from fedlit.partition.dealing import dirichlet, iid, natural, pathological, quantity
from fedlit.partition.files import FilePartition, read_partition_file
from fedlit.partition.heterogeneity import jensen_shannon, size_variation
from fedlit.partition.outside import deal_outside
from fedlit.partition.splitting import draw_test_prompts, smallest_part
from fedlit.partition.topics import find_topics, topic_text
from fedlit.registry import registered
from fedlit.seeding import numpy_generator
from fedlit.tasks.registry import task_spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """The rows of one client, as ascending positions in the list of rows.

    name: what its user calls the client: its file, its value of a natural column; '' for none. values: all values of
    that column that it holds, those of most rows first; none of another partition.
    validation: rows on which rounds and rates are chosen; none without `partition.validation_fraction`.
    """

    client_id: int
    train: tuple[int, ...]
    test: tuple[int, ...]
    name: str = ""
    validation: tuple[int, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def num_examples(self) -> int:
        """Number of training rows, the client's weight."""
        return len(self.train)


@dataclass(frozen=True, kw_only=True, slots=True)
class Owned:
    """What is known of whose a row is before any is dealt.

    parts: row numbers of every client that were given from Python, and names, the clients' own. files: of every row,
    the name of its file, for `partition.name=files`.
    """

    parts: Sequence[Sequence[int]] | None = None
    names: Sequence[str] = ()
    files: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLabels:
    """What a partition skews and its record counts.

    name: the column, or `topic`. values: the label of every row.
    """

    name: str
    values: tuple[str, ...]


def draw_seed(config: RunConfig) -> int:
    """Return the root of the streams that sample and deal the rows: `partition.seed`, or the run's."""
    return config.seed if config.partition.seed is None else config.partition.seed


def row_labels(rows: Sequence[Row], data: DataConfig, partition: PartitionConfig, seed: int) -> RowLabels | None:
    """Return the label of every row: its topic under partition.name=topics, else its data.label; None without labels.

    Raises:
        UserError: a row without a label, or texts that do not fall into so many topics.
    """
    if partition.name == "topics":
        topics = find_topics([topic_text(row, data) for row in rows], partition.num_topics, seed)
        return RowLabels(name="topic", values=tuple(topics))
    if data.label is None:
        return None
    return RowLabels(name=data.label, values=tuple(column_values(rows, data.label, "data.label")))


def make_shards(
    rows: Sequence[Row],
    data: DataConfig,
    partition: PartitionConfig,
    num_clients: int,
    seed: int,
    *,
    labels: RowLabels | None = None,
    with_test_parts: bool = True,
    owned: Owned | None = None,
) -> list[Shard]:
    """Deal the rows to clients 0 .. num_clients - 1 and split each client's rows into training and test.

    With partition.num_shards they are dealt to as many, of which the first num_clients take part. `labels` are those of
    `row_labels`, which is asked where they are not given. Without test parts, which a data set with a test set of its
    own can do without, all rows are for training. The parts of another run's file stay as they are in either case.

    A client's test part has max(ceil(test_fraction * n), min_test_rows) of its n rows. It has more where a drawn prompt
    has several rows or another client drew a prompt that this one has too, and fewer, though at least min_test_rows,
    where its prompts do not suffice.
    Streams: (seed, "partition") and, for each client, (seed, "split", client_id).

    Raises:
        UserError: a partition that these rows do not allow, or a client that cannot have both parts.
    """
    num_shards, owned = partition.num_shards or num_clients, owned or Owned()
    names: list[str] = []
    held: list[tuple[str, ...]] = []
    if partition.name == "file":
        found = read_partition_file(data, partition, num_shards, len(rows), rows_checksum(rows))
        if found.test is not None:
            shards = _as_in_the_file(found, rows, data, with_test_parts=with_test_parts)
            return [replace(shard, name=found.names[shard.client_id]) for shard in shards[:num_clients]]
        parts, names = found.rows, [own_name(i, name) for i, name in enumerate(found.names)]
    elif owned.parts is not None:
        parts, names = [list(part) for part in owned.parts], list(owned.names)
    elif partition.name == "files":
        parts, names = deal_files(owned.files, num_clients)
    else:
        smallest = smallest_part(partition) if with_test_parts else 1
        labels = labels or row_labels(rows, data, partition, seed)
        parts = _deal(rows, data, partition, labels, smallest, num_shards, seed)
        if partition.name == "natural":
            held = held_values(parts, natural_values(rows, data, partition))
            names = list(map(name_of_values, held))
    parts, names = parts[:num_clients], names or [""] * num_clients
    held = held or [()] * len(parts)
    if not with_test_parts:
        return [
            Shard(client_id=client_id, train=tuple(part), test=(), name=names[client_id], values=held[client_id])
            for client_id, part in enumerate(parts)
        ]
    identity = task_spec(data.task).identity
    prompts = [identity(row, data) for row in rows]
    test_prompts = draw_test_prompts(parts, prompts, partition, seed)
    shards = []
    for client_id, part in enumerate(parts):
        test = tuple(i for i in part if prompts[i] in test_prompts)
        train = tuple(i for i in part if prompts[i] not in test_prompts)
        assert train, f"client {client_id} has no training row"
        if len(test) < partition.min_test_rows:
            raise _too_few_prompts(told(client_id, names), part, len(test), prompts, data, partition)
        shards.append(Shard(client_id=client_id, train=train, test=test, name=names[client_id], values=held[client_id]))
    return shards


def partition_record(
    rows: Sequence[Row],
    shards: Sequence[Shard],
    data: DataConfig,
    *,
    labels: RowLabels | None = None,
    own_test_rows: Sequence[Row] = (),
    own_validation_rows: Sequence[Row] = (),
) -> dict[str, Any]:
    """Return what `partition.json` holds: row numbers and label counts of every client's parts.

    Row numbers are positions from 0 in the list that `load_rows` returns: empty rows left out, sample drawn. `labels`
    are those of `row_labels`; where they are not given, data.label is counted. Heterogeneity is over all rows of a
    client. What is of validation is there only where a run has any.
    """
    if labels is None and data.label is not None:
        labels = RowLabels(name=data.label, values=tuple(column_values(rows, data.label, "data.label")))
    values = None if labels is None else labels.values
    held = [shard.train + shard.test + shard.validation for shard in shards]
    own_validation = {"validation_rows_sha256": rows_checksum(own_validation_rows)} if own_validation_rows else {}
    return {
        "data": data.name,
        "label": None if labels is None else labels.name,
        "num_rows": len(rows),
        "rows_sha256": rows_checksum(rows),
        "test_rows_sha256": rows_checksum(own_test_rows) if own_test_rows else None,
        **own_validation,
        "shards_sha256": shards_checksum(shards),
        "num_rows_left_over": len(rows) - sum(map(len, held)),
        "heterogeneity": {
            "jensen_shannon": jensen_shannon([_count(values, part) for part in held]),
            "size_variation": size_variation([len(part) for part in held]),
        },
        "clients": [_client_record(shard, values) for shard in shards],
    }


def _client_record(shard: Shard, values: Sequence[str] | None) -> dict[str, Any]:
    parts = {"train": shard.train, "test": shard.test}
    if shard.validation:
        parts["validation"] = shard.validation
    return {
        "client_id": shard.client_id,
        **({"name": shard.name} if shard.name else {}),
        **({"values": list(shard.values)} if shard.values else {}),
        **{f"num_{name}": len(part) for name, part in parts.items()},
        **{f"{name}_labels": _count(values, part) for name, part in parts.items()},
        **{name: list(part) for name, part in parts.items()},
    }


def shards_checksum(shards: Sequence[Shard]) -> str:
    """Return the SHA-256 of who holds which rows: the same on all processes, and when a run goes on."""
    content = json.dumps([[s.client_id, s.train, s.test, *([s.validation] if s.validation else [])] for s in shards])
    return hashlib.sha256(content.encode()).hexdigest()


def rows_checksum(rows: Sequence[Row]) -> str:
    """Return the SHA-256 of the rows and their order: a run goes on only with the rows it began with."""
    checksum = hashlib.sha256()
    for row in rows:
        checksum.update(json.dumps(row, sort_keys=True, default=digest).encode())
    return checksum.hexdigest()


def _count(values: Sequence[str] | None, numbers: Sequence[int]) -> dict[str, int]:
    """Return how many of the rows have each label, labels in order; nothing without labels."""
    return {} if values is None else dict(sorted(Counter(values[i] for i in numbers).items()))


def _deal(
    rows: Sequence[Row],
    data: DataConfig,
    partition: PartitionConfig,
    labels: RowLabels | None,
    smallest: int,
    num_clients: int,
    seed: int,
) -> list[list[int]]:
    """Return the ascending row numbers of every client."""
    rng = numpy_generator(seed, "partition")
    if partition.name in registered("partition"):
        values = None if labels is None else labels.values
        return deal_outside(partition.name, partition.options, rows, values, num_clients, rng)
    if partition.name == "iid":
        return iid(len(rows), num_clients, rng)
    if partition.name == "quantity":
        return quantity(len(rows), num_clients, partition.alpha, smallest, rng)
    if partition.name in ("dirichlet", "topics", "pathological"):
        if labels is None:
            raise UserError(
                f"partition.name={partition.name} skews labels and data.label is null; "
                "name a column with data.label= or choose partition.name=iid"
            )
        if partition.name == "pathological":
            return pathological(labels.values, num_clients, partition.classes_per_client, rng)
        return dirichlet(labels.values, num_clients, partition.alpha, rng)
    if partition.name == "natural":
        return natural(natural_values(rows, data, partition), num_clients)
    raise UserError(
        f"partition.name={partition.name}: not a partition; choose one of dirichlet, quantity, pathological, natural, "
        "topics, iid, files, file"
    )


def _too_few_prompts(
    client: str,
    part: Sequence[int],
    num_found: int,
    prompts: Sequence[str],
    data: DataConfig,
    partition: PartitionConfig,
) -> UserError:
    """Return what to tell of a client whose rows cannot be kept apart; where no two differ, no partition would help."""
    if len(set(prompts)) == 1:
        key = next(iter(task_spec(data.task).columns(data).values()))
        return UserError(
            f"all {len(prompts)} rows have one prompt ({key}), and training and test share none; give a test set with "
            f"data.test_path=<file> (and eval.on=global), or another {key}"
        )
    return UserError(
        f"{client}: its {len(part)} rows have too few prompts for partition.min_test_rows={partition.min_test_rows} "
        f"({num_found} found), since training and test share none; lower partition.min_test_rows or use fewer clients"
    )


def _as_in_the_file(
    found: FilePartition, rows: Sequence[Row], data: DataConfig, *, with_test_parts: bool
) -> list[Shard]:
    """Return the shards of another run; its prompts, and so what is a leak, may be others than this run's."""
    assert found.test is not None
    if with_test_parts and not any(found.test):
        raise UserError(
            "partition.path: no client of that run has test rows, and this run needs some; set eval.on=global and the "
            "test set of that run, or choose another file"
        )
    shards = []
    for client_id, (part, test, validation) in enumerate(zip(found.rows, found.test, found.validation, strict=True)):
        held = {*test, *validation}
        train = tuple(i for i in part if i not in held)
        shards.append(Shard(client_id=client_id, train=train, test=tuple(test), validation=tuple(validation)))
    identity = task_spec(data.task).identity
    owners: dict[str, tuple[int, str]] = {}
    for name in ("test", "validation", "training"):
        for shard in shards:
            for i in {"test": shard.test, "validation": shard.validation, "training": shard.train}[name]:
                if not owners and name == "training":
                    return shards  # nothing is held back
                other, part_name = owners.setdefault(identity(rows[i], data), (i, name))
                if part_name != name:
                    raise UserError(
                        f"partition.path: rows {i} ({name}) and {other} ({part_name}) have one prompt in this run; "
                        "give the data options of the run that made the file"
                    )
    return shards
