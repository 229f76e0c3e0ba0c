"""Low-rank changes added to the weights that they belong to."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict


def added(weight: Tensor, change: LowRank) -> Tensor:
    """Return weight + change in the weight's type; the dense change never exists by itself."""
    return weight.addmm(change.left.to(weight), change.right.to(weight))


def merged_weights(
    layers: Iterable[LoraLayer],
    tensors: Mapping[str, Tensor],
    masters: Mapping[str, Tensor] | None = None,
    client_id: int | None = None,
) -> TensorDict:
    """Return W + the layer's change by pretrained name, in float32 or finer and in W's layout.

    W is the master where there is one; the scaling is that of the client, the server's for None.
    """
    merged = {}
    for layer in layers:
        weight = (masters or {}).get(layer.weight, tensors[layer.weight]).detach()
        fine = weight.to(torch.promote_types(weight.dtype, torch.float32))
        merged[f"{layer.name}.weight"] = added(fine, layer.oriented(layer.change(tensors, client_id)))
    return merged
