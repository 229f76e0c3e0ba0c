"""What the model answered to a few examples, the same in every round: samples.jsonl, a line for each example that an
evaluation keeps (`logging.samples_kept`).

A line has `round`; `set`, the set's name in the keys of the record (`global`, `own`, `validation`); `client`, whose own
test part or own model it is, else null; `example`, what the example is called in every run with the same rows;
`position` in its set; `prompt`, or what an image is called; `references`, the right answers; `prediction`; and where
there is one the `group` (data.score_by) and the `probability` of the predicted class.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlit.store.round_lines import append_lines, lines_until, read_lines

NAME = "samples.jsonl"


def append_samples(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add the lines of a round, on the disk before its record is."""
    append_lines(folder / NAME, lines)


def read_samples(folder: Path, round_number: int | None = None) -> list[dict[str, Any]]:
    """Return the lines of a run folder, or those of one round, in their order; none where there is no file."""
    lines = read_lines(folder / NAME)
    return lines if round_number is None else [line for line in lines if line["round"] == round_number]


def samples_until(folder: Path, last_round: int) -> str:
    """Return the text of the file up to and with a round."""
    return lines_until(folder / NAME, last_round)
