"""The rows of image classification: an image and its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlit.data.classes import check_target
from fedlit.data.columns import require_column
from fedlit.data.prompts import Row
from fedlit.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from fedlit.config.schema import DataConfig


@dataclass(frozen=True, kw_only=True)
class ImageClassificationSpec(TaskSpec):
    """An image is given its class."""

    name: str = "image_classification"
    task_class: str = "fedlit.tasks.image_classification.task:ImageClassification"
    auto_class: str = "AutoModelForImageClassification"
    scores: tuple[str, ...] = ("f1_macro", "f1_weighted", "f1_micro", "accuracy", "mcc")
    default_scores: tuple[str, ...] = ("f1_macro", "accuracy")
    has_head: bool = True
    reads_text: bool = False
    counts_tokens: bool = False
    local_source: str = "images"

    def columns(self, data: DataConfig) -> dict[str, str]:
        """Map the columns of the image and of the target to the options that ask for them."""
        return {data.image: "data.image", data.target: "data.target"}

    def check(self, row: Row, place: str, data: DataConfig) -> bool:
        """Check that data.image holds an image, and data.target as `check_target`."""
        from fedlit.data.images import check_cell  # noqa: PLC0415  configurations are checked without NumPy

        require_column(row, data.image, place, "data.image")
        check_cell(row[data.image], place, "data.image")
        check_target(row, place, data)
        return True

    def identity(self, row: Row, data: DataConfig) -> str:
        """Return the digest of the image."""
        from fedlit.data.images import digest  # noqa: PLC0415

        return digest(row[data.image])

    def text(self, row: Row, data: DataConfig) -> str:
        """Return no words."""
        return ""
