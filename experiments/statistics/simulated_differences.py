"""Paired differences with a known truth: coverage, level, the error of a family, power, the chance of a flip.

Each function returns one line for each case, with counts of tables. All differences have variance 1.
"""

import itertools
from typing import Any

import numpy as np
from scipy import special, stats

from fedlit.seeding import numpy_generator
from fedlit.statistics.family import step_down_p
from fedlit.statistics.paired import bca_interval, holm, sign_flip_p, t_interval
from fedlit.statistics.planning import MAX_DRAWS, detectable_difference, draws_needed, flip_probability, power_of

Line = dict[str, Any]

SHAPES = ("normal", "skewed", "heavy")
"""Standard normal; exponential less its mean, of skewness 2; Student's t of 3 degrees of freedom."""

_BATCH = 1 << 24
"""Numbers at once."""


def sample(generator: np.random.Generator, shape: str, size: tuple[int, ...], *, tail: float = 3.0) -> Any:
    """Return numbers of mean 0 and variance 1; tail: degrees of freedom of the heavy ones."""
    if shape == "normal":
        return generator.normal(size=size)
    if shape == "skewed":
        return generator.exponential(size=size) - 1
    return generator.standard_t(tail, size=size) * np.sqrt((tail - 2) / tail)


def counted(name: str, count: Any, total: int) -> Line:
    """Return a count, its rate and the 95 % binomial interval of the rate (C. J. Clopper and E. S. Pearson, 1934)."""
    found = stats.binomtest(int(count), total).proportion_ci(0.95)
    return {
        name: int(count),
        f"{name}_rate": round(int(count) / total, 4),
        f"{name}_low": round(float(found.low), 4),
        f"{name}_high": round(float(found.high), 4),
    }


def flips(differences: Any) -> Any:
    """Return the sign-flip p-values of many tables (tables, pairs), some at a time."""
    parts = max(1, len(differences) * 2 ** (differences.shape[-1] - 1) // _BATCH) if differences.shape[-1] <= 20 else 1
    return np.concatenate([sign_flip_p(part) for part in np.array_split(differences, min(parts, len(differences)))])


def t_p(differences: Any) -> Any:
    """Return the p-values of Student's paired test."""
    return stats.ttest_1samp(differences, 0.0, axis=-1).pvalue


def coverage(num_tables: int, seed: int) -> list[Line]:
    """Return how often the 95 % intervals hold the true mean, which is zero."""
    lines = []
    for shape, num_pairs in itertools.product(SHAPES, (5, 6, 10, 20)):
        differences = sample(numpy_generator(seed, f"coverage/{shape}/{num_pairs}"), shape, (num_tables, num_pairs))
        line: Line = {"shape": shape, "pairs": num_pairs, "tables": num_tables}
        for name, (low, high) in (("bca", bca_interval(differences)), ("t", t_interval(differences))):
            line |= counted(name, np.sum((low <= 0) & (high >= 0)), num_tables)
            line[f"{name}_width"] = round(float(np.mean(high - low)), 3)
        lines.append(line)
    return lines


def level(num_tables: int, seed: int) -> list[Line]:
    """Return how often a test without an effect has p <= 0.05."""
    lines = []
    for shape, num_pairs in itertools.product(SHAPES, (6, 7, 10, 20, 25)):
        differences = sample(numpy_generator(seed, f"level/{shape}/{num_pairs}"), shape, (num_tables, num_pairs))
        lines.append(
            {"shape": shape, "pairs": num_pairs, "tables": num_tables}
            | counted("sign_flip", np.sum(flips(differences) <= 0.05), num_tables)
            | counted("t", np.sum(t_p(differences) <= 0.05), num_tables)
        )
    return lines


def family(num_tables: int, seed: int, *, num_methods: int = 15, better: int = 3) -> list[Line]:
    """Return how often one or more of all comparisons without an effect has a corrected p <= 0.05.

    gap: of the first `better` methods over the others, in standard deviations of a difference; found: of the
    comparisons with an effect, how many are found in a table.
    """
    firsts, seconds = np.array(list(itertools.combinations(range(num_methods), 2))).T
    lines = []
    for num_pairs, gap in itertools.product((10, 14), (0.0, 2.0)):
        generator = numpy_generator(seed, f"family/{num_pairs}/{gap}")
        gaps = np.where(np.arange(num_methods) < better, gap, 0.0)
        has_effect = gaps[firsts] != gaps[seconds]
        wrong, found = dict.fromkeys(("uncorrected", "holm", "step_down"), 0), dict.fromkeys(("holm", "step_down"), 0)
        for _ in range(num_tables):
            scores = generator.normal(size=(num_pairs, num_methods)) * np.sqrt(0.5) + gaps
            differences = scores[:, firsts] - scores[:, seconds]
            raw = sign_flip_p(differences.T)
            ps = {
                "uncorrected": raw,
                "holm": np.array(holm(raw.tolist()), dtype=float),
                "step_down": np.array(step_down_p(differences), dtype=float),
            }
            for name, p in ps.items():
                wrong[name] += bool(np.any(p[~has_effect] <= 0.05))
                if name in found:
                    found[name] += int(np.sum(p[has_effect] <= 0.05))
        line: Line = {"methods": num_methods, "comparisons": len(firsts), "pairs": num_pairs, "gap": gap}
        line["tables"] = num_tables
        for name, count in wrong.items():
            line |= counted(name, count, num_tables)
        for name, count in found.items():
            line[f"{name}_found"] = round(count / num_tables / has_effect.sum(), 4) if gap else ""
        lines.append(line)
    return lines


def power(num_tables: int, seed: int) -> list[Line]:
    """Return how often planted gaps are found with as many draws as were promised to be enough, in 8 of 10 tables."""
    cases = []
    for effect in (2.5, 1.5, 1.0, 0.75, 0.5):
        numbers = np.arange(6, MAX_DRAWS)
        cases.append(("draws_needed", effect, int(numbers[power_of(effect, numbers) >= 0.8][0])))
    cases += [("detectable_difference", detectable_difference(1.0, n), n) for n in (6, 10, 20)]
    lines = []
    for shape, (promise, effect, num_pairs) in itertools.product(SHAPES, cases):
        generator = numpy_generator(seed, f"power/{shape}/{promise}/{num_pairs}")
        differences = sample(generator, shape, (num_tables, num_pairs)) + effect
        lines.append(
            {"shape": shape, "promise": promise, "effect": round(effect, 4), "pairs": num_pairs, "tables": num_tables}
            | {"promised": round(float(power_of(effect, num_pairs)), 4)}
            | counted("found", np.sum(flips(differences) <= 0.05), num_tables)
        )
    return lines


def pilot(num_tables: int, seed: int, *, num_pairs: int = 10) -> list[Line]:
    """Return what `draws_needed` says after a pilot of ten draws, and the power that so many draws really have."""
    lines = []
    for effect in (1.5, 1.0, 0.75, 0.5, 0.25):
        pilots = numpy_generator(seed, f"pilot/{effect}").normal(size=(num_tables, num_pairs)) + effect
        needed = np.array([draws_needed(row) or MAX_DRAWS for row in pilots.tolist()])
        truly = np.arange(6, MAX_DRAWS)[power_of(effect, np.arange(6, MAX_DRAWS)) >= 0.8][0]
        low, median, high = np.quantile(needed, (0.1, 0.5, 0.9))
        lines.append(
            {"effect": effect, "pilot_pairs": num_pairs, "tables": num_tables, "needed": int(truly)}
            | {"said_10": int(low), "said_50": int(median), "said_90": int(high)}
            | {"power_mean": round(float(np.mean(power_of(effect, needed))), 4)}
            | counted("power_reached", np.sum(needed >= truly), num_tables)
        )
    return lines


def flip(num_tables: int, seed: int, *, num_pairs: int = 10) -> list[Line]:
    """Return how often the mean over new draws has the other sign, and how often it was said to.

    gap: the true mean, in standard deviations; "any" is drawn anew for each table, from a normal of deviation 1.
    predicted: by `flip_probability`. plug_in: as if the mean and deviation seen were the true ones.
    """
    lines = []
    for gap, num_draws in itertools.product((0.0, 0.1, 0.3, 0.5, 1.0, "any"), (1, 3, 10)):
        generator = numpy_generator(seed, f"flip/{gap}/{num_draws}")
        center = generator.normal(size=(num_tables, 1)) if gap == "any" else float(gap)
        known = generator.normal(size=(num_tables, num_pairs)) + center
        new = np.mean(generator.normal(size=(num_tables, num_draws)) + center, axis=1)
        mean, std = known.mean(axis=1), known.std(axis=1, ddof=1)
        predicted = [flip_probability(row, num_draws) for row in known.tolist()]
        plug_in = special.ndtr(-np.abs(mean) * np.sqrt(num_draws) / std)
        lines.append(
            {"gap": gap, "pairs": num_pairs, "new_draws": num_draws, "tables": num_tables}
            | {"predicted": round(float(np.mean(np.array(predicted, dtype=float))), 4)}
            | {"plug_in": round(float(np.mean(plug_in)), 4)}
            | counted("flipped", np.sum(new * mean < 0), num_tables)
        )
    return lines
