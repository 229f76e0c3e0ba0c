"""How one client steps."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn
from torch.optim import Optimizer


class LocalOptimizer(Protocol):
    """Builds the optimizer of one client; its state_dict must hold tensors and plain numbers only."""

    def build(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """Return a new optimizer over `parameters`."""
        ...

    def num_state_scalars(self, shapes: Sequence[torch.Size]) -> int:
        """Return the numbers it keeps for parameters of these shapes."""
        ...
