"""FedALT's adapter: a client's own LoRA, a frozen one of the rest of the world, and a gate in each layer.

Bian et al., FedALT: Federated Fine-Tuning through Adaptive Local Training with Rest-of-World LoRA, AAAI 2026, arXiv
2503.11880. For client k and each token x (in,) of a layer's input:
    y = W x + s (a B_k A_k x + (1 - a) B_-k A_-k x),    (a, 1 - a) = softmax(G_k x),    G_k (2, in).
A_k, B_k and G_k train and stay; A_-k and B_-k are the mean of the others' (`round/rules/fedalt.py`) and are frozen.
What a client sends are A_k and B_k.

Chosen here, where the paper is silent: G_k = 0 at first, so that training begins with equal weights; the gate sees x
without dropout; both LoRAs have one scaling s.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedlit.adapters.lora_pair import PRIVATE, SHARED, LoraPair, PairLayer, is_factor, pair_layers, twins_of
from fedlit.algebra.tensors import TensorDict


class GatedLayer(PairLayer):
    """A layer whose two LoRAs are weighted by a softmax of a linear map of its input, token by token."""

    def __init__(self, base_layer: nn.Module, rank: int, scaling: float, dropout: float) -> None:
        super().__init__(base_layer, rank, scaling, dropout)
        a = self.lora_A[PRIVATE]
        assert isinstance(a, nn.Linear)
        self.gate = nn.Linear(a.in_features, 2, bias=False, device=a.weight.device, dtype=a.weight.dtype)
        nn.init.zeros_(self.gate.weight)

    def mixed(self, x: Tensor) -> Tensor:
        """Return the sum of both, the client's own with the first weight."""
        own, rest = self.gate(x).softmax(-1).unsqueeze(-1).unbind(-2)  # (..., 1) each
        dropped = self.lora_dropout["default"](x)
        total: Tensor = self.product(PRIVATE, dropped) * own + self.product(SHARED, dropped) * rest
        return total


@dataclass(frozen=True, kw_only=True)
class LoraRest(LoraPair):
    """The client's own LoRA and the gate train; the rest of the world's is received and stays as it is."""

    @property
    def takes_up_own(self) -> bool:
        """A client takes its own part out of the mean."""
        return True

    @property
    def sends_own(self) -> bool:
        """What is sent is the client's own LoRA, which it also keeps."""
        return True

    def layer_around(self, model: nn.Module, name: str) -> PairLayer:
        """Return a layer with a gate, of which all but the other clients' LoRA trains."""
        layer = GatedLayer(model.get_submodule(name), self.lora_rank, self.scaling, self.lora_dropout)
        for modules in (layer.lora_A, layer.lora_B):
            modules[SHARED].requires_grad_(False)
        return layer

    def weighing(self, model: nn.Module) -> TensorDict:
        """Return the gates."""
        return {
            f"{name}.gate.weight": layer.gate.weight.data
            for name, layer in pair_layers(model)
            if isinstance(layer, GatedLayer)
        }

    def sent(self, shared: Mapping[str, Tensor], private: Mapping[str, Tensor]) -> TensorDict:
        """Return the client's own factors under the names of the others'."""
        return twins_of(shared, private)

    def taken_up(
        self, received: Mapping[str, Tensor], private: Mapping[str, Tensor], own_share: Tensor | None
    ) -> tuple[TensorDict, TensorDict]:
        """Return the mean of the others, (m - w x) / (1 - w), for a mean m in which the client's own x has the weight
        w. Where it is alone in it there are no others, and nothing is added to W: A and B are zero.
        """
        if own_share is None:
            return dict(received), dict(private)
        left = 1.0 - own_share.double()
        kept = twins_of(received, private)
        rest = {
            name: without(mean, kept[name], own_share, left) if is_factor(name) else mean
            for name, mean in received.items()
        }
        return rest, dict(private)


def without(mean: Tensor, own: Tensor, share: Tensor, left: Tensor) -> Tensor:
    """Return the mean without one of its parts, computed in float64 and returned in the mean's type."""
    others = (mean.double() - share.double() * own.to(mean.device).double()) / left
    return torch.where(left > 0, others, torch.zeros_like(others)).to(mean.dtype)
