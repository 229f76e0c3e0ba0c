"""Learning rates over the steps of a round, by the formulas of transformers' schedules of the same names."""

import math


def lr_factor(schedule: str, warmup: float, step: int, num_steps: int) -> float:
    """Return what the learning rate is multiplied by at `step`, counted from 0, of `num_steps`.

    It rises from 0 over the first ceil(warmup * num_steps) steps, then stays (`constant`) or falls towards 0 at
    `num_steps`, in a straight line (`linear`) or in half a wave (`cosine`).
    """
    num_warmup = math.ceil(warmup * num_steps)
    if step < num_warmup:
        return step / num_warmup
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    assert schedule == "constant"
    return 1.0
