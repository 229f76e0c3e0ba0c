"""Dropout: each invited client sends nothing with one probability, by a coin of its own in every round."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedlit.round.availability.base import Availability
from fedlit.round.availability.options import BernoulliOptions
from fedlit.seeding import numpy_generator


@dataclass(frozen=True, kw_only=True)
class Bernoulli(BernoulliOptions, Availability):
    """Clients come back by coins that know nothing of one another."""

    def arriving(self, invited: Sequence[int], seed: int, round_idx: int) -> tuple[int, ...]:
        """Return those whose coin says so."""
        return tuple(
            client
            for client in invited
            if numpy_generator(seed, "dropout", round_idx=round_idx, client_id=client).random() >= self.dropout
        )
