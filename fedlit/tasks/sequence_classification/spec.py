"""The rows of sequence classification: a text, or the two of a pair, and its class or the number to predict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedlit.data.classes import check_target
from fedlit.data.columns import require_column, text_columns
from fedlit.data.prompts import Row
from fedlit.data.values import shown
from fedlit.errors import UserError
from fedlit.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig


@dataclass(frozen=True, kw_only=True)
class SequenceClassificationSpec(TaskSpec):
    """A text is given its class, or a number in a regression."""

    name: str = "sequence_classification"
    task_class: str = "fedlit.tasks.sequence_classification.task:SequenceClassification"
    auto_class: str = "AutoModelForSequenceClassification"
    scores: tuple[str, ...] = (
        "accuracy",
        "f1_macro",
        "f1_weighted",
        "f1_micro",
        "f1",
        "mcc",
        "pearson",
        "spearman",
    )
    default_scores: tuple[str, ...] = ("accuracy", "f1_macro")
    number_scores: tuple[str, ...] = ("pearson", "spearman")
    has_head: bool = True
    reads_text: bool = True
    counts_tokens: bool = True

    def columns(self, data: DataConfig) -> dict[str, str]:
        """Map the columns of the texts and of the target to the options that ask for them."""
        return dict.fromkeys(text_columns(data), "data.text") | {data.target: "data.target"}

    def check(self, row: Row, place: str, data: DataConfig) -> bool:
        """Check that data.text names one or two strings that are not blank, and data.target as `check_target`."""
        if (num_columns := len(text_columns(data))) not in (1, 2):
            raise UserError(f"data.text={data.text}: {num_columns} columns; name the one to read, or two of a pair")
        for column in text_columns(data):
            require_column(row, column, place, "data.text")
            if not isinstance(row[column], str) or not row[column].strip():
                raise UserError(
                    f"{place}: column {column!r} (data.text) holds {shown(row[column])}, not a text to read; write a "
                    "string that is not blank, or choose another data.text"
                )
        check_target(row, place, data)
        return True

    def identity(self, row: Row, data: DataConfig) -> str:
        """Return the text, or the two of a pair."""
        return "\x1e".join(row[column] for column in text_columns(data))

    def text(self, row: Row, data: DataConfig) -> str:
        """Return the text, or the two of a pair."""
        return "\n".join(row[column] for column in text_columns(data))

    def problems(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield texts that are neither one nor a pair."""
        if isinstance(values["data.text"], list) and len(values["data.text"]) not in (1, 2):
            yield "data.text", "names one column, or the two of a pair; give [sentence] or [sentence1, sentence2]"
        yield from super().problems(values)
