"""What a task is to the rest of the house, without torch: its rows and its text, its head, its scores.

A mistake in a configuration or in a row is told before torch is imported, so this lies below the configuration and
names the class that trains, a `fedlit.tasks.Task`, without importing it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedlit.data.classes import check_test_targets, class_names
from fedlit.data.columns import label_text
from fedlit.data.prompts import Row
from fedlit.data.values import require_encodable, shown
from fedlit.errors import UserError

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig


@dataclass(frozen=True, kw_only=True)
class TaskSpec(ABC):
    """One value of `data.task`. A subclass gives the fields their values, and answers for its rows.

    name: the value. task_class: `module:class` of its `fedlit.tasks.Task`. auto_class: the class of transformers that
    builds its model.
    scores: those that `data.scores` may name. default_scores: those of a data set that names none, the main one first.
    number_scores: the same where a number is predicted (`data.regression`); none if the task predicts no numbers.
    protocols: values of `eval.protocol`; none if there is one way to evaluate.
    generates: responses follow prompts, up to the tokenizer's end-of-text token. has_head: the model ends in a head
    over classes or for a number, which is trained whole and may be a new one.
    reads_text: the model has a tokenizer; else it reads images and has an image processor. counts_tokens: an example
    has a number of tokens, to be added up. local_source: the reader (`data.source`) of a local `data.path`.
    """

    name: str
    task_class: str
    auto_class: str
    scores: tuple[str, ...]
    default_scores: tuple[str, ...]
    number_scores: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    generates: bool = False
    has_head: bool
    reads_text: bool
    counts_tokens: bool
    local_source: str = "jsonl"

    @abstractmethod
    def columns(self, data: DataConfig) -> dict[str, str]:
        """Map every column that the task reads to the option that asks for it, such as `data.text`.

        Raises:
            UserError: an option that names none.
        """

    @abstractmethod
    def check(self, row: Row, place: str, data: DataConfig) -> bool:
        """Check a row, which may be changed in place, and tell whether it is kept; `place` names it in errors.

        Raises:
            UserError: the column that is not there or holds something else, and what to do about it.
        """

    @abstractmethod
    def identity(self, row: Row, data: DataConfig) -> str:
        """Return what goes into the model of a checked row as one text.

        Two rows that share it are the same question: they are then for testing in all clients or in none.
        """

    @abstractmethod
    def text(self, row: Row, data: DataConfig) -> str:
        """Return the words of a checked row, by which `partition.name=topics` clusters; none of an image."""

    def check_row(self, record: Any, place: str, data: DataConfig) -> Row | None:
        """Return the row with every column that the configuration needs, or None if it is left out.

        Raises:
            UserError: it is no object, or as `check`, or its label for the partition is none.
        """
        if not isinstance(record, dict):
            raise UserError(
                f'{place}: {type(record).__name__}, not an object; write each row as {{"column": value, ...}}'
            )
        row = dict(record)
        for column in self.read_columns(data):
            if isinstance(value := row.get(column), str):
                require_encodable(value, place, f"column {shown(column)}")
        if not self.check(row, place, data):
            return None
        if data.label is not None:
            label_text(row, data.label, place, "data.label")
        return row

    def read_columns(self, data: DataConfig) -> list[str]:
        """Return every column of a row that is looked at, each once: those of the task, of the partition, of groups."""
        others = (data.label, data.score_by)
        return list(dict.fromkeys([*self.columns(data), *(column for column in others if column is not None)]))

    def check_test_rows(
        self, rows: Sequence[Row], places: Sequence[str], classes: Sequence[str], data: DataConfig
    ) -> None:
        """Check the rows of a test set together, which the training rows, with these classes, know nothing of.

        Raises:
            UserError: as fedlit.data.classes.check_test_targets; `places` name the rows.
        """
        if self.has_head:
            check_test_targets(rows, places, classes, data)

    def needs_task(self, data: DataConfig) -> bool:
        """Tell whether the last check of a row is the task's own, with its tokenizer (`Task.check_rows`)."""
        return False

    def test_notices(self, rows: Sequence[Row], data: DataConfig) -> list[str]:
        """Return lines a person should read about rows that are tested; none by default."""
        return []

    def class_names(self, rows: Sequence[Row], data: DataConfig) -> tuple[str, ...]:
        """Return the names of the classes in the order of their numbers; none without a classification.

        Raises:
            UserError: as fedlit.data.classes.class_names.
        """
        return class_names(rows, data) if self.has_head and not data.regression else ()

    def problems(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield dotted keys at odds with the task, and what is wrong with the value of each and what to do.

        `values` are those of a whole configuration by dotted key.
        """
        if values["data.regression"] and not self.number_scores:
            yield "data.regression", f"has no meaning for data.task={self.name}; leave it out"
