"""The noise of a step of DP-SGD: Gaussian, of one named stream for each step of a client's round.

It is drawn on the CPU in float64, so that a step has the same noise on every device, and rounded to the gradient's
type. These are floating-point draws: unlike the integers of the sum over clients (unit=client) their last bits may
tell them from a Gaussian's (Mironov, "On significance of the least significant bits for differential privacy", CCS
2012). And noise hides nothing from whoever knows the run's seed: a run simulates a deployment whose streams are secret.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedlit.algebra.tensors import TensorDict
from fedlit.seeding import numpy_generator


@dataclass(frozen=True, kw_only=True)
class ExampleNoise:
    """Noise of one client's round. deviation: standard deviation of each number, z * C."""

    seed: int
    round_idx: int
    client_id: int
    deviation: float

    def of_step(self, step: int, like: Mapping[str, nn.Parameter]) -> TensorDict:
        """Return the noise of a step, counted from 0, for parameters in their order, in their types and places."""
        sizes = [parameter.numel() for parameter in like.values()]
        stream = numpy_generator(self.seed, f"example noise/{step}", round_idx=self.round_idx, client_id=self.client_id)
        drawn = torch.from_numpy(stream.standard_normal(sum(sizes))).mul_(self.deviation)
        parts = zip(like.items(), torch.split(drawn, sizes), strict=True)
        return dict(zip(like, _moved([(part, parameter) for (_, parameter), part in parts]), strict=True))


def _moved(pairs: Sequence[tuple[Tensor, nn.Parameter]]) -> list[Tensor]:
    """Return each tensor in the type, shape and place of the parameter beside it, without waiting for a device."""
    moved = []
    for part, parameter in pairs:
        own = part.to(parameter.dtype)
        if parameter.is_cuda:
            own = own.pin_memory()  # a copy from other memory waits for what the device has still to do
        moved.append(own.to(parameter.device, non_blocking=True).view(parameter.shape))
    return moved
