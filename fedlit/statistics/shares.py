"""How much of the variance of a score comes from the method, the draw of the partition, their interaction, the seed.

    Y[m, d, s] = mean + method[m] + draw[d] + both[m, d] + seed[d, s] + rest[m, d, s]

Methods are fixed: those of the table and no others. Draws are a sample of all draws, seeds a sample of all seeds; seed s
of draw d is the same for all methods, and seed 0 of one draw has nothing to do with seed 0 of another. All but the
methods are independent of each other with mean zero (the "unrestricted" mixed model).

Components come from the expected mean squares of the balanced analysis of variance (S. R. Searle, G. Casella and
C. E. McCulloch, "Variance Components", 1992, ch. 4), M methods, D draws, S seeds:

    E[MS method]        = rest + S both + D S M / (M - 1) method         method = sum of squared method effects / M
    E[MS draw]          = rest + S both + M seed + M S draw
    E[MS method x draw] = rest + S both
    E[MS seed in draw]  = rest + M seed
    E[MS rest]          = rest

The component of the methods is the variance of the score of a method picked at random from the table, so that the five
add up to the variance of a cell picked at random.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SOURCES = ("method", "draw", "method x draw", "seed", "residual")


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One source of variance.

    source: one of SOURCES. share: of the sum of all components, 0 to 1. variance: the component, in the squared unit of
    the scores, 0 where its estimate is negative. low, high: interval of the share; None where there is none.
    """

    source: str
    share: float
    variance: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class VarianceShares:
    """The sources of variance of a table, in the order of SOURCES; those that cannot be told apart are missing.

    shares: empty where nothing can be said. num_methods, num_draws, num_seeds: of the table. reason: in words what is
    missing and why, and which estimates were negative; empty otherwise.
    """

    shares: tuple[Share, ...]
    num_methods: int
    num_draws: int
    num_seeds: int
    reason: str


def variance_shares(
    table: npt.NDArray[Any], *, num_resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> VarianceShares:
    """Return the shares of a complete table (methods, draws, seeds) of scores.

    With one seed there are three shares: "draw" then holds the seed's variance too, "method x draw" the residual, and
    `reason` says so. With one method or one draw there are none.

    Raises:
        ValueError: the table has not three axes, or a score is not finite.
    """
    raise NotImplementedError
