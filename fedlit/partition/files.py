"""Splits that were made elsewhere: row numbers of every client, from a JSON file that may be gzipped.

Three forms are read. A run's `partition.json`, whose parts are kept as they are and whose rows must
be those of this run. A split: a list of lists of row numbers, or an object whose values are such lists, its clients in
the order of their names (numbers in them count as numbers). And an object that holds several splits under names, among
others, of which `partition.key` chooses one; authors publish theirs like this.

Row numbers count from 0 in the order in which the data set is read. Under the name `unassigned` stand rows of nobody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedlit.config.schema import DataConfig, PartitionConfig
from fedlit.data.json_files import read_json_file
from fedlit.data.paths import natural_order
from fedlit.data.values import shown
from fedlit.errors import UserError

UNASSIGNED = "unassigned"
Split = Mapping[str, Sequence[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilePartition:
    """Ascending row numbers of every client.

    rows: all of a client's; if test is None, nothing is said of its test part. test: those of them that are test rows.
    validation: those of them that are validation rows; none of a client where nothing is said of them.
    names: of the clients, '' where the file names none.
    """

    rows: list[list[int]]
    test: list[list[int]] | None
    validation: list[list[int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list, compare=False)


def read_partition_file(
    data: DataConfig, partition: PartitionConfig, num_clients: int, num_rows: int, rows_sha256: str
) -> FilePartition:
    """Return the partition in `partition.path`; `rows_sha256` is of this run's rows, as a run's own file has it.

    Raises:
        UserError: no such file or key, a file of another form, of other rows or another number of clients, a row number
            that is out of range or there twice, or a client without rows.
    """
    if partition.path is None:
        raise UserError("partition.name=file without a file; give partition.path=<file>.json or <file>.json.gz")
    path = Path(partition.path).expanduser()
    content = read_json_file(path, "partition.path", "write row numbers of every client")
    if isinstance(content, dict) and "rows_sha256" in content:
        return _of_run(content, path, partition.key, num_clients, num_rows, rows_sha256)
    option = "data.sample" if data.sample is not None else "data.drop_empty=true" if data.drop_empty else None
    if option is not None:
        raise UserError(
            f"{path}: its row numbers are of all rows and {option} leaves some out; set data.sample=null and "
            "data.drop_empty=false, or give a run's partition.json"
        )
    split = _chosen(content, path, partition.key)
    names = sorted((name for name in split if name != UNASSIGNED), key=natural_order)
    _check_clients(names, path, num_clients)
    parts = {name: _row_numbers(split[name], f"{path}, {name}", num_rows) for name in names}
    _check_disjoint(parts, path)
    return FilePartition(rows=[parts[name] for name in names], test=None, names=names)


def _of_run(
    record: Mapping[str, Any], path: Path, key: str | None, num_clients: int, num_rows: int, rows_sha256: str
) -> FilePartition:
    """Return the partition of a run's own record."""
    if key is not None:
        raise UserError(f"partition.key={key}: {path} is a run's partition.json and holds one split; leave the key out")
    if record["rows_sha256"] != rows_sha256:
        told = f"{str(record.get('num_rows'))[:20]} of data.name={str(record.get('data'))[:40]}"
        raise UserError(
            f"{path} is of other rows ({told}) than this run's "
            f"{num_rows}; give the data options and, with data.sample, the seed of that run"
        )
    clients = record.get("clients")
    if not isinstance(clients, list) or not all(
        isinstance(client, dict) and {"train", "test"} <= client.keys() for client in clients
    ):
        raise UserError(f"{path}: its clients have no train and test rows; give the partition.json of a run")
    names = [f"client {client_id}" for client_id in range(len(clients))]
    _check_clients(names, path, num_clients)
    train = [_row_numbers(c["train"], f"{path}, {name}", num_rows) for name, c in zip(names, clients, strict=True)]
    test, validation = (
        [
            _row_numbers(client.get(part, []), f"{path}, {name}", num_rows, may_be_empty=True)
            for name, client in zip(names, clients, strict=True)
        ]
        for part in ("test", "validation")
    )
    held = [sorted([*own, *tested, *chosen]) for own, tested, chosen in zip(train, test, validation, strict=True)]
    _check_disjoint(dict(zip(names, held, strict=True)), path)
    own_names = [name if isinstance(name := client.get("name"), str) else "" for client in clients]
    return FilePartition(rows=held, test=test, validation=validation, names=own_names)


def _chosen(content: Any, path: Path, key: str | None) -> Split:
    """Return the split under the key, or the file's only one."""
    whole = _as_split(content)
    if whole is not None:
        if key is not None:
            raise UserError(f"partition.key={key}: {path} holds one split without a name; leave the key out")
        return whole
    values = content.items() if isinstance(content, dict) else ()
    splits = {name: split for name, value in values if (split := _as_split(value)) is not None}
    if not splits:
        raise UserError(
            f"partition.path={path}: no row numbers; write a list of lists, or an object with a list for each client"
        )
    if key is None and len(splits) > 1:
        raise UserError(f"partition.path={path}: several splits; choose partition.key={' or '.join(splits)}")
    if key is not None and key not in splits:
        raise UserError(f"partition.key={key}: not in {path}; valid values: {', '.join(splits)}")
    return splits[key or next(iter(splits))]


def _as_split(value: Any) -> Split | None:
    """Return lists of numbers by name, None where the value is something else."""
    if isinstance(value, list):
        value = {f"client {client_id}": part for client_id, part in enumerate(value)}
    if not isinstance(value, dict) or not value or not all(_is_part(part) for part in value.values()):
        return None
    return value


def _is_part(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(entry, list | dict) for entry in value)


def _check_clients(names: Sequence[str], path: Path, num_clients: int) -> None:
    if len(names) != num_clients:
        shown = ", ".join([*names[:4], *(["..."] if len(names) > 4 else [])])
        raise UserError(
            f"num_clients={num_clients}: {path} has {len(names)} clients ({shown}); set num_clients={len(names)}"
        )


def _row_numbers(part: Any, place: str, num_rows: int, *, may_be_empty: bool = False) -> list[int]:
    if not isinstance(part, list) or not (part or may_be_empty):
        raise UserError(f"{place}: no row numbers; every client needs some")
    for entry in part:
        if not isinstance(entry, int) or isinstance(entry, bool) or not 0 <= entry < num_rows:
            raise UserError(
                f"{place}: {shown(entry)} is not the number of a row; the data set as it is read has rows 0 to "
                f"{num_rows - 1}"
            )
    return sorted(part)


def _check_disjoint(parts: Mapping[str, Sequence[int]], path: Path) -> None:
    owners: dict[int, str] = {}
    for name, part in parts.items():
        for row in part:
            if row in owners:
                both = f"{owners[row]} and {name}" if owners[row] != name else f"{name} twice"
                raise UserError(f"{path}: row {row} belongs to {both}; a row is one client's, once")
            owners[row] = name
