"""The layers that LoRA's factors stand beside: which modules can have them, and a weight of their own for each.

A factor pair is added to a matrix, so a target is a linear layer whose forward is called: no embedding (its factors
would begin the other way round, A at zero, which methods that freeze or alternate factors rely on), no convolution, and
no layer inside torch's MultiheadAttention, which reads the weight past the layer. peft has layers for some of these.
"""

from collections.abc import Sequence

from torch import nn

from fedlit.errors import UserError
from fedlit.models import Projections, any_tied, untie


def linear_targets(
    model: nn.Module, projections: Projections, target_modules: str | Sequence[str]
) -> dict[str, nn.Module]:
    """Return the linear layers that `method.target_modules` names, by their paths.

    A layer whose weight is also another module's, such as the output projection that is tied to the embedding, gets one
    of its own, equal at first: a change of it would be one of the embedding too.

    Raises:
        UserError: a target is not known, is no module of this model, or is none that can have factors.
    """
    found: dict[str, nn.Module] = {}
    names = projections.select(target_modules)
    for name in names:
        modules = projections.find(model, name)
        if not modules:
            # peft is content with a list of which one name exists; a misspelt one would go untrained without a word
            raise UserError(
                f"{_option(target_modules)}: this model has no linear layer {name}; give names of linear layers of "
                "this model"
            )
        found |= modules
    if not found:
        raise UserError(f"{_option(target_modules)} names no layer; give qkv, attention, mlp, all, or names of layers")
    for path, module in found.items():
        _require_linear(model, path, module, _option(target_modules))
    if any_tied(model, found):
        untie(model)
    return found


def is_conv1d(module: nn.Module) -> bool:
    """Return whether a module is transformers' Conv1D, a linear layer whose weight is stored as (in, out)."""
    return type(module).__name__ == "Conv1D"


def _require_linear(model: nn.Module, path: str, module: nn.Module, option: str) -> None:
    kind = type(module).__name__
    remedy = "give names of linear layers of this model"
    if not (isinstance(module, nn.Linear) or is_conv1d(module)):
        if any(True for _ in module.parameters(recurse=False)):
            remedy += ", or method.adapter=dense, which trains a module whole"
        raise UserError(f"{option}: {path} is of type {kind}, and LoRA stands beside linear layers only; {remedy}")
    parent = model.get_submodule(path.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention):
        raise UserError(
            f"{option}: {path} is inside a MultiheadAttention, which reads its weight without calling it; {remedy}"
        )


def _option(target_modules: str | Sequence[str]) -> str:
    shown = target_modules if isinstance(target_modules, str) else f"[{','.join(map(str, target_modules))}]"
    return f"method.target_modules={shown[:60]}"
