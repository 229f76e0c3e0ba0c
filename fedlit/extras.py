"""What a caller in Python brings to a run beside its rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from fedlit.errors import UserError
from fedlit.lab.callbacks import Callback
from fedlit.models import OwnBackbone


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What a caller in Python brings to a run.

    backbone: model and tokenizer in place of files. callbacks: the caller's own. console: whether the run reports on
    standard output.
    """

    backbone: OwnBackbone = field(default_factory=OwnBackbone)
    callbacks: tuple[Callback, ...] = ()
    console: bool = True

    @classmethod
    def of(cls, model: Any, tokenizer: Any, callbacks: Sequence[Any], *, console: bool) -> Self:
        """Return what was given as objects, checked.

        Raises:
            UserError: a callback that is none.
        """
        for number, callback in enumerate(callbacks):
            if not isinstance(callback, Callback):
                kind = callback.__name__ if isinstance(callback, type) else type(callback).__name__
                what = "a class" if isinstance(callback, type) else "an object"
                raise UserError(
                    f"callbacks[{number}] is {what} ({kind}); give objects of a class below fedlit.Callback"
                )
        return cls(backbone=OwnBackbone(model=model, reader=tokenizer), callbacks=tuple(callbacks), console=console)
