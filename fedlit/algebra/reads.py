"""Small values of the device that are read together: each read waits for the device, whatever its size."""

from collections.abc import Callable

import torch
from torch import Tensor


class Reads:
    """Tensors whose values are wanted on the CPU, some time later.

    The first who asks for values reads all that are waiting, in one wait; the others then find theirs here.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, list[float]]] = []

    def later(self, values: Tensor) -> Callable[[], list[float]]:
        """Return a function that returns the values, flat, as they are now, in float64."""
        found: list[float] = []
        num = values.numel()
        # A copy, also of a float64 tensor: the caller may write into its own.
        self._waiting.append((values.detach().reshape(-1).to(torch.float64, copy=True), found))

        def read() -> list[float]:
            if len(found) < num:
                self._read()
            return list(found)

        return read

    def _read(self) -> None:
        tensors = [tensor for tensor, _ in self._waiting]
        numbers = torch.cat(tensors).tolist()
        for tensor, found in self._waiting:
            found.extend(numbers[: tensor.numel()])
            del numbers[: tensor.numel()]
        self._waiting.clear()
