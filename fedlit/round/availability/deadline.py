"""A deadline on a simulated clock: late results are dropped, or used when they come.

Over-selection (Bonawitz et al., arXiv 1902.01046, section 2.2): more clients are invited than wanted, and the round
ends with the last one wanted. With `late=use` a client that is on its way is not invited again, and its result is
summed in the round in which it comes, times (1 + t)^-a for t rounds of staleness (Xie et al., arXiv 1903.03934).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from fedlit.round.availability.base import Draws, Window
from fedlit.round.availability.devices import Clocked
from fedlit.round.availability.options import DeadlineOptions


@dataclass(frozen=True, kw_only=True)
class Deadline(DeadlineOptions, Clocked):
    """Clients that are slower than the server's patience come late."""

    @property
    def keeps_late(self) -> bool:
        """Whether late results are used."""
        return self.late == "use"

    def discount(self, staleness: int) -> float:
        """Return (1 + t)^-a."""
        return float((1 + staleness) ** -self.staleness_exponent)

    def windows(self, draws: Draws) -> Iterator[Window]:
        """Yield the rounds from the first; times are those of one clock that begins with it."""
        now_s = 0.0
        under_way: dict[int, tuple[float, int]] = {}  # when a client's result comes, and the round in which it began
        for round_idx in count():
            idle = [client for client in range(draws.num_clients) if client not in under_way] if under_way else None
            invited = draws.invited(round_idx, idle)
            durations = {client: self.seconds(client, draws, round_idx) for client in invited}
            left_s = {client: at_s - now_s for client, (at_s, _) in under_way.items()}
            length_s = self._length_s(durations, draws, list(left_s.values()))
            in_time = sorted((seconds, client) for client, seconds in durations.items() if seconds <= length_s)
            if draws.num_invited > draws.cohort_size:  # those who end the round at one moment are not all wanted
                in_time = in_time[: draws.cohort_size]
            began = {client: round_idx for _, client in in_time}
            # By the same differences: now_s + (at_s - now_s) may be a bit less than at_s, and nobody would come.
            came = {client: start for client, (_, start) in under_way.items() if left_s[client] <= length_s}
            others = tuple(client for client in invited if client not in began)
            yield Window(
                invited=invited,
                began=dict(sorted({**began, **came}.items())),
                late=others if self.keeps_late else (),
                missed=() if self.keeps_late else others,
                durations_s=durations,
                round_s=length_s,
            )
            under_way = {client: entry for client, entry in under_way.items() if client not in came}
            if self.keeps_late:
                under_way |= {client: (now_s + durations[client], round_idx) for client in others}
            now_s += length_s

    def _length_s(self, durations: dict[int, float], draws: Draws, left_s: list[float]) -> float:
        """Return how long a round lasts: to the last result that the server waits for.

        left_s: of results that are under way from earlier rounds; with nobody invited the next of them is waited for.
        """
        wanted = sorted(durations.values())
        if draws.num_invited > draws.cohort_size:
            wanted = wanted[: draws.cohort_size]
        patience_s = float("inf") if self.deadline_s is None else self.deadline_s
        if not wanted:
            return min(patience_s, min(left_s, default=0.0))
        return min(patience_s, wanted[-1])
