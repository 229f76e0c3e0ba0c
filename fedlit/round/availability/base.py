"""What an availability is: from who is drawn to who takes part in a round, as a pure function of names.

A **window** is one round as the server sees it: whom it invites, whose results it sums at the end, and who trains
meanwhile for a later round. Without a clock all of it happens inside the round. With one, a client may be on its way
for several rounds: what it sends is then the change that it made to the server it began from.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from fedlit.errors import UserError
from fedlit.seeding import numpy_generator


class Work(Protocol):
    """What a client has to do in a round, for a simulated clock; the same on every process."""

    def tokens(self, client_id: int, round_idx: int) -> int:
        """Return the tokens that it trains on, each time it does."""
        ...

    def downlink_bytes(self, round_idx: int) -> int:
        """Return what it receives first."""
        ...

    def uplink_bytes(self, round_idx: int) -> int:
        """Return what it sends at the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Whom a round may draw from, and how.

    num_clients: of the population. cohort_size: clients that a round wants. num_invited: clients that it invites, more
    than that with over-selection. sample: (number of clients to draw from, number wanted, round_idx) to sorted places.
    work: what clients have to do; None where no clock will ask.
    """

    seed: int
    num_clients: int
    cohort_size: int
    num_invited: int
    sample: Callable[[int, int, int], tuple[int, ...]]
    work: Work | None = None

    def invited(self, round_idx: int, among: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return the clients that a round invites, sorted: of all, or of those that can be reached."""
        if among is None:
            return self.sample(self.num_clients, min(self.num_invited, self.num_clients), round_idx)
        if not among:
            return ()
        places = self.sample(len(among), min(self.num_invited, len(among)), round_idx)
        return tuple(among[place] for place in places)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One round, as far as it is known who comes when.

    invited: the clients that get the server's state, sorted. began: the clients whose result the round sums, sorted,
    each with the round in which it began. late: invited ones that train now and come in a later round. missed: invited
    ones whose result comes when nobody waits for it; they do not train here.
    durations_s: simulated seconds from a client's begin to its result, of those invited; empty without a clock.
    round_s: simulated seconds of the round; None without a clock.
    """

    invited: tuple[int, ...]
    began: Mapping[int, int]
    late: tuple[int, ...] = ()
    missed: tuple[int, ...] = ()
    durations_s: Mapping[int, float] = field(default_factory=dict)
    round_s: float | None = None


@dataclass(frozen=True)
class Availability(ABC):
    """Tells which invited clients come back, and when; a pure function of (seed, round, client).

    keeps_late: results may come in a later round than the one that their client began in.
    divides_by_cohort: the weights of a round are divided by `cohort_size` and do not sum to 1.
    """

    divides_by_cohort: ClassVar[bool] = False

    @property
    def keeps_late(self) -> bool:
        """Whether a result may come in a later round than the one that its client began in."""
        return False

    @abstractmethod
    def arriving(self, invited: Sequence[int], seed: int, round_idx: int) -> tuple[int, ...]:
        """Return those of `invited` whose result arrives, sorted."""

    def durations_s(self, invited: Sequence[int], seed: int, round_idx: int) -> Mapping[int, float]:
        """Return the simulated seconds of each client; nothing without a clock."""
        return {}

    def round_seconds(self) -> float | None:
        """Return the simulated seconds of every round, where they do not depend on who comes."""
        return None

    def reachable(self, num_clients: int, seed: int, round_idx: int) -> Sequence[int] | None:
        """Return the clients that can be invited, sorted; None for all of them."""
        return None

    def require(self, draws: Draws) -> None:  # noqa: B027  may be left out
        """Raise a UserError if this run's clients do not fit."""

    def discount(self, staleness: int) -> float:
        """Return the factor of the weight of a result that comes `staleness` rounds after its client began."""
        return 1.0

    def window(self, draws: Draws, round_idx: int) -> Window:
        """Return a round; of more clients than wanted, those that come first, in an order that is drawn."""
        invited = draws.invited(round_idx, self.reachable(draws.num_clients, draws.seed, round_idx))
        coming = tuple(int(client) for client in self.arriving(invited, draws.seed, round_idx))
        durations_s = self.durations_s(invited, draws.seed, round_idx)
        self._require_sense(invited, coming, durations_s, round_idx)
        missed: tuple[int, ...] = ()
        if draws.num_invited > draws.cohort_size < len(coming):
            drawn = numpy_generator(draws.seed, "cohort/order", round_idx=round_idx).permutation(len(coming))
            order = sorted(drawn, key=lambda place: durations_s[coming[place]] if durations_s else 0.0)
            first = sorted(coming[place] for place in order[: draws.cohort_size])
            missed, coming = tuple(sorted(set(coming) - set(first))), tuple(first)
        round_s = self.round_seconds()
        if round_s is None and durations_s:
            round_s = max((durations_s[client] for client in coming), default=0.0)
        return Window(
            invited=invited,
            began=dict.fromkeys(coming, round_idx),
            missed=missed,
            durations_s=durations_s,
            round_s=round_s,
        )

    def _require_sense(
        self, invited: Sequence[int], coming: Sequence[int], durations_s: Mapping[int, float], round_idx: int
    ) -> None:
        """Raise a UserError if what a part tells of a round cannot be."""
        told = f"round {round_idx + 1}: {type(self).__name__}"
        if list(coming) != sorted(set(coming) & set(invited)):
            raise UserError(
                f"{told}.arriving() returned {list(coming)!s:.100} of {list(invited)!s:.100}; let it return some of "
                "these, sorted, each once"
            )
        for client in coming if durations_s else ():
            if not 0 <= (seconds := durations_s.get(client, math.nan)) < math.inf:
                found = f"{seconds} for" if client in durations_s else "nothing for"
                raise UserError(
                    f"{told}.durations_s() returned {found} client {client}, who comes; let it return a number of "
                    "seconds of at least 0 for everybody who comes"
                )

    def windows(self, draws: Draws) -> Iterator[Window] | None:
        """Return the rounds from the first, where one depends on those before it; None where none does."""
        return None


@dataclass(frozen=True)
class Always(Availability):
    """Whoever is invited comes back."""

    def arriving(self, invited: Sequence[int], seed: int, round_idx: int) -> tuple[int, ...]:
        """Return all."""
        return tuple(invited)
