"""What the images of a folder show, by a file beside them: the form of the Hugging Face library's ImageFolder.

`metadata.csv`, `metadata.jsonl` or `metadata.parquet` has a row for each image, with its file in the column
`file_name`, seen from the folder of the metadata file; all other columns are columns of the row.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedlit.data.image_layouts import is_image, visible
from fedlit.data.images import reason
from fedlit.data.json_files import read_json_lines, require_no_pointer
from fedlit.data.values import shown
from fedlit.errors import UserError

FILE = "file_name"
"""Column with the path of the image."""

_INTEGER = re.compile("-?(0|[1-9][0-9]{0,17})", re.ASCII)
_MAX_FIELD = 2**24  # characters of one value in a CSV file


def described_images(
    path: Path, target: str, classes: dict[str, list[str]] | None = None
) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Yield of every row of a metadata file its place, its image and its other columns. Images of no row are passed
    over.

    In a .csv file, which has no types, all cells are texts but those of the column `target` where every row has a whole
    number there. Of a parquet file whose features are those of the library `datasets` a class has its name; `classes`,
    if given, takes these names by column, and without it classes stay numbers.

    Raises:
        UserError: the file cannot be read, has no column `file_name`, or names an image that is not there.
    """
    readers: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
        ".csv": lambda: _read_csv(path, target),
        ".jsonl": lambda: read_json_lines(path),
        ".parquet": lambda: _read_parquet(path, classes),
    }
    for place, row in readers[path.suffix]():
        if not isinstance(row, dict):
            raise UserError(f"{place}: {shown(row)}, not an object; write one object per line")
        if FILE not in row:
            raise UserError(f"{place}: no column {FILE!r} among {list(row)}; name so the column with the images' files")
        name = row[FILE]
        file = path.parent / name if isinstance(name, str) and name else None
        if file is None or not file.is_file():
            raise UserError(f"{place}: {FILE} is {shown(name)}, no file in {path.parent}; {_remedy(path.parent, name)}")
        yield place, file, {column: value for column, value in row.items() if column != FILE}


def _remedy(folder: Path, name: Any) -> str:
    """Return what to do about an image that is not there."""
    images = [entry.name for entry in visible(folder) if is_image(entry)]
    if isinstance(name, str) and (whole := next((image for image in images if Path(image).stem == name), None)):
        return f"write the name with its ending, {whole}"
    return "write it as seen from the metadata file, or take the row out"


def _read_csv(path: Path, target: str) -> Iterator[tuple[str, dict[str, Any]]]:
    lines: list[tuple[int, list[str]]] = []
    before = csv.field_size_limit(_MAX_FIELD)
    try:
        require_no_pointer(path, str(path))
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, fields) for fields in reader if fields]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({reason(error)}); save it as UTF-8 with commas") from error
    finally:
        csv.field_size_limit(before)
    if not lines:
        raise UserError(f"{path}: empty; write a line of names, {FILE} among them, and a line for each image")
    (_, names), *rows = lines
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise UserError(f"{path}: two columns are named {shown(twice)}; rename one")
    for number, fields in rows:
        if len(fields) != len(names):
            raise UserError(
                f"{path}, line {number}: {len(fields)} values for {len(names)} columns; quote values with commas"
            )
    columns = [list(column) for column in zip(*(fields for _, fields in rows), strict=True)]
    typed = [_typed(column) if name == target else column for name, column in zip(names, columns, strict=False)]
    for (number, _), values in zip(rows, zip(*typed, strict=True), strict=True):
        yield f"{path}, line {number}", dict(zip(names, values, strict=True))


def _typed(column: list[str]) -> list[Any]:
    """Return a column of whole numbers, spelled as Python spells them, as integers; another as it is."""
    return [int(text) for text in column] if all(map(_INTEGER.fullmatch, column)) else column


def _read_parquet(path: Path, classes: dict[str, list[str]] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets  # noqa: PLC0415 (slow, and needed for this form only)
    import pyarrow.parquet  # noqa: PLC0415  as above

    try:
        require_no_pointer(path, str(path))
        table = pyarrow.parquet.read_table(path)
        features = datasets.Features.from_arrow_schema(table.schema)
    except UserError:
        raise
    except Exception as error:  # a broken file fails in many ways
        raise UserError(f"{path}: cannot be read as a parquet file ({reason(error)}); fetch it again") from error
    names: dict[str, list[str]] = {}
    if classes is not None:
        names = {name: kind.names for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
        classes |= {name: own for name, own in names.items() if name not in classes}
    for number, row in enumerate(table.to_pylist()):
        place = f"{path}, row {number}"
        yield place, {column: _named(value, names.get(column), place) for column, value in row.items()}


def _named(value: Any, names: list[str] | None, place: str) -> Any:
    """Return the name of a class, -1 and nothing as they are: an unlabelled row is told of by the check of classes."""
    if names is None or not isinstance(value, int) or value < 0:
        return value
    if value >= len(names):
        raise UserError(f"{place}: class {value}, and the file names {len(names)}; mend the file")
    return names[value]
