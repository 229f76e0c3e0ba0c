"""Low-rank changes added to the weights that they belong to."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict


def added(weight: Tensor, change: LowRank) -> Tensor:
    """Return weight + change in the weight's type; the dense product never exists by itself."""
    base = weight if change.rest is None else weight + change.rest.to(weight)
    return base.addmm(change.left.to(weight), change.right.to(weight))


def merged_weights(
    layers: Iterable[LoraLayer],
    tensors: Mapping[str, Tensor],
    folded: Mapping[str, LowRank] | None = None,
    client_id: int | None = None,
) -> TensorDict:
    """Return W + what is folded into it + the layer's change by pretrained name, float32 or finer and in W's layout.

    folded: changes of frozen weights by layer name. The scaling is that of the client, the server's for None.
    """
    merged = {}
    for layer in layers:
        weight = tensors[layer.weight].detach()
        fine = weight.to(torch.promote_types(weight.dtype, torch.float32))
        change = layer.change(tensors, client_id)
        if folded and layer.name in folded:
            change = change + folded[layer.name].to(change.left.dtype)
        merged[f"{layer.name}.weight"] = added(fine, layer.oriented(change))
    return merged
