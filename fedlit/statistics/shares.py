"""How much of the variance of a score comes from the method, the draw of the partition, both together, and the seed.

    Y[m, d, s] = mean + method[m] + draw[d] + both[m, d] + seed[d, s] + rest[m, d, s]

Methods are fixed: those of the table and no others. Draws are a sample of all draws, seeds a sample of all seeds. Seed
s of draw d is one for all methods, and has nothing to do with seed s of another draw. All effects but the methods' are
independent with mean zero (the "unrestricted" mixed model).

Components come from the expected mean squares of the balanced analysis of variance (S. R. Searle, G. Casella and
C. E. McCulloch, "Variance Components", 1992, ch. 4), with M methods, D draws and S seeds:

    E[MS method]        = rest + S both + D S M / (M - 1) method         method = sum of squared method effects / M
    E[MS draw]          = rest + S both + M seed + M S draw
    E[MS method x draw] = rest + S both
    E[MS seed in draw]  = rest + M seed
    E[MS rest]          = rest

The component of the methods is the variance of the effect of a method picked at random from the table, so that the five
add up to the variance of a cell picked at random.

Intervals are generalised ones (S. Weerahandi, "Generalized confidence intervals", JASA 88, 1993): each mean square over
its expectation is chi-squared, so what the expectations can be follows from what was seen; the methods' sum of squares
is noncentral chi-squared, and its noncentrality is taken at a uniformly drawn level of its distribution function. They
hold where effects are normal. Percentiles of a bootstrap over draws were tried and are far too short: with ten draws of
normal effects they cover the draws' share in 81 to 86 % of tables, not 95 % (experiments/statistics/README.md).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from fedlit.seeding import numpy_generator
from fedlit.statistics.paired import LEVEL, ROUNDING

Array = npt.NDArray[np.float64]

SOURCES = ("method", "draw", "method x draw", "seed", "residual")

_LARGE = 1e3
"""Noncentral chi-squared from here on: its root is normal but for a thousandth of a level, and scipy becomes slow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One source of variance.

    source: one of SOURCES. share: of the sum of all components, 0 to 1. variance: the component, in the squared unit of
    the scores, 0 where its estimate is negative. low, high: interval of the share.
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
    table: npt.NDArray[Any], *, num_resamples: int = 2000, seed: int = 0, level: float = LEVEL
) -> VarianceShares:
    """Return the shares of a complete table (methods, draws, seeds) of scores.

    With one seed there are three shares: "draw" then holds the seed's variance too, "method x draw" the residual, and
    `reason` says so. With one method or one draw there are none. num_resamples: draws from the generalised
    distribution of the components. seed: of these.

    Raises:
        ValueError: the table has not three axes, or a score is not finite.
    """
    scores = np.asarray(table, dtype=np.float64)
    if scores.ndim != 3 or not np.isfinite(scores).all():
        raise ValueError(f"a table of scores is (methods, draws, seeds) and finite, not {scores.shape} with holes")
    num_methods, num_draws, num_seeds = scores.shape

    def found(shares: tuple[Share, ...], reason: str) -> VarianceShares:
        return VarianceShares(
            shares=shares, num_methods=num_methods, num_draws=num_draws, num_seeds=num_seeds, reason=reason
        )

    if num_methods < 2 or num_draws < 2 or num_seeds < 1:
        counted = f"{num_methods} methods, {num_draws} draws and {num_seeds} seeds"
        return found((), f"{counted}; variance has shares from 2 methods, 2 draws and 1 seed on")
    if np.ptp(scores) <= ROUNDING * np.max(np.abs(scores)):
        return found((), "the scores do not vary")

    squares = mean_squares(scores)
    raw = components(squares, scores.shape)
    variances = np.maximum(raw, 0)
    likely = generalised_shares(
        squares, scores.shape, num_resamples=num_resamples, generator=numpy_generator(seed, "statistics/shares")
    )
    low, high = np.quantile(likely, [(1 - level) / 2, (1 + level) / 2], axis=0)
    of_all = variances / variances.sum()
    num_sources = 5 if num_seeds > 1 else 3
    shares = tuple(
        Share(
            source=SOURCES[i],
            share=float(of_all[i]),
            variance=float(variances[i]),
            low=float(min(low[i], of_all[i])),
            high=float(max(high[i], of_all[i])),
        )
        for i in range(num_sources)
    )
    return found(shares, _reason(num_seeds, [SOURCES[i] for i in range(num_sources) if raw[i] < 0]))


def _reason(num_seeds: int, negative: list[str]) -> str:
    """Return what a reader of the shares has to know."""
    reasons = []
    if num_seeds == 1:
        reasons.append('one seed: its variance is in the share of "draw", the residual in that of "method x draw"')
    if negative:
        reasons.append(f"estimates below zero, cut at zero: {', '.join(negative)}")
    return "; ".join(reasons)


def degrees_of_freedom(shape: tuple[int, ...]) -> Array:
    """Return those of the five mean squares of a table (methods, draws, seeds), in the order of SOURCES."""
    m, d, s = shape
    return np.array([m - 1, d - 1, (m - 1) * (d - 1), d * (s - 1), d * (s - 1) * (m - 1)], dtype=np.float64)


def mean_squares(tables: Array) -> Array:
    """Return the mean squares (..., 5) of tables (..., methods, draws, seeds), in the order of SOURCES; with one seed
    the last two are 0.
    """
    m, d, s = tables.shape[-3:]
    tables = tables - tables.mean(axis=(-3, -2, -1), keepdims=True)
    method = tables.mean(axis=(-2, -1), keepdims=True)
    draw = tables.mean(axis=(-3, -1), keepdims=True)
    cell = tables.mean(axis=-1, keepdims=True)
    seed = tables.mean(axis=-3, keepdims=True)

    def sum_of_squares(effects: Array) -> Array:
        total: Array = np.sum(effects**2, axis=(-3, -2, -1))
        return total

    sums = [
        d * s * sum_of_squares(method),
        m * s * sum_of_squares(draw),
        s * sum_of_squares(cell - method - draw),
        m * sum_of_squares(seed - draw),
        sum_of_squares(tables - cell - seed + draw),
    ]
    squares: Array = np.stack(sums, axis=-1) / np.maximum(degrees_of_freedom((m, d, s)), 1)
    return squares


def components(squares: Array, shape: tuple[int, ...]) -> Array:
    """Return the components (..., 5) whose expected mean squares are `squares` (..., 5); they may be negative."""
    m, d, s = shape
    method, draw, both, seed, rest = np.moveaxis(squares, -1, 0)
    parts = [
        (method - both) * (m - 1) / (m * d * s),
        (draw - both - seed + rest) / (m * s),
        (both - rest) / s,
        (seed - rest) / m,
        rest,
    ]
    return np.stack(parts, axis=-1)


def generalised_shares(
    squares: Array, shape: tuple[int, ...], *, num_resamples: int, generator: np.random.Generator
) -> Array:
    """Return shares (num_resamples, ..., 5) from the generalised distribution, given mean squares (..., 5)."""
    s = shape[2]
    df = degrees_of_freedom(shape)
    tops = (num_resamples,) + (1,) * (squares.ndim - 1)
    # A floor, for tables without interaction: the ratio below stays finite.
    expected = np.maximum(squares, 1e-12 * squares.sum(axis=-1, keepdims=True))[None].repeat(num_resamples, axis=0)
    for i in range(1, 5 if s > 1 else 3):
        expected[..., i] *= df[i] / generator.chisquare(df[i], size=tops)
    ratio = squares[..., 0] * df[0] / expected[..., 2]
    levels = generator.uniform(size=tops)
    method = expected[..., 2] * (1 + noncentrality(ratio, df[0], levels) / df[0])
    if s == 1:
        expected[..., 3:] = 0
    expected[..., 0] = method
    parts = np.maximum(components(expected, shape), 0)
    of_all: Array = parts / np.maximum(parts.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    return of_all


def noncentrality(values: Array, df: float, levels: Array) -> Array:
    """Return the noncentrality at which chi-squared with `df` is at most `values` with probability `levels`; 0 where
    it is less probable without any.
    """
    values, levels = np.broadcast_arrays(values, levels)
    roots = np.maximum(np.sqrt(values) - special.ndtri(levels), 0)
    # Without noncentrality first: scipy's answer means nothing there.
    is_zero = special.chdtr(df, values) <= levels
    found = np.where(is_zero, 0.0, np.maximum(roots**2 - (df - 1), 0))
    small = ~is_zero & (values < _LARGE)
    found[small] = special.chndtrinc(values[small], df, levels[small])
    return found
