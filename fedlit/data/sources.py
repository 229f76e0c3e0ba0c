"""Where the rows come from: a local JSON Lines file, the Hugging Face hub or a reader inside the package.

Every row is checked as it is read, before a model is loaded, so that a mistake in line 16,000 shows at once.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlit.config.schema import DataConfig
from fedlit.data.columns import column_values
from fedlit.data.images import open_digits, open_images
from fedlit.data.prompts import Row
from fedlit.data.pydoc import read_rows
from fedlit.errors import UserError
from fedlit.seeding import numpy_generator
from fedlit.tasks.registry import task_spec

Record = tuple[str, Any]  # (the place to name in an error, what stands there)


def load_rows(config: DataConfig, seed: int) -> list[Row]:
    """Return the rows of a data set in their original order, each with every column that the configuration needs.

    See the `check` of the task's spec for what they hold. `config.sample` rows are drawn in proportion to the labels,
    from the stream (seed, "sample").

    Raises:
        UserError: file, line, column or option that is wrong, and what to do about it.
    """
    task_spec(config.task).columns(config)  # a template that is none is told before a file is read
    source, records = _open_source(config)
    rows = _checked_rows(source, records, config)
    if config.sample is None:
        return rows
    return [rows[i] for i in _sample(rows, config, seed, source)]


def load_test_rows(config: DataConfig) -> list[Row]:
    """Return the rows of the data set's own test set, none if it has none.

    Raises:
        UserError: as load_rows.
    """
    if config.test_path is None and (config.hub_test_split is None or config.path is not None):
        return []
    test = replace(config, path=config.test_path, hub_split=config.hub_test_split or config.hub_split)
    if config.hub_test_id is not None:
        test = replace(test, hub_id=config.hub_test_id, hub_config=config.hub_test_config)
    source, records = _open_source(test)
    # The partition's label is of no use in a test set, which may lack it; and it has no further test set.
    of_test = replace(config, label=None, test_path=None, hub_test_split=None)
    return _checked_rows(source, _renamed(records, config), of_test)


def _renamed(records: Iterable[Record], config: DataConfig) -> Iterator[Record]:
    """Yield the records of the test set with the names of the training set's columns."""
    names: list[tuple[str, str]] = []
    for entry in config.test_columns:
        here, equals, there = entry.partition("=")
        if not (here and equals and there):
            raise UserError(
                f"data.test_columns={config.test_columns}: {entry!r} is no pair of names; write <here>=<there>"
            )
        names.append((here, there))
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


def _checked_rows(source: str, records: Iterable[Record], config: DataConfig) -> list[Row]:
    spec = task_spec(config.task)
    rows: list[Row] = []
    num_read = 0
    for place, record in records:
        num_read += 1
        row = spec.check_row(record, place, config)
        if row is not None:
            rows.append(row)
    if not num_read:
        raise UserError(f"{source}: no rows; check data.path or data.hub_split")
    if not rows:
        raise UserError(f"{source}: all {num_read} rows have an empty {config.response!r}; check data.response")
    return rows


def _open_source(config: DataConfig) -> tuple[str, Iterator[Record]]:
    """Return the name of the source, for errors, and its records."""
    readers: dict[str, Callable[[DataConfig], tuple[str, Iterator[Record]]]] = {
        "pydoc": _open_pydoc,
        "digits": open_digits,
        "jsonl": _open_jsonl,
        "images": open_images,
        "hub": _open_hub,
    }
    if config.source not in readers:
        raise UserError(f"data.source={config.source}: not a source; choose one of {', '.join(readers)}")
    source = config.source if config.path is None else task_spec(config.task).local_source
    return readers[source](config)


def _open_jsonl(config: DataConfig) -> tuple[str, Iterator[Record]]:
    if config.path is None:
        raise UserError("data.source=jsonl without a file; give data.path=<file>.jsonl or <file>.jsonl.gz")
    return config.path, _read_jsonl(Path(config.path).expanduser())


def _open_pydoc(config: DataConfig) -> tuple[str, Iterator[Record]]:
    return "pydoc", _numbered("pydoc", read_rows())


def _open_hub(config: DataConfig) -> tuple[str, Iterator[Record]]:
    if config.hub_id is None:
        raise UserError("data.source=hub without a data set; give data.hub_id=<owner/name>, or data.path=<local file>")
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
    return source, _numbered(source, dataset)


def _numbered(source: str, records: Iterable[Any]) -> Iterator[Record]:
    for i, record in enumerate(records):
        yield f"{source}, row {i}", record


def _read_jsonl(path: Path) -> Iterator[Record]:
    """Yield the objects of a .jsonl or .jsonl.gz file with their line numbers from 1; blank lines are passed over."""
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"data.path={path}: not a .jsonl or .jsonl.gz file; write one JSON object per line")
    line_idx = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line_idx, line in enumerate(file, start=1):
                place = f"{path}, line {line_idx}"
                if line.strip():
                    yield place, _parse(line, place)
    except FileNotFoundError as error:
        raise UserError(f"data.path={path}: no such file; check the path") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: broken gzip file after line {line_idx} ({error}); fetch or write it again") from error
    except OSError as error:
        raise UserError(f"data.path={path}: {error.strerror}; check the path") from error


def _parse(line: bytes, place: str) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))  # -sig: some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not UTF-8 ({error.reason}, byte {error.start}); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON ({error.msg}, column {error.colno}); write one object per line") from error
    except ValueError as error:
        raise UserError(f"{place}: not JSON ({error}); write one object per line") from error


def _sample(rows: Sequence[Row], config: DataConfig, seed: int, source: str) -> list[int]:
    """Draw `config.sample` row numbers in proportion to the labels, in ascending order.

    Shares are made whole by largest remainder, in integers: a label gets floor(count * n / N) rows, and the largest
    remainders get one more until there are n. No label is asked for more rows than it has.
    """
    assert config.sample is not None
    num = config.sample
    if not 1 <= num <= len(rows):
        raise UserError(f"data.sample={num}: {source} has {len(rows)} rows; choose 1 to {len(rows)}, or null for all")
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
