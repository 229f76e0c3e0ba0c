"""Where rows come from, as a part from outside: what `data.source` may name beside the package's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig


class Reader(ABC):
    """Reads a data set; a dataclass below it, whose fields are the options in `data.source_options`.

    Rows are mappings from column to value: text, number, or for images what `fedlit.data.images` takes. Columns, labels
    and classes are those of the configuration (`data.template`, `data.response`, `data.target`, `data.label`), and rows
    are checked, sampled and dealt as those of any other source. Every process reads, and a run that goes on reads
    again: rows and their order must be the same each time.

    has_test_rows: whether `test_rows` gives a test set that belongs to no client.
    """

    has_test_rows: ClassVar[bool] = False

    @abstractmethod
    def rows(self, data: DataConfig) -> Iterable[Mapping[str, Any]]:
        """Return the training rows; `data.path` is the file that the user gave, if any.

        Raises:
            UserError: one line on what is missing or wrong, and the remedy.
        """

    def test_rows(self, data: DataConfig) -> Iterable[Mapping[str, Any]]:
        """Return the test rows; asked for only where `has_test_rows` is true."""
        return ()
