"""The streams of several clients, each at its own place, on torch's global generators.

A generator's state is swapped in for one client's draws and taken out again, so that a client draws what it would draw
alone, whatever draws: the kernels of a device differ in how many numbers they take.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedlit.seeding import torch_stream

States = tuple[Tensor, ...]


class RandomStates:
    """A named stream for each of several clients.

    Args:
        device: on which the model draws, the CPU or a CUDA device; batches are made on the CPU in any case.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._states: list[States] = []

    @contextmanager
    def begin(self, seed: int, purpose: str, *, round_idx: int, client_id: int) -> Iterator[None]:
        """Open the next client's stream, which goes on with `of` where this block leaves it."""
        with torch_stream(seed, purpose, round_idx=round_idx, client_id=client_id):
            yield
            self._states.append(self._get())

    @contextmanager
    def of(self, slot: int) -> Iterator[None]:
        """Draw from one client's stream."""
        outside = self._get()
        self._set(self._states[slot])
        try:
            yield
        finally:
            self._states[slot] = self._get()
            self._set(outside)

    def _get(self) -> States:
        on_cpu = torch.get_rng_state()
        return (on_cpu, torch.cuda.get_rng_state(self._device)) if self._device.type == "cuda" else (on_cpu,)

    def _set(self, states: States) -> None:
        torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1], self._device)
