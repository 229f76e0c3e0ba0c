"""A round with secure aggregation against a plain one: `python experiments/benchmarks/masks.py`.

One process with n clients whose tensors are in memory. On the plain side what a round does with them: `encode` and
`add` to the fixed-point sum for each client, `reduce`. On the masked side the same with everything that secure
aggregation adds, for all n clients and the server: keys, agreements, shares, masks on each client's integers, and the
recovery of one secret of each client, with its mask taken off the sum. Both must give the same bits.

In a federation of machines each client does its part on its own; here one core does all n of them, so a complete graph
costs n * n masks. The note has the milliseconds of one client.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from lines import Line, add_arguments, tell
from paired_timing import Elapsed, Ratio, Stopwatch, interleave, median, pin
from torch import Tensor

from fedlit.round.fixed_point import FixedPointSum, encode
from fedlit.secure import SecureAggregation
from fedlit.secure.channel import MaskedChannel

DISTINCT = 4
"""Different clients' tensors in memory; the others have the same numbers and masks of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One round.

    num_clients: n. num_integers: P. neighbours: k, None for all. lost: clients that sent nothing. turns: timings of
    each side. repeats: rounds in a timing.
    """

    num_clients: int
    num_integers: int
    neighbours: int | None = None
    lost: int = 0
    turns: int
    repeats: int = 1

    def __str__(self) -> str:
        graph = "complete" if self.neighbours is None else f"k = {self.neighbours}"
        lost = f", {self.lost} lost" if self.lost else ""
        return f"{self.num_clients} clients, {self.num_integers:,} integers, {graph}{lost}"


def cases(*, quick: bool) -> list[Case]:
    """Return the rounds that are measured."""
    if quick:
        return [Case(num_clients=6, num_integers=5_000, turns=6, repeats=20)]
    return [
        Case(num_clients=10, num_integers=10**5, turns=30, repeats=3),
        Case(num_clients=10, num_integers=10**6, turns=20),
        Case(num_clients=100, num_integers=10**5, turns=12),
        Case(num_clients=100, num_integers=10**5, neighbours=20, turns=12),
        Case(num_clients=100, num_integers=10**6, turns=6),
        Case(num_clients=100, num_integers=10**6, neighbours=20, turns=8),
        Case(num_clients=100, num_integers=10**6, neighbours=20, lost=5, turns=6),
    ]


class Sides:
    """Both ways to the sum of one round."""

    def __init__(self, case: Case) -> None:
        generator = torch.Generator().manual_seed(0)
        self._case = case
        self._server = {"factor": torch.randn(case.num_integers, generator=generator)}
        self._values = [
            {"factor": self._server["factor"] + 1e-3 * torch.randn(case.num_integers, generator=generator)}
            for _ in range(min(DISTINCT, case.num_clients))
        ]
        self._protocol = SecureAggregation(seed=0, neighbours=case.neighbours)
        self._senders = range(case.num_clients)[case.lost :]
        self._rounds = itertools.count()

    def plain(self) -> Tensor:
        """Return the sum of the clients that sent something."""
        total = FixedPointSum(self._server)
        for client in self._senders:
            total.add(encode(self._values[client % len(self._values)], self._server, 1 / self._case.num_clients))
        return total.reduce()

    def masked(self) -> Tensor:
        """Return the same sum of masked clients; each call is a round with keys of its own."""
        channel = MaskedChannel(self._protocol, next(self._rounds), range(self._case.num_clients), self._senders)
        total = FixedPointSum(self._server)
        for client in self._senders:
            encoded = encode(self._values[client % len(self._values)], self._server, 1 / self._case.num_clients)
            total.add(channel.sent(client, encoded, 0))
        reason = channel.close(self._senders)
        if reason is not None:
            sys.exit(f"the round of {self._case} is void: {reason}")
        channel.before_reduce(total.reduce(), 0, 0, 1)  # one process: its sum is the whole one
        return total.reduce()

    def require_agreement(self) -> None:
        """Stop unless both sides give the same bits."""
        if not torch.equal(self.plain(), self.masked()):
            sys.exit(f"the masked sum of {self._case} is not the plain one")


def timed(work: Callable[[], object], repeats: int) -> Callable[[], Elapsed]:
    """Return a function that does the work so often and returns the time of all."""

    def block() -> Elapsed:
        watch = Stopwatch()
        for _ in range(repeats):
            work()
        return watch.elapsed()

    return block


def measure(case: Case) -> Line:
    """Return the line of one case."""
    sides = Sides(case)
    sides.require_agreement()
    variants = {"plain": sides.plain, "plain again": sides.plain, "masked": sides.masked}
    found = interleave({name: timed(work, case.repeats) for name, work in variants.items()}, case.turns, seed=0)
    seconds = {name: [one.cpu_s / case.repeats for one in timings] for name, timings in found.items()}
    return line_of(case, seconds["plain"], seconds["plain again"], seconds["masked"])


def line_of(case: Case, plain: Sequence[float], again: Sequence[float], masked: Sequence[float]) -> Line:
    """Return what the timings of one case say, seconds of a round each."""
    ratio = Ratio.of(masked, plain)
    each = [1e3 * median(side) / (case.num_clients - case.lost) for side in (plain, masked)]
    return Line(
        what=f"a masked round over a plain one: {case}",
        value=ratio.median,
        interval=ratio.interval,
        null=Ratio.of(again, plain).median,
        note=f"CPU s of a round: {median(plain):.3f}, {median(masked):.3f}; "
        f"ms of a client: {each[0]:.2f}, {each[1]:.2f}",
    )


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    pin()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="the cases whose names have this in them")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chosen = [case for case in cases(quick=options.quick) if options.only in str(case)]
    tell("masks", [measure(case) for case in chosen], options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
