"""What must hold so that several clients can go through one forward pass."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedlit.client.together.weights import dropouts_of, products_of
from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.method import Method
from fedlit.tasks import Task
from fedlit.tasks.registry import task_spec


def require_possible(run: RunConfig, method: Method, model: nn.Module, task: type[Task[Any, Any]]) -> None:
    """Refuse what `local.clients_per_batch` cannot do.

    Args:
        run, method: of the run.
        model: with the adapter, on whatever device.
        task: the class that trains it.

    Raises:
        UserError: why several clients cannot share a forward pass.
    """
    for reason in _reasons(run, method, model, task):
        raise UserError(
            f"local.clients_per_batch={run.local.clients_per_batch}: {reason}; give local.clients_per_batch=1"
        )


def _reasons(run: RunConfig, method: Method, model: nn.Module, task: type[Task[Any, Any]]) -> Iterator[str]:
    if not method.adapter.shares_backbone:
        yield f"method.name={method.name} trains weights of the backbone itself, which the clients of a pass share"
    if method.adapter.has_own_steps:
        yield f"method.name={method.name} has local steps of its own, which one client at a time can take"
    if method.rule.moves_frozen:
        yield (
            f"under method.name={method.name} with these options each client has frozen weights of its own, and the "
            "clients of a pass share them"
        )
    if task.join is Task.join or task.losses is Task.losses:
        yield f"data.task={run.data.task} has no way to join the batches of several clients (Task.join, Task.losses)"
    names = {**method.shared(model), **method.private(model)}
    try:
        products_of(model, names)
    except LookupError as error:
        yield f"{error.args[0]} is in no linear layer, and only these can have a weight for each client"
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        yield f"{run.model.name} normalises over the rows of a batch, those of other clients too"
    rope: Any = getattr(model.config, "rope_parameters", None) or getattr(model.config, "rope_scaling", None) or {}
    if "longrope" in str(rope) and task_spec(run.data.task).reads_text:
        yield f"{run.model.name} turns its positions by the longest row of a batch, of other clients too (longrope)"
    yield from _draws(run, model)


def _draws(run: RunConfig, model: nn.Module) -> Iterator[str]:
    """Yield what of the model draws random numbers for a whole batch in training."""
    own = {id(module) for name, module in model.named_modules() if ".lora_dropout." in name}
    if any(id(module) not in own for module in dropouts_of(model)):
        yield f"{run.model.name} has dropout of its own, drawn for the whole batch"
    for module in model.modules():
        named = {name: value for name, value in vars(module).items() if isinstance(value, float) and value}
        if any("drop" in name or "jitter" in name for name in named):
            yield f"{run.model.name} has dropout of its own, drawn for the whole batch"
    if run.model.gradient_checkpointing and own and any(id(module) in own for module in dropouts_of(model)):
        yield (
            "model.gradient_checkpointing=true computes each block twice, and the second time dropout "
            "(method.lora_dropout) would draw other numbers"
        )
