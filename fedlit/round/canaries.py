"""Clients of an audit: each has a direction of its own, and is in or out by a coin.

Steinke, Nasr, Jagielski, Privacy Auditing with One (1) Training Run, arXiv 2305.08846. A canary that is in sends the
server's tensors moved along its direction, further than the clip norm lets it go, whenever it is drawn; one that is out
stays away. Its score is how far the means of all rounds moved along its direction. Whoever sees the means and the
directions, but not the coins, guesses the coins from the scores, and a mechanism with a small epsilon lets nobody guess
well.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlit.algebra.tensors import TensorDict
from fedlit.round.plan import Sampling
from fedlit.seeding import numpy_generator

OVERSHOOT = 2.0
"""How many clip norms a canary's change is long: clipping is a part of what is audited."""


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """The canaries of a run.

    first: number of the first one, after those of all clients. num: how many there are.
    """

    seed: int
    first: int
    num: int

    @property
    def clients(self) -> range:
        """Their numbers."""
        return range(self.first, self.first + self.num)

    def is_in(self, client_id: int) -> bool:
        """Return a canary's coin: whether it takes part."""
        return bool(numpy_generator(self.seed, "canary coin", client_id=client_id).integers(2))

    def direction(self, client_id: int, like: Mapping[str, Tensor], moving: Collection[str]) -> TensorDict:
        """Return a canary's unit vector over the tensors that train, in float64, by name; on the CPU."""
        generator = numpy_generator(self.seed, "canary direction", client_id=client_id)
        drawn = {name: torch.from_numpy(generator.standard_normal(tuple(like[name].shape))) for name in sorted(like)}
        chosen = {name: tensor for name, tensor in drawn.items() if name in moving}
        norm = sum(float(tensor.square().sum()) for tensor in chosen.values()) ** 0.5
        return {name: tensor / norm for name, tensor in chosen.items()}

    def scores(self, before: TensorDict, mean: TensorDict, moving: Collection[str]) -> Tensor:
        """Return how far a round's mean moved along each canary's direction (num,), in float64."""
        moved = {name: mean[name].cpu().double() - before[name].cpu().double() for name in before if name in moving}
        found = []
        for client_id in self.clients:
            direction = self.direction(client_id, before, moving)
            found.append(sum(float((moved[name] * part).sum()) for name, part in direction.items()))
        return torch.tensor(found, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class WithoutThoseOut(Sampling):
    """Draws clients and canaries alike, and leaves out the canaries whose coin says so."""

    inner: Sampling
    canaries: Canaries

    def invited(self, num_clients: int, cohort_size: int, seed: int, round_idx: int) -> tuple[int, ...]:
        """Return the clients that were drawn, and those canaries that are in."""
        drawn = self.inner.invited(num_clients, cohort_size, seed, round_idx)
        return tuple(each for each in drawn if each not in self.canaries.clients or self.canaries.is_in(each))
