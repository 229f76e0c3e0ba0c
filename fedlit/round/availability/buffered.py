"""FedBuff: clients train without rounds, and the server steps when `cohort_size` results are in its buffer.

Nguyen et al., Federated Learning with Buffered Asynchronous Aggregation, arXiv 2106.06639, algorithm 1: K results make
one step, w <- w + (eta_g / K) sum_i s(t_i) Delta_i. Delta_i is what client i changed in the server state that it began
from, t_i the number of server steps since then, s(t) = (1 + t)^-a with a = 1/2. `concurrency` clients are under way at
any time. eta_g is `server.lr` of `server.optimizer=fedavgm` with `server.beta1=0`, and 1 without it.

A round is one server step. All who begin between two steps begin from the same state, so they are clients of one round,
and their results come in that round or in a later one. A client begins at most once between two steps, and one whose
result has come waits for the next state; the paper leaves that open.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

from fedlit.errors import UserError
from fedlit.round.availability.base import Draws, Window
from fedlit.round.availability.devices import Clocked
from fedlit.round.availability.options import BufferedOptions
from fedlit.seeding import numpy_generator


@dataclass(frozen=True, kw_only=True)
class Buffered(BufferedOptions, Clocked):
    """The server steps when its buffer is full."""

    divides_by_cohort: ClassVar[bool] = True

    @property
    def keeps_late(self) -> bool:
        """Whether results come in later rounds: always."""
        return True

    def discount(self, staleness: int) -> float:
        """Return s(t) = (1 + t)^-a."""
        return float((1 + staleness) ** -self.staleness_exponent)

    def require(self, draws: Draws) -> None:
        """Raise a UserError if more clients are to train at a time than there are."""
        super().require(draws)
        if self.concurrency is not None and self.concurrency > draws.num_clients:
            raise UserError(
                f"cohort.options.concurrency={self.concurrency} is more than num_clients={draws.num_clients}; give "
                "that many or fewer"
            )

    def windows(self, draws: Draws) -> Iterator[Window]:
        """Yield the rounds from the first; times are those of one clock that begins with it."""
        concurrency = self.concurrency or min(2 * draws.cohort_size, draws.num_clients)
        now_s = 0.0
        under_way: list[tuple[float, int, int]] = []  # when a result comes, its client, the round in which it began
        for round_idx in count():
            begin_s, came = now_s, dict[int, int]()
            durations: dict[int, float] = {}
            order = numpy_generator(draws.seed, "cohort", round_idx=round_idx).permutation(draws.num_clients).tolist()
            busy = {client for _, client, _ in under_way}
            waiting = [client for client in reversed(order) if client not in busy]
            while len(came) < draws.cohort_size:
                while len(under_way) < concurrency and waiting:
                    client = waiting.pop()
                    durations[client] = self.seconds(client, draws, round_idx)
                    heapq.heappush(under_way, (now_s + durations[client], client, round_idx))
                now_s, client, began = heapq.heappop(under_way)
                came[client] = began
            invited = tuple(sorted(durations))
            yield Window(
                invited=invited,
                began=dict(sorted(came.items())),
                late=tuple(client for client in invited if came.get(client) != round_idx),
                durations_s={client: durations[client] for client in invited},
                round_s=now_s - begin_s,
            )
