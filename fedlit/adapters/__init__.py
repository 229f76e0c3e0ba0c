"""Which tensors of a model exist, train, travel and stay."""

from pathlib import Path
from typing import Protocol

from torch import nn

from fedlit.models import Projections
from fedlit.tensors import TensorDict


class Adapter(Protocol):
    """Decides what a client trains. Tensors it does not mark as trainable are frozen."""

    def attach(self, model: nn.Module, projections: Projections) -> None:
        """Put the adapter's modules into `model` in place, initialised from torch's global generator."""
        ...

    def shared(self, model: nn.Module) -> TensorDict:
        """Return the live tensors that travel between server and clients."""
        ...

    def private(self, model: nn.Module) -> TensorDict:
        """Return the live trained tensors that stay with their client."""
        ...

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write the adapter as it stands in `model` so that it loads without fedlit."""
        ...


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that a client's optimizer steps, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
