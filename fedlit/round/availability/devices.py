"""A simulated clock: how long a client takes, from its tokens, its device and the bytes over its link.

    seconds = bytes down / downlink + jitter * tokens / speed + bytes up / uplink

Without a file a client's speed and its link are log-normal around the given medians, drawn once for the run: ln speed
has the standard deviation `spread`, and so has ln link, by a draw of its own that moves both directions. Jitter is
log-normal around 1, drawn for every round and client. A file names the devices of single clients, or of shares of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedlit.errors import UserError
from fedlit.ranges import POSITIVE
from fedlit.round.availability.base import Availability, Draws
from fedlit.round.availability.options import DeviceOptions
from fedlit.round.availability.tables import NumberRow, client_of, read_numbers
from fedlit.seeding import numpy_generator

KEY = "cohort.options.devices"
NUMBERS = ("tokens_per_s", "downlink_mbps", "uplink_mbps")


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """What one client computes with and sends over: tokens a second, and millions of bits a second."""

    tokens_per_s: float
    downlink_mbps: float
    uplink_mbps: float

    def seconds(self, *, tokens: float, down_bytes: int, up_bytes: int) -> float:
        """Return the time of one round."""
        bits = 8e-6
        return down_bytes * bits / self.downlink_mbps + tokens / self.tokens_per_s + up_bytes * bits / self.uplink_mbps


@dataclass(frozen=True, kw_only=True)
class Clocked(DeviceOptions, Availability):
    """An availability that knows how long each client takes."""

    _given: Mapping[int, Device] = field(init=False, repr=False, compare=False, default_factory=dict)
    _classes: Sequence[tuple[float, Device]] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        """Read the file, if there is one.

        Raises:
            UserError: what is wrong with it.
        """
        if self.devices is not None:
            given, classes = _read(self.devices)
            object.__setattr__(self, "_given", given)
            object.__setattr__(self, "_classes", classes)

    def require(self, draws: Draws) -> None:
        """Raise a UserError if a client of the run has no device."""
        lacking = [client for client in range(draws.num_clients) if client not in self._given]
        if self._given and lacking:
            raise UserError(
                f"{KEY}={self.devices} has no line for client {lacking[0]} ({len(lacking)} such); give one for each of "
                f"the clients 0 to {draws.num_clients - 1}, or a column share instead of client"
            )

    def arriving(self, invited: Sequence[int], seed: int, round_idx: int) -> tuple[int, ...]:
        """Return all: who is in time depends on the work, which `windows` knows."""
        return tuple(invited)

    def device(self, client_id: int, seed: int) -> Device:
        """Return the device of a client."""
        if client_id in self._given:
            return self._given[client_id]
        stream = numpy_generator(seed, "device", client_id=client_id)
        if self._classes:
            place = float(stream.random()) * sum(share for share, _ in self._classes)
            for share, device in self._classes:
                place -= share
                if place < 0:
                    return device
            return self._classes[-1][1]
        speed, link = (math.exp(self.spread * float(draw)) for draw in stream.standard_normal(2))
        return Device(
            tokens_per_s=self.tokens_per_s * speed,
            downlink_mbps=self.downlink_mbps * link,
            uplink_mbps=self.uplink_mbps * link,
        )

    def seconds(self, client_id: int, draws: Draws, round_idx: int) -> float:
        """Return the time from a client's invitation to its result."""
        assert draws.work is not None, "a clock needs the clients' work"
        stream = numpy_generator(draws.seed, "jitter", round_idx=round_idx, client_id=client_id)
        jitter = math.exp(self.jitter * float(stream.standard_normal()))
        return self.device(client_id, draws.seed).seconds(
            tokens=jitter * draws.work.tokens(client_id, round_idx),
            down_bytes=draws.work.downlink_bytes(round_idx),
            up_bytes=draws.work.uplink_bytes(round_idx),
        )


def _read(path: str) -> tuple[dict[int, Device], list[tuple[float, Device]]]:
    """Return the devices of a file: by client, or with shares; one of both is empty."""
    rows = read_numbers(path, KEY, NUMBERS, ("client", "share"))
    columns = rows[0].values.keys() & {"client", "share"}
    if len(columns) != 1:
        which = "both columns client and share" if columns else "neither a column client nor a column share"
        raise UserError(f"{KEY}={path} has {which}; give one of them")
    if "share" in columns:
        if not sum(row.values["share"] for row in rows) > 0:
            raise UserError(f"{KEY}={path}: the shares sum to 0; give one above 0")
        return {}, [(row.values["share"], _device(path, row)) for row in rows]
    given: dict[int, Device] = {}
    for row in rows:
        client = client_of(path, KEY, row)
        if client in given:
            raise UserError(f"{KEY}={path}, line {row.line}: client {client} has a line already; leave one of them out")
        given[client] = _device(path, row)
    return given, []


def _device(path: str, row: NumberRow) -> Device:
    for name in NUMBERS:
        value = row.values[name]
        if not POSITIVE.contains(value):
            raise UserError(f"{KEY}={path}, line {row.line}: {name}={value:g} is out of range; give {POSITIVE.text}")
    return Device(**{name: row.values[name] for name in NUMBERS})
