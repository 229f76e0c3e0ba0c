"""Changes that rules folded into frozen weights, beside these weights in every forward pass.

A weight in bfloat16 has eight bits of mantissa, and so has any weight in a forward pass under bfloat16 autocast: what a
round adds to it is mostly below its last bit. Beside it, a change is rounded by its own size, as LoRA's product is.
"""

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank


class FoldedChanges:
    """Adds changes (out, in) of frozen weights to the outputs of their layers, x (..., in) -> (..., out).

    Args:
        model: with the adapter; hooks on its frozen layers are all that is put into it.
        layers: the adapter's LoRA layers.
    """

    def __init__(self, model: nn.Module, layers: tuple[LoraLayer, ...]) -> None:
        self._changes: Mapping[str, LowRank] = {}
        for layer in layers:
            base = model.get_submodule(layer.weight.rpartition(".")[0])
            base.register_forward_hook(partial(self._add, layer.name))

    def set(self, changes: Mapping[str, LowRank], offsets: Mapping[str, LowRank] | None = None) -> None:
        """Let these changes by layer name take part from now on, and a client's own offsets from them."""
        own = {name: changes[name] + offset if name in changes else offset for name, offset in (offsets or {}).items()}
        self._changes = {**changes, **own}

    def _add(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        change = self._changes.get(name)
        return None if change is None else (output + _applied(change, inputs[0])).to(output.dtype)


def _applied(change: LowRank, x: Tensor) -> Tensor:
    """Return (..., out), computed as peft computes LoRA's product: in the factors' type, or the one of autocast."""
    # In the type of the input: a large matrix in float32 would take many times as long as the layer itself.
    rest = None if change.rest is None else functional.linear(x, change.rest.to(x.dtype))
    if rest is not None and not change.left.shape[1]:
        return rest
    product = functional.linear(functional.linear(x.to(change.left.dtype), change.right), change.left)
    return product if rest is None else rest + product
