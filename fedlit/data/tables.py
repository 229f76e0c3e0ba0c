"""Local tables, each read by its ending: the rows of all files, one after the other."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import IO

from fedlit.data.arrow_files import read_arrow, read_dataset, read_parquet
from fedlit.data.csv_files import decoded, number_targets, read_csv
from fedlit.data.json_files import read_json_lines, require_no_pointer
from fedlit.data.json_tables import read_json_table
from fedlit.data.opened import compression, members, opened, told
from fedlit.data.places import Place
from fedlit.data.table_forms import ENDINGS, other_kind
from fedlit.data.table_paths import TableFile, is_dataset
from fedlit.data.text_files import read_text
from fedlit.data.wanted import Record, Wanted
from fedlit.errors import UserError


def read_tables(files: Sequence[TableFile], wanted: Wanted) -> Iterator[Record]:
    """Yield the rows of the files in their order, each with its place.

    Raises:
        UserError: the file, and the line or row, that is wrong; or, of several files, one without rows.
    """
    files = [_member(file, wanted) for file in files]
    texts = {i: _cells(file, wanted) for i, file in enumerate(files) if file.form in ("csv", "tsv")}
    number_targets(list(texts.values()), wanted)
    for i, file in enumerate(files):
        is_empty = True
        for record in texts.pop(i) if i in texts else _read(file, wanted):
            is_empty = False
            yield record
        if is_empty and len(files) > 1:
            raise UserError(f"{wanted.key}: {file} among {len(files)} files has no rows; take it out")


def _member(file: TableFile, wanted: Wanted) -> TableFile:
    """Return a file with the name of its member if it is a zip archive."""
    if not file.in_archive:
        return file
    with told(file.path, f"{wanted.key}={file.path}"):
        require_no_pointer(file.path, f"{wanted.key}={file.path}")
        names = members(file.path)
    if file.part is None and len(names) == 1:
        return replace(file, part=names[0])
    if file.part not in names:
        some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        fact = f"holds {len(names)} files ({some or 'none'})" + (f", none of them {file.part}" if file.part else "")
        one = f"name one, as {wanted.key}='{file.path}#{names[0]}', or unpack it" if names else "give another"
        raise UserError(f"{wanted.key}={file.path}: {fact}; {one}")
    return file


def _read(file: TableFile, wanted: Wanted) -> Iterator[Record]:
    where = f"{wanted.key}={file}"
    if is_dataset(file.path):
        yield from read_dataset(file, wanted)
    elif file.form == "lines":
        for place, value in read_json_lines(file.path, wanted.key, file.part if file.in_archive else None):
            yield Place(place, file.name), value
    elif file.form == "parquet":
        with _opened(file, where) as content:
            yield from read_parquet(io.BytesIO(content.read()) if compression(file.path) else content, file, wanted)
    elif file.form in ("json", "arrow", "text"):
        with _opened(file, where) as content:
            whole = content.read()
        if file.form == "json":
            yield from read_json_table(whole, file, wanted)
        elif file.form == "arrow":
            yield from read_arrow(whole, file, wanted)
        else:
            yield from read_text(decoded(whole, str(file)), str(file), file.name, wanted)
    else:
        raise _no_table(file, wanted)


def _cells(file: TableFile, wanted: Wanted) -> list[Record]:
    with _opened(file, f"{wanted.key}={file}") as content:
        text = decoded(content.read(), str(file))
    return read_csv(text, str(file), file.name, wanted, tabs=file.form == "tsv")


@contextmanager
def _opened(file: TableFile, where: str) -> Iterator[IO[bytes]]:
    with told(file.path, where):
        require_no_pointer(file.path, where)
        with opened(file.path, file.part if file.in_archive else None) as content:
            yield content


def _no_table(file: TableFile, wanted: Wanted) -> UserError:
    name = file.part if file.in_archive and file.part else file.path.name
    what = other_kind(name) or f"no table by its ending; give {ENDINGS}, compressed or not"
    return UserError(f"{wanted.key}={file}: {what}")
