"""The options of who comes back and when, apart from what needs NumPy."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedlit.options import NoOptions, option
from fedlit.ranges import FRACTION, NOT_NEGATIVE, POSITIVE, POSITIVE_COUNT, Range

LATE = ("drop", "use")
UP_TO_TEN = Range(lambda value: 0 <= value <= 10, "a number from 0 to 10")
"""Of the deviation of a logarithm: e to the tenth is 22,000."""


@dataclass(frozen=True, kw_only=True)
class BernoulliOptions:
    """Dropout by coins."""

    dropout: float = option(
        0.2, "probability that an invited client sends nothing, by itself in every round", range=FRACTION
    )


@dataclass(frozen=True, kw_only=True)
class TraceOptions:
    """Intervals in which clients are on."""

    path: str | None = option(
        None, "CSV file of the intervals: client (its number), start_s, end_s; null to draw them for each client"
    )
    round_s: float = option(
        600.0, "seconds that a round lasts; a client takes part if it is on all the time", range=POSITIVE
    )
    mean_on_s: float = option(3600.0, "mean of a drawn interval in which a client is on, in seconds", range=POSITIVE)
    mean_off_s: float = option(3600.0, "mean of a drawn interval in which it is off, in seconds", range=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """A simulated clock: what a client computes with, and over which link it sends."""

    tokens_per_s: float = option(1000.0, "tokens that the median client trains on in a second", range=POSITIVE)
    downlink_mbps: float = option(
        50.0, "millions of bits a second from the server to the median client", range=POSITIVE
    )
    uplink_mbps: float = option(10.0, "millions of bits a second from the median client to the server", range=POSITIVE)
    spread: float = option(
        0.5,
        "standard deviation of the logarithm of a client's speed, and of its link's, drawn once for the run",
        range=UP_TO_TEN,
    )
    jitter: float = option(
        0.1, "standard deviation of the logarithm of a round's time around its client's own", range=UP_TO_TEN
    )
    devices: str | None = option(
        None,
        "CSV file of devices: tokens_per_s, downlink_mbps, uplink_mbps, and client (its number) or share (of the "
        "clients that have such a one); null to draw by spread",
    )


@dataclass(frozen=True, kw_only=True)
class DeadlineOptions(DeviceOptions):
    """A deadline on the simulated clock."""

    deadline_s: float | None = option(
        None, "seconds after which the server waits no longer; null to wait for all who were invited", range=POSITIVE
    )
    late: str = option(
        "drop",
        "results that come later: drop, or use in the round in which they come",
        values=LATE,
    )
    staleness_exponent: float = option(
        0.5, "a: a result that is t rounds late has (1 + t)^-a times its weight (late=use)", range=NOT_NEGATIVE
    )


@dataclass(frozen=True, kw_only=True)
class BufferedOptions(DeviceOptions):
    """FedBuff."""

    concurrency: int | None = option(
        None, "clients that train at the same time; null for twice cohort_size, all at most", range=POSITIVE_COUNT
    )
    staleness_exponent: float = option(
        0.5, "a: a result from t server steps ago has the weight (1 + t)^-a", range=NOT_NEGATIVE
    )


OPTIONS: Mapping[str, type] = {
    "always": NoOptions,
    "bernoulli": BernoulliOptions,
    "trace": TraceOptions,
    "deadline": DeadlineOptions,
    "buffered": BufferedOptions,
}
"""What each availability of the package takes, by its name."""

FILES: Mapping[str, str] = {"trace": "path", "deadline": "devices", "buffered": "devices"}
"""The option that names a file, of each availability that has one."""
