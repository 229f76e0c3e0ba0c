"""The values that numbers of the configuration may take. Imports nothing, so that a part can name them anywhere."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """The values a number may take, and how to say so."""

    contains: Callable[[float], bool]
    text: str

    @property
    def brief(self) -> str:
        """The text without the bound that nobody meets."""
        return re.split(r", (?:up to \d|1\.2e-38)", self.text)[0]


LARGEST_COUNT = 2**31 - 1
LARGEST_SEED = 2**63 - 1
SMALLEST, LARGEST = 1.2e-38, 3.4e38
"""What float32 holds without loss: below, a gradient that is multiplied is zero; beyond, it is infinite."""

POSITIVE_COUNT = Range(lambda value: 1 <= value <= LARGEST_COUNT, f"an integer of at least 1, up to {LARGEST_COUNT}")
COUNT = Range(lambda value: 0 <= value <= LARGEST_COUNT, f"an integer of at least 0, up to {LARGEST_COUNT}")
PROCESSES = Range(lambda value: 1 <= value <= 65536, "an integer of at least 1, up to 65536")
"""A larger number is a slip, and Lightning would make a list as long."""
POSITIVE = Range(lambda value: SMALLEST <= value <= LARGEST, f"a finite number above 0, {SMALLEST} to {LARGEST}")
NOT_NEGATIVE = Range(
    lambda value: value == 0 or SMALLEST <= value <= LARGEST, f"a finite number of at least 0, up to {LARGEST}"
)
FRACTION = Range(lambda value: 0 <= value < 1, "a number from 0 up to, not including, 1")
AT_LEAST_ONE = Range(lambda value: 1 <= value <= 1000, "a number from 1 to 1000")
SHARE = Range(lambda value: 0 < value <= 1, "a number above 0, up to and including 1")
PROBABILITY = Range(lambda value: 0 < value < 1, "a number above 0 and below 1")
SEED = Range(lambda value: 0 <= value <= LARGEST_SEED, f"an integer of at least 0, up to {LARGEST_SEED}")
FINITE = Range(lambda value: -math.inf < value < math.inf, "a finite number")


def at_least(smallest: int) -> Range:
    """Return the range of a count that begins at another number than 0 or 1."""
    return Range(
        lambda value: smallest <= value <= LARGEST_COUNT, f"an integer of at least {smallest}, up to {LARGEST_COUNT}"
    )
