"""The predicted classes of a batch as a person reads them."""

import torch
from torch import Tensor


def chosen_classes(logits: Tensor, chosen: Tensor) -> tuple[list[int], list[float]]:
    """Return the numbers of the `chosen` classes (n,) and their probabilities by the logits (n, C), in one copy from
    the device.
    """
    probabilities = logits.double().softmax(-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    numbers, values = torch.stack([chosen.double(), probabilities]).tolist()
    return [int(number) for number in numbers], values
