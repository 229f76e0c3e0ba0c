"""Tables of scores with known variance shares: what the estimates are on average, and how often intervals hold them."""

from typing import Any

import numpy as np
from simulated_differences import Line, counted, sample

from fedlit.seeding import numpy_generator
from fedlit.statistics.shares import SOURCES, components, generalised_shares, mean_squares

CASES: dict[str, tuple[float, ...]] = {
    "mostly draws": (0.3, 1.2, 0.6, 0.1, 0.2),
    "all alike": (1.0, 1.0, 1.0, 1.0, 1.0),
    "no method": (0.0, 1.0, 0.5, 0.2, 0.3),
    "no interaction": (1.0, 1.0, 0.0, 0.0, 1.0),
}
"""The components in the order of SOURCES."""

PLAN = (
    *(("mostly draws", "normal", num_draws, 2) for num_draws in (10, 5, 20)),
    ("mostly draws", "skewed", 10, 2),
    ("mostly draws", "heavy", 10, 2),
    ("mostly draws", "normal", 10, 1),
    ("all alike", "normal", 10, 2),
    ("no method", "normal", 10, 2),
    ("no interaction", "normal", 10, 2),
)
"""Case, shape of all random effects, draws, seeds; heavy is Student's t of 5 degrees of freedom."""


def shares(
    num_tables: int, seed: int, *, num_methods: int = 6, num_resamples: int = 500, plan: Any = PLAN
) -> list[Line]:
    """Return for each case and source the true share, the mean estimate and the coverage of the 95 % intervals.

    percentile: of a bootstrap over draws, whose mean squares of draws are multiplied by D / (D - 1), for comparison.
    """
    lines = []
    for case, shape, num_draws, num_seeds in plan:
        generator = numpy_generator(seed, f"shares/{case}/{shape}/{num_draws}/{num_seeds}")
        size = (num_methods, num_draws, num_seeds)
        true = np.array(CASES[case]) / sum(CASES[case])
        if num_seeds == 1:
            true = np.array([true[0], true[1] + true[3], true[2] + true[4]])
        estimates, ends = [], []
        for part in np.array_split(np.arange(num_tables), max(1, num_tables // 200)):
            tables = make(generator, CASES[case], shape, (len(part), *size))
            squares = mean_squares(tables)
            estimates.append(as_shares(components(squares, size)))
            likely = generalised_shares(squares, size, num_resamples=num_resamples, generator=generator)
            resampled = percentile(generator, tables, num_resamples // 2)
            ends.append(np.stack([np.quantile(of, (0.025, 0.975), axis=0) for of in (likely, resampled)]))
        estimate, (interval, bootstrap) = np.concatenate(estimates), np.concatenate(ends, axis=2)
        for i in range(len(true)):
            value = estimate[:, i]
            line: Line = {"case": case, "shape": shape, "draws": num_draws, "seeds": num_seeds, "source": SOURCES[i]}
            line |= {"tables": num_tables, "true": round(float(true[i]), 4), "mean": round(float(value.mean()), 4)}
            # As `variance_shares` does, the estimate is never left outside.
            low, high = np.minimum(interval[0, :, i], value), np.maximum(interval[1, :, i], value)
            line |= counted("covered", np.sum((low <= true[i] + 1e-9) & (high >= true[i] - 1e-9)), num_tables)
            line["width"] = round(float(np.mean(high - low)), 3)
            low, high = bootstrap[..., i]
            line |= counted("percentile", np.sum((low <= true[i] + 1e-9) & (high >= true[i] - 1e-9)), num_tables)
            lines.append(line)
    return lines


def make(generator: np.random.Generator, variances: tuple[float, ...], shape: str, size: tuple[int, ...]) -> Any:
    """Return tables (tables, methods, draws, seeds) with these components."""
    num_tables, m, d, s = size
    ladder = np.linspace(-1, 1, m)
    method = ladder / np.sqrt(np.mean(ladder**2)) * np.sqrt(variances[0])
    tables = np.broadcast_to(method[:, None, None], size).copy()
    effects = ((num_tables, 1, d, 1), (num_tables, m, d, 1), (num_tables, 1, d, s), (num_tables, m, d, s))
    for variance, effect in zip(variances[1:], effects, strict=True):
        tables += np.sqrt(variance) * sample(generator, shape, effect, tail=5.0)
    return tables


def as_shares(parts: Any) -> Any:
    """Return components (..., 5) as shares, negative ones cut."""
    parts = np.maximum(parts, 0)
    return parts / parts.sum(axis=-1, keepdims=True)


def percentile(generator: np.random.Generator, tables: Any, num_resamples: int) -> Any:
    """Return shares (num_resamples, tables, 5) of tables whose draws are drawn again with replacement."""
    size = tables.shape[1:]
    d = size[1]
    found = []
    for _ in range(num_resamples):
        squares = mean_squares(tables[:, :, generator.integers(0, d, size=d)])
        squares[..., 1:3] *= d / (d - 1)
        found.append(as_shares(components(squares, size)))
    return np.stack(found)
