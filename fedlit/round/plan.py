"""Who takes part in a round, with what weight, and what trains: known before anybody trains, from names alone.

Everything here is a pure function of (seed, round, client): the same on every process, before and after a kill.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from fedlit.seeding import numpy_generator

Weigh = Callable[[Sequence[int]], tuple[float, ...]]
"""From the training rows of some clients to their weights, which sum to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundPlan:
    """One round, before it happens.

    round_idx: counted from 0.
    invited: the clients that the server sends its state to, sorted.
    arriving: those of them whose result will be there in time, sorted; the others do not train.
    weights: p_i of the arriving clients, summing to 1; none if nobody arrives.
    expected: where it is given, every p_i is 1 / expected, and they need not sum to 1: a number that is fixed before
    anybody is drawn, as privacy asks.
    trains: names of the parameters that train in this round.
    durations_s: seconds of a simulated clock until a client's result is there; empty without a clock.
    """

    round_idx: int
    invited: tuple[int, ...]
    arriving: tuple[int, ...]
    weights: Mapping[int, float]
    trains: frozenset[str]
    durations_s: Mapping[int, float] = field(default_factory=dict)
    expected: int | None = None


@dataclass(frozen=True)
class Sampling(ABC):
    """Draws the clients that a round invites."""

    always_fills: ClassVar[bool] = False
    """Whether every round has `cohort_size` clients."""

    @abstractmethod
    def invited(self, num_clients: int, cohort_size: int, seed: int, round_idx: int) -> tuple[int, ...]:
        """Return sorted client ids; a pure function of its arguments."""


@dataclass(frozen=True)
class FixedSize(Sampling):
    """`cohort_size` clients without replacement (McMahan et al., arXiv 1602.05629)."""

    always_fills: ClassVar[bool] = True

    def invited(self, num_clients: int, cohort_size: int, seed: int, round_idx: int) -> tuple[int, ...]:
        """Return the round's clients, all of them without a draw where that many are asked for."""
        if cohort_size == num_clients:
            return tuple(range(num_clients))
        generator = numpy_generator(seed, "cohort", round_idx=round_idx)
        return tuple(sorted(int(client) for client in generator.choice(num_clients, size=cohort_size, replace=False)))


@dataclass(frozen=True)
class Poisson(Sampling):
    """Each client by itself with probability cohort_size / num_clients; a round may be empty.

    What the amplification by sampling of differential privacy assumes (Abadi et al., arXiv 1607.00133).
    """

    def invited(self, num_clients: int, cohort_size: int, seed: int, round_idx: int) -> tuple[int, ...]:
        """Return the clients whose draw is below the probability; each draw has a stream of its own."""
        share = cohort_size / num_clients
        draws = (
            numpy_generator(seed, "cohort", round_idx=round_idx, client_id=client).random()
            for client in range(num_clients)
        )
        return tuple(client for client, draw in enumerate(draws) if draw < share)


@dataclass(frozen=True)
class Availability(ABC):
    """Tells which invited clients come back, and when; a pure function of (seed, round, client)."""

    @abstractmethod
    def arriving(self, invited: Sequence[int], seed: int, round_idx: int) -> tuple[int, ...]:
        """Return those of `invited` whose result arrives, sorted."""

    def durations_s(self, invited: Sequence[int], seed: int, round_idx: int) -> Mapping[int, float]:
        """Return the simulated seconds of each client; nothing without a clock."""
        return {}


@dataclass(frozen=True)
class Always(Availability):
    """Whoever is invited comes back."""

    def arriving(self, invited: Sequence[int], seed: int, round_idx: int) -> tuple[int, ...]:
        """Return all."""
        return tuple(invited)


SAMPLINGS: Mapping[str, type[Sampling]] = {"fixed": FixedSize, "poisson": Poisson}
AVAILABILITIES: Mapping[str, type[Availability]] = {"always": Always}
"""The package's own parts of a plan by the names of `cohort.sampling` and `cohort.availability`."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The plans of all rounds of a run.

    num_examples: training rows of every client of the population. weigh: see Weigh. fixes_number: every mean divides by
    cohort_size, however many come.
    trains: from a round's index to the names of the parameters that train in it.
    """

    seed: int
    num_examples: tuple[int, ...]
    cohort_size: int
    weigh: Weigh
    trains: Callable[[int], frozenset[str]]
    sampling: Sampling = field(default_factory=FixedSize)
    availability: Availability = field(default_factory=Always)
    fixes_number: bool = False

    @property
    def num_clients(self) -> int:
        """Clients of the population."""
        return len(self.num_examples)

    def plan(self, round_idx: int) -> RoundPlan:
        """Return the plan of a round."""
        invited = self.sampling.invited(self.num_clients, self.cohort_size, self.seed, round_idx)
        arriving = tuple(self.availability.arriving(invited, self.seed, round_idx))
        assert list(arriving) == sorted(set(arriving) & set(invited)), "those who arrive are invited, sorted, once each"
        weights = self.weigh([self.num_examples[client] for client in arriving]) if arriving else ()
        if self.fixes_number:
            weights = (1 / self.cohort_size,) * len(arriving)
        return RoundPlan(
            round_idx=round_idx,
            invited=invited,
            arriving=arriving,
            weights=dict(zip(arriving, weights, strict=True)),
            trains=self.trains(round_idx),
            durations_s=self.availability.durations_s(invited, self.seed, round_idx),
            expected=self.cohort_size if self.fixes_number else None,
        )

    def population_share(self, clients: Sequence[int]) -> float:
        """Return the part of the whole population's weight that some clients have; of a number that is fixed before
        they are drawn, its part: the number that came would tell of each of them.
        """
        if self.fixes_number:
            return self.cohort_size / self.num_clients
        weights = self.weigh(self.num_examples)
        return sum(weights[client] for client in clients)


def weights_by_examples(num_examples: Sequence[int]) -> tuple[float, ...]:
    """Return p_i = num_examples_i / sum, in float64."""
    total = sum(num_examples)
    return tuple(count / total for count in num_examples)


def uniform_weights(num_examples: Sequence[int]) -> tuple[float, ...]:
    """Return p_i = 1 / n."""
    return (1.0 / len(num_examples),) * len(num_examples)
