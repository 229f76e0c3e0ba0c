"""PyTorch's own optimizers as local optimizers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from fedlit.client.optimizers.base import LocalOptimizer


@dataclass(frozen=True, kw_only=True)
class AdamW(LocalOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), fused: one kernel for all tensors."""

    element_wise: ClassVar[bool] = True

    lr: float
    weight_decay: float = 0.0

    def build(self, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
        """Return torch's AdamW with its default betas (0.9, 0.999) and eps 1e-8."""
        return torch.optim.AdamW(parameters.values(), lr=self.lr, weight_decay=self.weight_decay, fused=True)

    def num_state_scalars(self, shapes: Sequence[torch.Size]) -> int:
        """Return two moments for every parameter."""
        return 2 * sum(shape.numel() for shape in shapes)


@dataclass(frozen=True, kw_only=True)
class SGD(LocalOptimizer):
    """Plain stochastic gradient descent."""

    element_wise: ClassVar[bool] = True

    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.0

    def build(self, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
        """Return torch's SGD."""
        return torch.optim.SGD(parameters.values(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def num_state_scalars(self, shapes: Sequence[torch.Size]) -> int:
        """Return the momentum of every parameter, if there is any."""
        return sum(shape.numel() for shape in shapes) if self.momentum else 0
