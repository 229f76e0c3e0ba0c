"""What the images of a folder show, by a file beside them: the form of the Hugging Face library's ImageFolder.

`metadata.csv`, `metadata.jsonl` or `metadata.parquet` has a row for each image, with its file in the column
`file_name`, seen from the folder of the metadata file; all other columns are columns of the row.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedlit.data.image_layouts import is_image, visible
from fedlit.data.table_paths import TableFile
from fedlit.data.tables import read_tables
from fedlit.data.values import shown
from fedlit.data.wanted import Wanted
from fedlit.errors import UserError

FILE = "file_name"
"""Column with the path of the image."""


def described_images(
    path: Path, target: str, classes: dict[str, list[str]] | None = None
) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Yield of every row of a metadata file its place, its image and its other columns. Images of no row are passed
    over.

    They are read as any table is. Of a parquet file whose features are those of the library `datasets` a class has its
    name; `classes`, if given, takes these names by column, and without it classes stay numbers.

    Raises:
        UserError: the file cannot be read, has no column `file_name`, or names an image that is not there.
    """
    wanted = Wanted(
        columns=(FILE, target),
        target=target,
        named=() if classes is None else (target,),
        tell=lambda _line: None,
        names={} if classes is None else classes,
    )
    num_rows = 0
    for place, row in read_tables([TableFile(path=path)], wanted):
        num_rows += 1
        if not isinstance(row, dict):
            raise UserError(f"{place}: {shown(row)}, not an object; write one object per line")
        if FILE not in row:
            raise UserError(f"{place}: no column {FILE!r} among {list(row)}; name so the column with the images' files")
        name = row[FILE]
        file = path.parent / name if isinstance(name, str) and name else None
        if file is None or not file.is_file():
            raise UserError(f"{place}: {FILE} is {shown(name)}, no file in {path.parent}; {_remedy(path.parent, name)}")
        yield place, file, {column: value for column, value in row.items() if column != FILE}
    if not num_rows:
        raise UserError(f"{path}: empty; write a line of names, {FILE} among them, and a line for each image")


def _remedy(folder: Path, name: Any) -> str:
    """Return what to do about an image that is not there."""
    images = [entry.name for entry in visible(folder) if is_image(entry)]
    if isinstance(name, str) and (whole := next((image for image in images if Path(image).stem == name), None)):
        return f"write the name with its ending, {whole}"
    return "write it as seen from the metadata file, or take the row out"
