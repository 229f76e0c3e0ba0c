"""The largest gradient of a client's local steps, measured on the device and read with the losses.

It is the Euclidean norm over all that is stepped, after corrections and before clipping: what an optimizer would step
without a limit. The lemmas on how far weights go (SCL, arXiv 2412.07021, equation 2) call its bound D.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fedlit.round.jobs import GRADIENT_NORM


class LargestGradient:
    """Of one client, or of several whose parameters are stacked (k, *shape). Nothing waits for the device."""

    def __init__(self) -> None:
        self._largest: Tensor | None = None

    @torch.no_grad()
    def see(self, parameters: Iterable[Tensor]) -> None:
        """Look at the gradients of a step; a parameter without one has no part in it."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            self._take(nn.utils.get_total_norm(gradients))

    @torch.no_grad()
    def see_stacked(self, parameters: Iterable[Tensor]) -> None:
        """Look at the gradients of a step of several clients."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            self._take(stacked_norms(gradients))

    def _take(self, norm: Tensor) -> None:
        self._largest = norm if self._largest is None else torch.maximum(self._largest, norm)

    def shares(self, slot: int | None = None) -> Mapping[str, Tensor]:
        """Return the number for the record by its name, of a client of its own or of a slot; nothing without a step."""
        if self._largest is None:
            return {}
        return {GRADIENT_NORM: self._largest if slot is None else self._largest[slot]}


def stacked_norms(gradients: Iterable[Tensor]) -> Tensor:
    """Return (k,): each client's Euclidean norm over gradients (k, *shape)."""
    norms = [torch.linalg.vector_norm(each.flatten(1), dim=1) for each in gradients]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return total
