"""Where the rows come from: a local JSON Lines file, the Hugging Face hub or a reader inside the package.

Every row is checked as it is read, before a model is loaded, so that a mistake in line 16,000 shows at once.
"""

import difflib
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlit.config.schema import DataConfig
from fedlit.data.prompts import Row, template_columns
from fedlit.data.pydoc import read_rows
from fedlit.errors import UserError
from fedlit.seeding import numpy_generator

Record = tuple[str, Any]  # (the place to name in an error, what stands there)


def load_rows(config: DataConfig, seed: int) -> list[Row]:
    """Return the rows of a data set in their original order, each with every column that the configuration needs.

    Template columns hold strings, null counts as blank; the response is a string that is not blank. `config.sample`
    rows are drawn in proportion to the labels, from the stream (seed, "sample").

    Raises:
        UserError: file, line, column or option that is wrong, and what to do about it.
    """
    texts = _text_columns(config)
    source, records = _open_source(config)
    rows: list[Row] = []
    num_read = 0
    for place, record in records:
        num_read += 1
        row = _checked(record, place, config, texts)
        if row is not None:
            rows.append(row)
    if not num_read:
        raise UserError(f"{source}: no rows; check data.path or data.hub_split")
    if not rows:
        raise UserError(f"{source}: all {num_read} rows have an empty {config.response!r}; check data.response")
    if config.sample is None:
        return rows
    return [rows[i] for i in _sample(rows, config, seed, source)]


def column_values(rows: Sequence[Row], column: str, key: str) -> list[str]:
    """Return one column of every row as text; `key` is the option that named the column.

    Raises:
        UserError: a row lacks the column, or has null or blank or no plain value there.
    """
    return [_label_text(row, column, f"row {i}", key) for i, row in enumerate(rows)]


def _text_columns(config: DataConfig) -> dict[str, str]:
    """Map every column that holds text in a row to the option that asks for it."""
    columns = dict.fromkeys(template_columns(config.template), "data.template")
    return columns | dict.fromkeys(config.required, "data.required") | {config.response: "data.response"}


def _checked(record: Any, place: str, config: DataConfig, texts: Mapping[str, str]) -> Row | None:
    """Return the row, or None if it is left out for its empty response."""
    if not isinstance(record, dict):
        raise UserError(f'{place}: {type(record).__name__}, not an object; write each row as {{"column": value, ...}}')
    row = dict(record)
    for column, key in texts.items():
        _require_column(row, column, place, key)
        if row[column] is None:
            row[column] = ""
        if not isinstance(row[column], str):
            raise UserError(
                f"{place}: column {column!r} ({key}) holds {row[column]!r}, not a string; write it as a string"
            )
    if not row[config.response].strip():
        if config.drop_empty:
            return None
        raise UserError(
            f"{place}: column {config.response!r} (data.response) is empty; fill it in, "
            "or leave such rows out with data.drop_empty=true"
        )
    for column in config.required:
        if not row[column].strip():
            raise UserError(f"{place}: column {column!r} is blank; fill it in or take it off data.required")
    if config.label is not None:
        _label_text(row, config.label, place, "data.label")
    return row


def _require_column(row: Row, column: str, place: str, key: str) -> None:
    if column not in row:
        columns = [str(name) for name in row]
        close = difflib.get_close_matches(column, columns, n=1, cutoff=0.0)
        nearest = f"; the nearest is {close[0]!r}" if close else ""
        raise UserError(f"{place}: no column {column!r} (asked for by {key}) among {columns}{nearest}")


def _label_text(row: Row, column: str, place: str, key: str) -> str:
    _require_column(row, column, place, key)
    value = row[column]
    if not isinstance(value, (str, int, float)) or not str(value).strip():
        raise UserError(
            f"{place}: column {column!r} ({key}) holds {value!r}, not a label; fill it in or choose another {key}"
        )
    return str(value)


def _open_source(config: DataConfig) -> tuple[str, Iterator[Record]]:
    """Return the name of the source, for errors, and its records."""
    readers: dict[str, Callable[[DataConfig], tuple[str, Iterator[Record]]]] = {
        "pydoc": _open_pydoc,
        "jsonl": _open_jsonl,
        "hub": _open_hub,
    }
    if config.source not in readers:
        raise UserError(f"data.source={config.source}: not a source; choose one of {', '.join(readers)}")
    return readers["jsonl" if config.path is not None else config.source](config)


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
        dataset = datasets.load_dataset(config.hub_id, split=config.hub_split)
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
