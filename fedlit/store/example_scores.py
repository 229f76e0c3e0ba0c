"""The scores of every single test example: `examples/round-0003.parquet`, a table for each evaluation.

A row is one example of one set, in the order of set, client and position:

    set             the set's name in the keys of the record: `global`, `own` or `validation`
    client          whose own part or own model it is, null of the one model on a set of nobody
    position        place in the whole set, from 0, of which `eval.max_examples` may leave some out
    example         what the example is called in every run with the same rows
    group           its value of `data.score_by`, null without one
    prediction      the answer, or the name of the class; '' of plain text, which has none
    probability     of the predicted class, where classes are predicted
    <score>         what the example adds to a score that is a mean over examples: their mean is the record's
    <score>_sum, <score>_count
                    what it adds to a mean with weights: sum over sum is the record's, as nats over tokens of the loss
    <score>_counts  whole numbers whose sums make a score of all texts together, such as BLEU
    predicted, target   numbers of classes, or the numbers of a regression, from which all other scores follow

pyarrow and pandas, which come with datasets, are imported when they are needed.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlit.errors import UserError
from fedlit.process.storage import replacing, sync

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped]

FOLDER = "examples"

_NAME = re.compile(r"round-([0-9]{4,})\.parquet", re.ASCII)


def path_of(folder: Path, round_number: int) -> Path:
    """Return where a run folder has the table of a round."""
    return folder / FOLDER / f"round-{round_number:04d}.parquet"


def rounds(folder: Path) -> list[int]:
    """Return the rounds of which a run folder has a table, ascending."""
    if not (folder / FOLDER).is_dir():
        return []
    matches = (_NAME.fullmatch(path.name) for path in (folder / FOLDER).iterdir())
    return sorted(int(match[1]) for match in matches if match)


def write(folder: Path, round_number: int, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write the table of a round whole, on the disk with its name; the same columns give the same bytes."""
    import pyarrow as pa  # noqa: PLC0415  rows are read without it
    from pyarrow import parquet  # noqa: PLC0415

    table = pa.table(
        {name: pa.array([_encodable(each) for each in values], type=_type(name)) for name, values in columns.items()}
    )
    buffer = pa.BufferOutputStream()
    parquet.write_table(table, buffer, compression="zstd")
    path = path_of(folder, round_number)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as target, target.open("wb") as file:
        file.write(buffer.getvalue())
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


def _encodable(value: Any) -> Any:
    """Return a text without halves of surrogate pairs, which no file of texts can hold."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _type(name: str) -> Any:
    """Return the type of a column that may hold nothing but nulls; None leaves it to the values."""
    import pyarrow as pa  # noqa: PLC0415

    texts = dict.fromkeys(("set", "example", "group", "prediction"), pa.string())
    return {**texts, "client": pa.int64(), "position": pa.int64(), "probability": pa.float64()}.get(name)


def read(folder: Path, round_number: int | None = None) -> "DataFrame":
    """Return the table of a round as a pandas frame, by default of the last evaluation; `client` is a nullable integer.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    found = rounds(folder)
    if not found or (round_number is not None and round_number not in found):
        which = "no round" if not found else f"rounds {', '.join(map(str, found[:20]))} alone"
        raise UserError(
            f"{folder / FOLDER} has scores of examples of {which}; choose an evaluated round of a run with "
            "run.example_scores=true"
        )
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    path = path_of(folder, found[-1] if round_number is None else round_number)
    try:
        frame = parquet.read_table(path).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path} cannot be read ({' '.join(str(error).split())[:100]}); move it away, it is written at evaluations"
        ) from error
    return frame.astype({"client": "Int64"})


def keep_until(folder: Path, last_round: int | None) -> None:
    """Remove the tables of later rounds, which a resumed run makes again; None stands for all of them."""
    for number in rounds(folder):
        if last_round is None or number > last_round:
            path_of(folder, number).unlink(missing_ok=True)
