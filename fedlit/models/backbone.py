"""A pretrained backbone as a value, what it is loaded for, and where it lies."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from fedlit.config import DataConfig, ModelConfig
from fedlit.errors import UserError
from fedlit.models.projections import Projections
from fedlit.models.vocabulary import require_unwritten
from fedlit.tasks.registry import task_spec
from fedlit.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from fedlit.models.adapter_folder import AdapterStart

_PACKAGE = Path(__file__).parents[1]
MEMORY = "memory"
"""`model.path=memory:<checksum>` stands for a model that was given from Python, `model.tokenizer=` likewise."""
PACKAGED = {"tiny": _PACKAGE / "tiny"} | {
    path.parent.name: path.parent for path in sorted((_PACKAGE / "backbones").glob("*/config.json"))
}
"""Models inside the package by name; those below `backbones` come without weights."""


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


def location(path: str, key: str | None = None) -> str:
    """Return where a model lies: its folder, or its id on the hub as it is.

    Args:
        path: a name inside the package, a folder, or an id.
        key: how a message names it, `model.path=` by default.

    Raises:
        UserError: it looks like a folder and there is none, or was an object of Python's.
    """
    if path.startswith(f"{MEMORY}:"):
        raise UserError(
            f"{key or f'model.path={path}'} was given from Python as an object, and no file holds it; run it there, "
            "with fedlit.run(..., model=..., tokenizer=...)"
        )
    if path in PACKAGED:
        return str(PACKAGED[path])
    looks_local = path.startswith((".", "/", "~"))
    if looks_local and not Path(path).expanduser().is_dir():
        raise UserError(
            f"{key or f'model.path={path}'} is not a folder; give a local folder or a Hugging Face model id"
        )
    return str(Path(path).expanduser()) if looks_local else path


def tokenizer_key(config: ModelConfig) -> str:
    """Return what names the tokenizer in a message."""
    return f"model.path={config.path}" if config.tokenizer is None else f"model.tokenizer={config.tokenizer}"
