"""The learning rate of every step is that of transformers' scheduler of the same name."""

import math

import pytest
import torch
from transformers import get_scheduler

from fedlit.client.schedules import lr_factor

NAMES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


@pytest.mark.parametrize("schedule", NAMES)
@pytest.mark.parametrize(("warmup", "num_steps"), [(0.0, 7), (0.06, 50), (0.5, 9), (0.02, 1), (0.9, 3)])
def test_the_factors_are_those_of_transformers(schedule: str, warmup: float, num_steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    num_warmup = math.ceil(warmup * num_steps)
    reference = get_scheduler(NAMES[schedule], optimizer, num_warmup_steps=num_warmup, num_training_steps=num_steps)
    expected = []
    for _ in range(num_steps):
        expected.append(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    found = [lr_factor(schedule, warmup, step, num_steps) for step in range(num_steps)]
    assert found == pytest.approx(expected, abs=1e-12)
