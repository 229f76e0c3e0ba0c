"""Rows of the Hugging Face hub, or of a folder in its form, by the library `datasets`.

Its reader of JSON takes a column whose first texts look like dates for timestamps, and how they were written is lost.
Such a column is read once more, from the file as it was fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlit.data.json_files import parse_json, read_json_lines
from fedlit.data.places import Place
from fedlit.data.wanted import Record, Wanted, with_names
from fedlit.errors import UserError

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig


def open_hub(config: DataConfig, wanted: Wanted) -> tuple[str, Iterator[Record]]:
    """Return the name of a hub data set's split, for errors, and its records, of all configurations that are named.

    Numbers of classes become names in the columns `wanted.named`, where the data set has names.

    Raises:
        UserError: there is no such data set or split, or no network to fetch it.
    """
    if config.hub_id is None:
        raise UserError("data.source=hub without a data set; give data.hub_id=<owner/name>, or data.path=<local file>")
    if not isinstance(config.hub_config, list):
        return _open_one(config, wanted)
    twice = next((name for name in config.hub_config if config.hub_config.count(name) > 1), None)
    if twice is not None or not config.hub_config:
        fact = "names none" if twice is None else f"names {twice} twice"
        raise UserError(f"data.hub_config={config.hub_config}: {fact}; name each configuration once")
    parts = {name: _open_one(replace(config, hub_config=name), wanted) for name in config.hub_config}
    return ", ".join(source for source, _ in parts.values()), (
        (Place(place, name), record) for name, (_, records) in parts.items() for place, record in records
    )


def _open_one(config: DataConfig, wanted: Wanted) -> tuple[str, Iterator[Record]]:
    """Return the name and the records of one configuration's split."""
    import datasets  # noqa: PLC0415 (slow, and needed for this source only)

    source = f"{config.hub_id}[{config.hub_split}]"
    try:
        dataset = datasets.load_dataset(config.hub_id, config.hub_config, split=config.hub_split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        fact = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"data.hub_id={config.hub_id}, data.hub_split={config.hub_split}: {fact}; "
            "check the name and the network, or give a local file with data.path=<file>.jsonl"
        ) from error
    kinds = {name: str(getattr(dataset.features.get(name), "dtype", "")) for name in wanted.columns}
    dates = [name for name, kind in kinds.items() if kind.startswith("timestamp")]
    paths = _json_files(config) if dates else []
    records = _as_written(dataset, dates, paths) if paths else dataset
    classes = {name: kind.names for name, kind in dataset.features.items() if isinstance(kind, datasets.ClassLabel)}
    numbered = ((f"{source}, row {i}", record) for i, record in enumerate(records))
    return source, with_names(numbered, wanted.kept(classes))


def _json_files(config: DataConfig) -> list[Path]:
    """Return the files of a split that was read from JSON, as they were fetched; none where they are not there."""
    import datasets  # noqa: PLC0415  as above
    from datasets.packaged_modules.json.json import Json  # noqa: PLC0415

    try:
        builder = datasets.load_dataset_builder(config.hub_id, config.hub_config)
        files = (builder.config.data_files or {}).get(config.hub_split, [])
        if not isinstance(builder, Json) or builder.config.field is not None:
            return []
        return [Path(path) for path in datasets.DownloadManager().download_and_extract(list(files))]
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError):
        return []  # without the network, say: the row's check then tells of a date


def _as_written(dataset: Any, columns: Sequence[str], paths: Sequence[Path]) -> Iterator[Any]:
    """Yield the rows with the named columns as their files have them, or as they are if the files have other rows."""
    num_rows = sum(1 for path in paths for _ in _values(path))
    if num_rows != len(dataset):
        yield from dataset
        return
    written = (value for path in paths for value in _values(path))
    for record, original in zip(dataset, written, strict=True):
        yield record | {name: original.get(name) for name in columns}


def _values(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON file: one a line, or one list of them."""
    with path.open("rb") as file:
        is_list = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    if is_list:
        yield from parse_json(path.read_bytes(), str(path), "write a list of objects")
        return
    for _, value in read_json_lines(path, "data.hub_id"):
        yield value
