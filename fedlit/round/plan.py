"""Who takes part in a round, with what weight, and what trains: known before anybody trains, from names alone.

Everything here is a pure function of (seed, round, client): the same on every process, before and after a kill.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from fedlit.round.availability.base import Always, Availability, Draws, Window, Work
from fedlit.seeding import numpy_generator

Weigh = Callable[[Sequence[int]], tuple[float, ...]]
"""From the training rows of some clients to their weights, which sum to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundPlan:
    """One round, before it happens.

    round_idx: counted from 0.
    invited: the clients that the server sends its state to, sorted.
    arriving: the clients whose result the round sums, sorted.
    weights: p_i of the arriving clients, summing to 1; none if nobody arrives.
    expected: where it is given, every p_i is a part of 1 / expected, and they need not sum to 1: a number that is fixed
    before anybody is drawn, as privacy asks.
    trains: names of the parameters that train in this round.
    began: the round in which an arriving client began, where it is an earlier one.
    trained: of each of these, the names of the parameters that trained then.
    late: invited ones that train now and whose result comes in a later round. missed: invited ones for whom nobody
    waits. All others who are invited and do not arrive stay away; neither they nor the missed train.
    durations_s: seconds of a simulated clock until a client's result is there; empty without a clock.
    round_s: seconds of that clock that the round lasts; None without a clock.
    watched: who is invited and who comes may differ, so that the record tells of both.
    """

    round_idx: int
    invited: tuple[int, ...]
    arriving: tuple[int, ...]
    weights: Mapping[int, float]
    trains: frozenset[str]
    durations_s: Mapping[int, float] = field(default_factory=dict)
    expected: int | None = None
    began: Mapping[int, int] = field(default_factory=dict)
    trained: Mapping[int, frozenset[str]] = field(default_factory=dict)
    late: tuple[int, ...] = ()
    missed: tuple[int, ...] = ()
    round_s: float | None = None
    watched: bool = False

    @property
    def training(self) -> tuple[int, ...]:
        """The clients that train in this round, sorted."""
        if not (self.began or self.late):
            return self.arriving
        return tuple(sorted({*self.arriving} - self.began.keys() | {*self.late}))

    def staleness(self, client_id: int) -> int:
        """Return how many rounds ago an arriving client began."""
        return self.round_idx - self.began.get(client_id, self.round_idx)


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


SAMPLINGS: Mapping[str, type[Sampling]] = {"fixed": FixedSize, "poisson": Poisson}
"""The package's own samplings by the names of `cohort.sampling`."""


class Timeline:
    """The windows of a run in their order, each made once, when somebody asks for it or for a later one."""

    def __init__(self, windows: Iterator[Window]) -> None:
        self._windows = windows
        self._known: list[Window] = []

    def __getitem__(self, round_idx: int) -> Window:
        """Return the window of a round."""
        while len(self._known) <= round_idx:
            self._known.append(next(self._windows))
        return self._known[round_idx]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The plans of all rounds of a run.

    num_examples: training rows of every client of the population. weigh: see Weigh. fixes_number: every mean divides by
    cohort_size, however many come.
    trains: from a round's index to the names of the parameters that train in it.
    over_selection: how many times cohort_size a round invites. work: what clients have to do, for a simulated clock.
    """

    seed: int
    num_examples: tuple[int, ...]
    cohort_size: int
    weigh: Weigh
    trains: Callable[[int], frozenset[str]]
    sampling: Sampling = field(default_factory=FixedSize)
    availability: Availability = field(default_factory=Always)
    fixes_number: bool = False
    over_selection: float = 1.0
    work: Work | None = None
    _draws: Draws = field(init=False, repr=False, compare=False)
    _timeline: Timeline | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise a UserError if the availability does not fit the clients."""
        num_invited = min(self.num_clients, math.ceil(round(self.cohort_size * self.over_selection, 9)))
        draws = Draws(
            seed=self.seed,
            num_clients=self.num_clients,
            cohort_size=self.cohort_size,
            num_invited=num_invited,
            sample=lambda num, size, round_idx: self.sampling.invited(num, size, self.seed, round_idx),
            work=self.work,
        )
        self.availability.require(draws)
        windows = self.availability.windows(draws)
        object.__setattr__(self, "_draws", draws)
        object.__setattr__(self, "_timeline", None if windows is None else Timeline(windows))

    @property
    def num_clients(self) -> int:
        """Clients of the population."""
        return len(self.num_examples)

    def plan(self, round_idx: int) -> RoundPlan:
        """Return the plan of a round."""
        if self._timeline is None:
            window = self.availability.window(self._draws, round_idx)
        else:
            window = self._timeline[round_idx]
        arriving = tuple(window.began)
        began = {client: start for client, start in window.began.items() if start != round_idx}
        return RoundPlan(
            round_idx=round_idx,
            invited=window.invited,
            arriving=arriving,
            weights=self._weights(window, round_idx),
            trains=self.trains(round_idx),
            durations_s=window.durations_s,
            expected=self.cohort_size if self._divides_by_cohort else None,
            began=began,
            trained={client: self.trains(start) for client, start in began.items()},
            late=window.late,
            missed=window.missed,
            round_s=None if window.round_s is None else float(window.round_s),
            watched=not isinstance(self.availability, Always) or self.over_selection > 1,
        )

    @property
    def _divides_by_cohort(self) -> bool:
        return self.fixes_number or self.availability.divides_by_cohort

    def _weights(self, window: Window, round_idx: int) -> dict[int, float]:
        """Return p_i of those who arrive; what is stale counts for less."""
        if not window.began:
            return {}
        discounts = [self.availability.discount(round_idx - began) for began in window.began.values()]
        if self._divides_by_cohort:
            return {client: each / self.cohort_size for client, each in zip(window.began, discounts, strict=True)}
        weights = self.weigh([self.num_examples[client] for client in window.began])
        if any(each != 1.0 for each in discounts):
            parts = [weight * each for weight, each in zip(weights, discounts, strict=True)]
            weights = tuple(part / math.fsum(parts) for part in parts)
        return dict(zip(window.began, weights, strict=True))

    def population_share(self, clients: Sequence[int]) -> float:
        """Return the part of the whole population's weight that some clients have; of a number that is fixed before
        they are drawn, its part: the number that came would tell of each of them.
        """
        if self._divides_by_cohort:
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
