"""What one pass through a model takes, counted on the meta device: floating point operations, and operations of torch.

torch's FlopCounterMode counts those of matrix products, convolutions and attention, which is nearly all there is in a
transformer: a multiplication and an addition are two. Norms, activations and the optimizer's arithmetic are not in it.
How many operations of torch a pass has stands beside it: what takes time in a model so small that its arithmetic does
not count.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fedlit.models.packing import nothing_packed

META = torch.device("meta")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """An amount of work. flops: floating point operations. operations: of torch, each a kernel or less."""

    flops: float = 0.0
    operations: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(flops=self.flops + other.flops, operations=self.operations + other.operations)

    def times(self, number: float, *, wider: float = 1.0) -> "Cost":
        """Return the work of so many passes whose batches are `wider` times this one's: more arithmetic in as many
        operations.
        """
        return Cost(flops=self.flops * number * wider, operations=self.operations * number)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is handed to the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


def counted(action: Callable[[], Any]) -> Cost:
    """Return what an action on meta tensors takes."""
    flops, operations = FlopCounterMode(display=False), _Operations()
    with nothing_packed(), flops, operations:
        action()
    return Cost(flops=float(flops.get_total_flops()), operations=float(operations.number))


def training_pass(model: nn.Module, loss: Callable[[], Tensor], trains: frozenset[str]) -> Cost:
    """Return what a forward and a backward pass take in which the parameters of these names train.

    The model is left as it was.
    """
    parameters = dict(model.named_parameters())
    before, was_training = {name: each.requires_grad for name, each in parameters.items()}, model.training
    try:
        for name, each in parameters.items():
            each.requires_grad_(name in trains)
        model.train()
        return counted(lambda: loss().backward())  # type: ignore[no-untyped-call]
    finally:
        model.train(was_training)
        for name, each in parameters.items():
            each.requires_grad_(before[name])
            each.grad = None


def scoring_pass(model: nn.Module, action: Callable[[], Any]) -> Cost:
    """Return what a forward pass of an evaluation takes."""
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            return counted(action)
    finally:
        model.train(was_training)
