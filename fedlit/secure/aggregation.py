"""Secure aggregation of a run: its options, and the channel of each round.

The protocol is that of Bonawitz et al. 2017 (eprint 2017/281) over integers modulo 2**64, with the graph of SecAgg+
(Bell et al. 2020, eprint 2020/704). What it hides: the server, if it follows the protocol, learns the sum of a round
and no client's part in it, also when clients are lost at any step.

All of it is really done, keys, shares, masks and their removal, but by one program: this is a simulation within one
trust domain. Secrets come from named streams, where a deployment uses each machine's own randomness. There is no
public-key infrastructure and no check that the server shows all clients the same list (the paper's steps against a
server that lies).
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from fedlit.errors import UserError
from fedlit.secure.graph import draw_graph
from fedlit.secure.messages import SecureTraffic, traffic_of_client
from fedlit.secure.primitives import require_library
from fedlit.seeding import numpy_generator

FEWEST = 3
"""Of one client the sum is its vector; of two, each knows the other's by taking off its own."""


@dataclass(frozen=True, kw_only=True)
class SecureAggregation:
    """Built once a run.

    Args:
        seed: of the run.
        threshold: share of a client's neighbours and itself whose answers are needed, above 1/2. 0.6667 of n asks for
            floor(2 n / 3) + 1, the paper's bound against a server that lies.
        neighbours: k of the graph, at least 2; None for the complete one.
        unmask_dropout: probability that a client vanishes between sending and unmasking.

    Raises:
        UserError: a value is out of range, or the library is not installed.
    """

    seed: int
    threshold: float = 0.6667
    neighbours: int | None = None
    unmask_dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0.5 < self.threshold <= 1:
            raise UserError(
                f"privacy.threshold={self.threshold:g}: a server that asks one half of a client's neighbours for each "
                "of its two secrets would get both; take more than 0.5 and at most 1"
            )
        if self.neighbours is not None and self.neighbours < 2:
            raise UserError(
                f"privacy.neighbours={self.neighbours}: the masks of pairs leave sums of two clients readable; "
                "take 2 or more, or null for all clients of the round"
            )
        if not 0 <= self.unmask_dropout <= 1:
            raise UserError(f"privacy.unmask_dropout={self.unmask_dropout:g}: a share of clients; take 0 to 1")
        require_library()

    @staticmethod
    def require_cohort(cohort_size: int) -> None:
        """Raise a UserError if rounds of a fixed size are too small to hide anybody.

        Of rounds whose size is drawn, those that come out too small are void (`MaskedChannel.close`).
        """
        if cohort_size < FEWEST:
            raise UserError(
                f"privacy.secure_aggregation=true with rounds of {cohort_size} client{'s' * (cohort_size != 1)}: "
                f"{_shown(cohort_size)}; take cohort_size={FEWEST} or more"
            )

    def num_shares_needed(self, num_neighbours: int) -> int:
        """Return t for a client with k neighbours: threshold * (k + 1), rounded up, the decimal as it is written."""
        return math.ceil(Fraction(repr(float(self.threshold))) * (num_neighbours + 1))

    def vanishes(self, round_idx: int, client_id: int) -> bool:
        """Return whether a client that has sent something is gone before it helps to unmask; a named stream."""
        if not self.unmask_dropout:
            return False
        draws = numpy_generator(self.seed, "secure/vanishes", round_idx=round_idx, client_id=client_id)
        return bool(draws.random() < self.unmask_dropout)

    def expected_traffic(self, cohort_size: int, num_integers: int) -> SecureTraffic:
        """Return the bytes of all clients of a round of which nobody is lost; num_integers: P of all sums together."""
        graph = draw_graph(range(cohort_size), self.neighbours, numpy_generator(self.seed, "secure/graph"))
        clients = (traffic_of_client(len(others), num_integers=num_integers) for others in graph.values())
        return sum(clients, start=SecureTraffic())


def _shown(num: int) -> str:
    return (
        "the sum of one client is its own change"
        if num == 1
        else "each of two clients could compute the other's change"
    )


def too_few(num: int) -> str:
    """Return why a round of one or two senders is void."""
    return f"{num} client{'s' * (num != 1)} sent something, and {_shown(num)}; {FEWEST} or more are needed"
