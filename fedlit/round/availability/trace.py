"""Traces: intervals in which each client is on, from a file such as a device log, or drawn.

A round lasts `round_s`. Who is on when it begins can be invited; who is still on at its end has sent its result.

Drawn intervals are those of an alternating renewal process: on and off times are exponential with the given means, and
a client begins in its long-run state, on with probability mean_on / (mean_on + mean_off). Each client has one stream.
A file's intervals begin anew after their last end, so that a short log serves a long run.
"""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedlit.errors import UserError
from fedlit.round.availability.base import Availability, Draws
from fedlit.round.availability.options import TraceOptions
from fedlit.round.availability.tables import client_of, read_numbers
from fedlit.seeding import numpy_generator

KEY = "cohort.options.path"
MOST_IN_A_ROUND = 1000


@dataclass(kw_only=True)
class _Switches:
    """The moments at which a client's state changes, drawn as far as somebody has asked."""

    stream: np.random.Generator
    is_on: bool
    means: tuple[float, float]
    at: list[float] = field(default_factory=list)

    def covers(self, start_s: float, end_s: float) -> bool:
        """Tell whether the client is on from start to end."""
        while not self.at or self.at[-1] <= end_s:
            on_now = self.is_on == (len(self.at) % 2 == 0)
            mean = self.means[0] if on_now else self.means[1]
            self.at.append((self.at[-1] if self.at else 0.0) + float(self.stream.exponential(mean)))
        place = bisect.bisect_right(self.at, start_s)
        return self.is_on == (place % 2 == 0) and self.at[place] >= end_s


@dataclass(frozen=True, kw_only=True)
class Trace(TraceOptions, Availability):
    """Clients take part while they are on."""

    _logged: Mapping[int, Sequence[tuple[float, float]]] = field(init=False, repr=False, compare=False)
    _length_s: float = field(init=False, repr=False, compare=False, default=0.0)
    _drawn: dict[tuple[int, int], _Switches] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Read the file, if there is one.

        Raises:
            UserError: what is wrong with it.
        """
        logged = {} if self.path is None else _read(self.path)
        object.__setattr__(self, "_logged", logged)
        ends = (end_s for intervals in logged.values() for _, end_s in intervals)
        object.__setattr__(self, "_length_s", max(ends, default=0.0))

    def require(self, draws: Draws) -> None:
        """Raise a UserError if the file knows none of the run's clients, or intervals are far shorter than a round."""
        if self.path is None and self.round_s > MOST_IN_A_ROUND * (self.mean_on_s + self.mean_off_s):
            raise UserError(
                f"cohort.options.round_s={self.round_s:g} holds more than {MOST_IN_A_ROUND} intervals of mean_on_s="
                f"{self.mean_on_s:g} and mean_off_s={self.mean_off_s:g}: nobody would be on all the time; give longer "
                "ones, or shorter rounds"
            )
        if self.path is not None and not any(client < draws.num_clients for client in self._logged):
            raise UserError(
                f"{KEY}={self.path} names no client of this run, whose clients are 0 to {draws.num_clients - 1}; "
                "give their numbers"
            )

    def reachable(self, num_clients: int, seed: int, round_idx: int) -> Sequence[int]:
        """Return the clients that are on when the round begins."""
        start_s = round_idx * self.round_s
        return [client for client in range(num_clients) if self._is_on(client, seed, start_s, start_s)]

    def arriving(self, invited: Sequence[int], seed: int, round_idx: int) -> tuple[int, ...]:
        """Return those who are on from the begin of the round to its end."""
        start_s, end_s = round_idx * self.round_s, (round_idx + 1) * self.round_s
        return tuple(client for client in invited if self._is_on(client, seed, start_s, end_s))

    def round_seconds(self) -> float | None:
        """Return how long every round lasts."""
        return self.round_s

    def _is_on(self, client: int, seed: int, start_s: float, end_s: float) -> bool:
        if self.path is not None:
            return _covered(self._logged.get(client, ()), self._length_s, start_s, end_s)
        key = seed, client
        if key not in self._drawn:
            stream = numpy_generator(seed, "trace", client_id=client)
            is_on = bool(stream.random() < self.mean_on_s / (self.mean_on_s + self.mean_off_s))
            self._drawn[key] = _Switches(stream=stream, is_on=is_on, means=(self.mean_on_s, self.mean_off_s))
        return self._drawn[key].covers(start_s, end_s)


def _covered(intervals: Sequence[tuple[float, float]], length_s: float, start_s: float, end_s: float) -> bool:
    """Tell whether joined intervals, repeated every `length_s`, hold all of start to end."""
    place, wanted_s = start_s % length_s, end_s - start_s
    held_until = next((end for begin, end in intervals if begin <= place < end), None)
    if held_until is None:
        return False
    if wanted_s <= held_until - place:
        return True
    if held_until < length_s or intervals[0][0] > 0:
        return False
    # Over the end of the log: the first interval goes on from it, for ever if it is the whole log.
    return intervals[0][1] >= length_s or wanted_s <= length_s - place + intervals[0][1]


def _read(path: str) -> dict[int, list[tuple[float, float]]]:
    """Return each client's intervals, sorted, those that touch made one."""
    found: dict[int, list[tuple[float, float]]] = {}
    for row in read_numbers(path, KEY, ("client", "start_s", "end_s")):
        start_s, end_s = row.values["start_s"], row.values["end_s"]
        if not start_s < end_s:
            raise UserError(
                f"{KEY}={path}, line {row.line}: start_s={start_s:g} is not before end_s={end_s:g}; mend it"
            )
        found.setdefault(client_of(path, KEY, row), []).append((start_s, end_s))
    return {client: _joined(intervals) for client, intervals in found.items()}


def _joined(intervals: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for start_s, end_s in sorted(intervals):
        if joined and start_s <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end_s)
        else:
            joined.append((start_s, end_s))
    return joined
