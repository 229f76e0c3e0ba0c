"""The type in which losses are computed."""

import torch
from torch import Tensor


def at_least_float32(logits: Tensor) -> Tensor:
    """Return logits in float32, whatever the precision of the model below it; in float64 if they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
