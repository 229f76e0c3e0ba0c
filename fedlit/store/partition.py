"""partition.json: who holds which rows, as a run wrote it, and as readers may trust it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from fedlit.data.json_files import parse_json
from fedlit.errors import UserError

PARTITION = "partition.json"
_PART_LABELS = ("train_labels", "test_labels", "validation_labels")
_PART_SIZES = ("num_train", "num_test", "num_validation")


class DamagedPartition(UserError):
    """A run's partition.json is no JSON, or no object."""


def read_partition(folder: Path) -> dict[str, Any] | None:
    """Return what a run's partition.json holds (`fedlit.partition.shards.partition_record`); None if there is none.

    Raises:
        DamagedPartition: it is not what a run writes.
        UserError: there is a folder in its place.
    """
    path = folder / PARTITION
    if path.is_dir():
        raise UserError(f"{path} is a folder where a run keeps a file; move it away")
    if not path.is_file():
        return None
    remedy = "mend it, or take it away: the run's next start writes it anew"
    try:
        content = parse_json(path.read_bytes(), f"{folder} has a damaged {PARTITION}", remedy)
    except UserError as error:
        raise DamagedPartition(str(error)) from None
    if not _is_partition(content):
        raise DamagedPartition(f"{folder} has a damaged {PARTITION} (not what a run writes there); {remedy}")
    return cast(dict[str, Any], content)


def _is_partition(content: Any) -> bool:
    """Tell whether a reader may go through clients and their counts; a key that an older run lacks is no damage."""
    if not isinstance(content, dict) or not isinstance(content.get("heterogeneity", {}), dict):
        return False
    clients = content.get("clients", [])
    if not isinstance(clients, list) or not all(isinstance(client, dict) for client in clients):
        return False
    counts = [client.get(key, {}) for client in clients for key in _PART_LABELS]
    sizes = [client.get(key, 0) for client in clients for key in _PART_SIZES]
    numbers = [number for count in counts if isinstance(count, dict) for number in count.values()]
    whole = all(isinstance(count, dict) for count in counts) and all(type(each) is int for each in sizes + numbers)
    skews = content.get("heterogeneity", {}).values()
    return whole and all(skew is None or isinstance(skew, int | float) for skew in skews)


def same_shape(value: Any, like: Any) -> bool:
    """Tell whether JSON holds what it should, as far as names and types tell."""
    if type(value) is not type(like):
        return False
    if isinstance(like, dict):
        return all(key in value and same_shape(value[key], entry) for key, entry in like.items())
    if isinstance(like, list) and like:
        return all(same_shape(entry, model) for entry, model in zip(value, like, strict=False))
    return True


def without_names(partition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a partition without its clients' names: folders of older versions have none, and are not damaged."""
    clients = [
        {key: value for key, value in client.items() if key not in ("name", "values")}
        for client in partition.get("clients", ())
    ]
    return {**partition, **({"clients": clients} if clients else {})}
