"""Where the rows come from: a local JSON Lines file, the Hugging Face hub or a reader inside the package.

Every row is checked as it is read, before a model is loaded, so that a mistake in line 16,000 shows at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedlit.config.schema import DataConfig
from fedlit.data import pydoc
from fedlit.data.columns import column_values
from fedlit.data.hub import open_hub
from fedlit.data.image_sources import open_digits, open_images
from fedlit.data.json_files import read_json_lines
from fedlit.data.paths import given_paths
from fedlit.data.places import file_of
from fedlit.data.prompts import Row
from fedlit.data.reader import Reader
from fedlit.errors import UserError
from fedlit.registry import build_part, registered
from fedlit.seeding import numpy_generator
from fedlit.tasks.registry import task_spec

Record = tuple[str, Any]  # (the place to name in an error, what stands there)


@dataclass(frozen=True, kw_only=True)
class ReadRows:
    """All rows of a data set, in order.

    files: of every row, the name of its file as a client's under `partition.name=files`; none if there are no files.
    """

    rows: list[Row]
    files: tuple[str, ...] = ()


def read_rows(config: DataConfig) -> list[Row]:
    """Return the rows of `read_data`."""
    return read_data(config).rows


def read_data(config: DataConfig, *, by_file: bool = False) -> ReadRows:
    """Return all rows of a data set in their original order, each with every column that the configuration needs.

    See the `check` of the task's spec for what they hold. by_file: each file, or folder of images, is a client's.

    Raises:
        UserError: file, line, column or option that is wrong, and what to do about it.
    """
    task_spec(config.task).columns(config)  # a template that is none is told before a file is read
    rows, places = _checked_rows(*_open_source(config, by_file=by_file), config)
    files = tuple(map(file_of, places))
    return ReadRows(rows=rows, files=files if all(files) else ())


def sample_rows(rows: Sequence[Row], config: DataConfig, seed: int) -> list[Row]:
    """Return `config.sample` of the rows, drawn in proportion to the labels from the stream (seed, "sample"), or all.

    Raises:
        UserError: there are not so many, or a label is none.
    """
    return [rows[i] for i in sample_numbers(rows, config, seed)]


def sample_numbers(rows: Sequence[Row], config: DataConfig, seed: int) -> Sequence[int]:
    """Return the numbers of the rows of `sample_rows`, ascending."""
    return range(len(rows)) if config.sample is None else _sample(rows, config, seed)


def load_rows(config: DataConfig, seed: int) -> list[Row]:
    """Return the rows of a data set that take part: all of `read_rows`, or a sample of them.

    Raises:
        UserError: as `read_rows` and `sample_rows`.
    """
    return sample_rows(read_rows(config), config, seed)


def load_test_rows(config: DataConfig, classes: Sequence[str] = ()) -> list[Row]:
    """Return the rows of the data set's own test set, none if it has none.

    `classes` are those of the training rows, which alone say what there is to predict; without them a row's class is
    held against `data.classes` at most.

    Raises:
        UserError: as `read_rows`, or a class that is none of `classes`, or the split that is trained on.
    """
    if config.source in registered("reader") and registered("reader")[config.source].has_test_rows:
        source, records = _open_outside(config, test=True)
        return _checked_test_rows(source, records, config, classes)
    if config.test_path is None and (config.hub_test_split is None or config.path is not None):
        return []
    test = replace(config, path=config.test_path, hub_split=config.hub_test_split or config.hub_split)
    if config.hub_test_id is not None:
        test = replace(test, hub_id=config.hub_test_id, hub_config=config.hub_test_config)
    if test.path == config.path and (test.path is not None or test == config):
        what = "data.hub_test_split" if test.path is None else "data.test_path"
        raise UserError(
            f"{what}={test.path or config.hub_test_split}: the rows that are trained on; give others, or {what}=null "
            "to test on a part of every client's rows"
        )
    source, records = _open_source(test, "data.test_path")
    return _checked_test_rows(source, records, config, classes)


def _checked_test_rows(source: str, records: Iterable[Record], config: DataConfig, classes: Sequence[str]) -> list[Row]:
    # The partition's label is of no use in a test set, which may lack it; and it has no further test set.
    of_test = replace(config, label=None, test_path=None, hub_test_split=None)
    rows, places = _checked_rows(source, _renamed(records, config), of_test)
    task_spec(config.task).check_test_rows(rows, places, classes, config)
    return rows


def _other_names(config: DataConfig) -> list[tuple[str, str]]:
    """Return the columns that the test set calls otherwise, as pairs (here, there)."""
    names: list[tuple[str, str]] = []
    for entry in config.test_columns:
        here, equals, there = entry.partition("=")
        if not (here and equals and there):
            raise UserError(
                f"data.test_columns={config.test_columns}: {entry!r} is no pair of names; write <here>=<there>"
            )
        names.append((here, there))
    return names


def _renamed(records: Iterable[Record], config: DataConfig) -> Iterator[Record]:
    """Yield the records of the test set with the names of the training set's columns."""
    names = _other_names(config)
    for place, record in records:
        renamed = record
        if isinstance(record, Mapping):
            renamed = dict(record)
            for here, there in names:
                if there not in record:
                    raise UserError(
                        f"{place}: no column {there!r} (asked for by data.test_columns) among {list(record)}"
                    )
                renamed[here] = record[there]
        yield place, renamed


def _checked_rows(source: str, records: Iterable[Record], config: DataConfig) -> tuple[list[Row], list[str]]:
    """Return the rows and the place of each."""
    spec = task_spec(config.task)
    rows: list[Row] = []
    places: list[str] = []
    num_read = 0
    for place, record in records:
        num_read += 1
        row = spec.check_row(record, place, config)
        if row is not None:
            rows.append(row)
            places.append(place)
    if not num_read:
        raise UserError(f"{source}: no rows; check data.path or data.hub_split")
    if not rows:
        raise UserError(f"{source}: all {num_read} rows have an empty {config.response!r}; check data.response")
    return rows, places


def _open_source(config: DataConfig, key: str = "data.path", *, by_file: bool = False) -> tuple[str, Iterator[Record]]:
    """Return the name of the source, for errors, and its records; `key` is the option that named a local file."""
    if config.source in registered("reader"):
        return _open_outside(config)
    spec = task_spec(config.task)
    readers: dict[str, Callable[[], tuple[str, Iterator[Record]]]] = {
        "pydoc": _open_pydoc,
        "digits": lambda: open_digits(config),
        "table": lambda: _open_jsonl(config, key),
        "jsonl": lambda: _open_jsonl(config, key),
        "images": lambda: open_images(config, key, by_file=by_file),
        "hub": lambda: open_hub(config, [*spec.read_columns(config), *(there for _, there in _other_names(config))]),
    }
    if config.source not in readers:
        raise UserError(f"data.source={config.source}: not a source; choose one of {', '.join(readers)}")
    return readers[config.source if config.path is None else spec.local_source]()


def _open_jsonl(config: DataConfig, key: str) -> tuple[str, Iterator[Record]]:
    if config.path is None:
        raise UserError("data.source=jsonl without a file; give data.path=<file>.jsonl or <file>.jsonl.gz")
    place = given_paths(config.path)[0]
    return place, _read_jsonl(Path(place).expanduser(), key)


def _open_outside(config: DataConfig, *, test: bool = False) -> tuple[str, Iterator[Record]]:
    """Return the rows of a reader from outside."""
    reader: Reader = build_part("reader", config.source, config.source_options)
    rows, which = (reader.test_rows(config), "test row") if test else (reader.rows(config), "row")
    if not isinstance(rows, Iterable) or isinstance(rows, str | Mapping):
        raise UserError(
            f"data.source={config.source}: {type(reader).__name__} returns {type(rows).__name__}, no rows; return a "
            "list of mappings from column to value"
        )
    return config.source, ((f"{config.source}, {which} {i}", row) for i, row in enumerate(rows))


def _open_pydoc() -> tuple[str, Iterator[Record]]:
    return "pydoc", ((f"pydoc, row {i}", row) for i, row in enumerate(pydoc.read_rows()))


def _read_jsonl(path: Path, key: str) -> Iterator[Record]:
    """Yield the objects of a .jsonl or .jsonl.gz file with their line numbers from 1."""
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if file.name.endswith((".jsonl", ".jsonl.gz")))
        shown = f" (it has {', '.join(files[:3])})" if files else ""
        raise UserError(
            f"{key}={path}: a folder, and one file is read; give a file in it{shown}, with data.path= for training and "
            "data.test_path= for a test set"
        )
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"{key}={path}: not a .jsonl or .jsonl.gz file; write one JSON object per line")
    yield from read_json_lines(path, key)


def _sample(rows: Sequence[Row], config: DataConfig, seed: int) -> list[int]:
    """Draw `config.sample` row numbers in proportion to the labels, in ascending order.

    Shares are made whole by largest remainder, in integers: a label gets floor(count * n / N) rows, and the largest
    remainders get one more until there are n. No label is asked for more rows than it has.
    """
    assert config.sample is not None
    num = config.sample
    if not 1 <= num <= len(rows):
        raise UserError(
            f"data.sample={num}: {config.path or config.hub_id or config.source} has {len(rows)} rows; "
            f"choose 1 to {len(rows)}, or null for all"
        )
    labels = [""] * len(rows) if config.label is None else column_values(rows, config.label, "data.label")
    members: dict[str, list[int]] = {label: [] for label in sorted(set(labels))}
    for i, label in enumerate(labels):
        members[label].append(i)
    shares = {label: divmod(len(numbers) * num, len(rows)) for label, numbers in members.items()}
    num_missing = num - sum(share for share, _ in shares.values())
    largest = set(sorted(shares, key=lambda label: (-shares[label][1], label))[:num_missing])
    rng = numpy_generator(seed, "sample")
    chosen: list[int] = []
    for label, numbers in members.items():
        chosen.extend(rng.choice(numbers, size=shares[label][0] + (label in largest), replace=False).tolist())
    return sorted(chosen)
