"""What must hold so that the gradients of single rows are known."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedlit.adapters import trainable
from fedlit.client.per_example.layers import layers_of
from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.tasks import Task
from fedlit.tasks.registry import task_spec


def require_single_rows(run: RunConfig, model: nn.Module, task: type[Task[Any, Any]]) -> None:
    """Refuse what `privacy.unit=example` cannot do.

    Args:
        run: its configuration.
        model: with the adapter, on whatever device.
        task: the class that trains it.

    Raises:
        UserError: why a row's own gradient is not known.
    """
    for reason in _reasons(run, model, task):
        raise UserError(f"privacy.unit=example: {reason}, or give privacy.unit=client")


def _reasons(run: RunConfig, model: nn.Module, task: type[Task[Any, Any]]) -> Iterator[str]:
    if task.join is Task.join or task.losses is Task.losses:
        yield (
            f"data.task={run.data.task} has no losses of single rows (Task.join, Task.losses); choose another data.task"
        )
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        yield (
            f"{run.model.name} normalises over the rows of a batch (BatchNorm), so that no gradient is of one row; "
            "choose another model"
        )
    rope: Any = getattr(model.config, "rope_parameters", None) or getattr(model.config, "rope_scaling", None) or {}
    if "longrope" in str(rope) and task_spec(run.data.task).reads_text:
        yield (
            f"{run.model.name} turns its positions by the longest row of a batch (longrope), so that no gradient is of "
            "one row; choose another model"
        )
    try:
        layers_of(model, trainable(model))
    except LookupError as error:
        yield f"{error.args[0]}; train other modules (method.target_modules)"
