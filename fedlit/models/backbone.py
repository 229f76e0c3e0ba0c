"""A pretrained backbone as a value, and what it is loaded for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from fedlit.config import DataConfig, ModelConfig
from fedlit.models.projections import Projections
from fedlit.models.vocabulary import require_unwritten
from fedlit.tasks.registry import task_spec
from fedlit.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from fedlit.models.adapter_folder import AdapterStart


@dataclass(frozen=True, kw_only=True, slots=True)
class Purpose:
    """What a backbone is loaded for.

    task: `data.task`. classes: their names in order, of a classification. regression: one number in place of classes.
    seed: root of the streams from which new weights are drawn: a new head, or all of a model without weights.
    """

    task: str = DataConfig.task
    classes: tuple[str, ...] = ()
    regression: bool = False
    seed: int = 0

    @property
    def spec(self) -> TaskSpec:
        """What the task needs of a backbone."""
        return task_spec(self.task)

    @property
    def num_outputs(self) -> int:
        """Outputs of the classification head; 0 for a language model."""
        return 1 if self.regression else len(self.classes)


LANGUAGE_MODEL = Purpose()


@dataclass(frozen=True, kw_only=True, slots=True)
class Backbone:
    """A pretrained model, all of it frozen, with its tokenizer (text) or its image processor (images).

    notices: lines that a person should read about it. unwritten: tokens that the model has no row for, with their ids;
    no text may hold them.
    end_ids: tokens that end a generation by the settings that came with the model. start: the adapter that `model.path`
    names, whose base this is; None for a model.
    """

    model: nn.Module
    tokenizer: Any = None
    image_processor: Any = None
    projections: Projections
    notices: tuple[str, ...] = ()
    unwritten: Mapping[str, int] = field(default_factory=dict)
    end_ids: tuple[int, ...] = ()
    start: "AdapterStart | None" = None

    def require_readable(self, texts: Iterable[str]) -> None:
        """Refuse texts in which a token stands that the model cannot read.

        Raises:
            UserError: names the token and the text.
        """
        require_unwritten(self.unwritten, texts)


def tokenizer_key(config: ModelConfig) -> str:
    """Return what names the tokenizer in a message."""
    return f"model.path={config.path}" if config.tokenizer is None else f"model.tokenizer={config.tokenizer}"
