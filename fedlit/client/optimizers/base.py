"""How one client steps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from fedlit.round.jobs import LocalPart


class LocalOptimizer(ABC):
    """Builds the optimizer of one client; its state_dict must hold tensors and plain numbers only.

    element_wise: a step of one element depends on that element alone, so that the tensors of several clients may be
    stacked and stepped as one.
    """

    element_wise: ClassVar[bool] = False

    @abstractmethod
    def build(self, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
        """Return a new optimizer over all of `parameters`, which come by name.

        Groups may have learning rates of their own: a schedule multiplies each group's.
        """

    def local_parts(self) -> tuple[LocalPart, ...]:
        """Return what of the optimizer travels beside the model, as parts of local training; nothing by default."""
        return ()

    @abstractmethod
    def num_state_scalars(self, shapes: Sequence[torch.Size]) -> int:
        """Return the numbers it keeps for parameters of these shapes."""
