"""Parquet, Arrow, Feather and folders of `save_to_disk`: types as they are stored, classes by their names."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from fedlit.data.images import reason
from fedlit.data.places import Place
from fedlit.data.table_paths import TableFile
from fedlit.data.wanted import Record, Wanted, with_names
from fedlit.errors import UserError

_NUM_ROWS = 1024
"""Of what is held as Python's values at a time."""


def read_parquet(content: IO[bytes], file: TableFile, wanted: Wanted) -> Iterator[Record]:
    """Yield the rows of a parquet file, numbers from 0; UserError if it is none."""
    import pyarrow.parquet as pq  # noqa: PLC0415  a tenth of a second, for files that need it

    try:
        table = pq.ParquetFile(content)
        schema, batches = table.schema_arrow, table.iter_batches(batch_size=_NUM_ROWS)
    except Exception as error:  # damaged files fail in many ways
        raise _broken(file, wanted, "parquet", error) from error
    yield from _rows(schema, batches, file, wanted)


def read_arrow(content: bytes, file: TableFile, wanted: Wanted) -> Iterator[Record]:
    """Yield the rows of an Arrow file or stream, or of Feather; UserError if it is none."""
    import pyarrow as pa  # noqa: PLC0415  as above
    from pyarrow import feather  # noqa: PLC0415

    try:
        data, start = pa.BufferReader(content), content[:4]
        if start == b"FEA1":
            table = feather.read_table(data)
        else:
            table = (pa.ipc.open_file if start == b"ARRO" else pa.ipc.open_stream)(data).read_all()
    except Exception as error:  # as above
        raise _broken(file, wanted, "Arrow", error) from error
    yield from _rows(table.schema, table.to_batches(max_chunksize=_NUM_ROWS), file, wanted)


def read_dataset(file: TableFile, wanted: Wanted) -> Iterator[Record]:
    """Yield the rows of a folder that `Dataset.save_to_disk` has written; UserError if it is broken."""
    import datasets  # noqa: PLC0415  slow, and needed for such folders only

    try:
        dataset = datasets.load_from_disk(str(file.path)).with_format("arrow")
        batches = (batch for table in dataset.iter(_NUM_ROWS) for batch in table.to_batches())
    except Exception as error:  # as above
        raise _broken(file, wanted, "data set of save_to_disk", error) from error
    yield from _rows(dataset.features.arrow_schema, batches, file, wanted)


def class_names_of(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return the names of the classes by column, as `datasets` writes them beside a schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _rows(schema: Any, batches: Iterable[Any], file: TableFile, wanted: Wanted) -> Iterator[Record]:
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{wanted.key}={file}: two columns are called {twice!r}; rename one")
    yield from with_names(_records(batches, file, wanted), wanted.kept(class_names_of(schema.metadata)))


def _records(batches: Iterable[Any], file: TableFile, wanted: Wanted) -> Iterator[Record]:
    number = 0
    try:
        for batch in batches:
            for row in batch.to_pylist():
                yield Place(f"{file}, row {number}", file.name), row
                number += 1
    except (UserError, GeneratorExit):
        raise
    except Exception as error:
        raise _broken(file, wanted, f"table after row {number}", error) from error


def _broken(file: TableFile, wanted: Wanted, what: str, error: Exception) -> UserError:
    if Path(file.path).is_file() and not Path(file.path).stat().st_size:
        return UserError(f"{wanted.key}={file}: an empty file; fetch or write it again")
    return UserError(f"{wanted.key}={file}: cannot be read as {what} ({reason(error)}); fetch or write it again")
