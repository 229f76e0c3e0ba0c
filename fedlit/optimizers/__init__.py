"""How one client steps."""

from collections.abc import Sequence
from typing import Protocol

from torch import nn
from torch.optim import Optimizer


class LocalOptimizer(Protocol):
    """Builds the optimizer of one client; its state_dict must hold tensors and plain numbers only."""

    def build(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """Return a new optimizer over `parameters`."""
        ...
