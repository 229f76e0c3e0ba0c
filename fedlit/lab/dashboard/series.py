"""Curves of a group of seeds: the mean over those that have a value, and how far the seeds lie apart."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fedlit.lab.analysis.collection import Entry
from fedlit.lab.analysis.costs import COSTS, cumulative_costs
from fedlit.scores import best_round, number

SIGNIFICANT_DIGITS = 6

Column = list[float | None]
Points = dict[int, dict[str, float]]
"""By round: the finite numbers of its record, and `cost/<name>` up to and with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One score at the rounds of its group.

    low, high: of the seeds; None if one seed alone has the score. num: seeds behind each value; None if all the same.
    """

    mean: Column
    low: Column | None = None
    high: Column | None = None
    num: list[int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One score at one round of each seed, the last or the best; `traffic_mb` is what travelled up to it, up and down,
    the mean over seeds.
    """

    seeds: list[float]
    rounds: list[int]
    traffic_mb: float | None


def rounded(value: float) -> float:
    """Return a number to 6 significant digits: more cannot be seen on a page and would be half of its size."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def points_of(entry: Entry, scales: Mapping[str, float] = MappingProxyType({})) -> Points:
    """Return the finite numbers of a run by round; of two records of one round the later one counts.

    scales: what is shown for a score of 1, by its name; 1 where nothing is said.
    """
    costs = cumulative_costs(entry.records)
    return {
        int(record["round"]): {
            key: value * scales.get(score_name(key), 1.0)
            for key, found in {**record, **cost}.items()
            if (value := number(found)) is not None
        }
        for record, cost in zip(entry.records, costs, strict=True)
    }


def score_name(key: str) -> str:
    """Return the score of a key of the record, as `accuracy/boolq` of `global/accuracy/boolq`; a part of it as well."""
    return key.partition("/")[2].removesuffix("_worst").removesuffix("_std")


def scored_rounds(seeds: Sequence[Points], keys: Sequence[str]) -> list[int]:
    """Return the rounds at which any seed has any of these scores."""
    return sorted({r for points in seeds for r, values in points.items() if any(key in values for key in keys)})


def curve(seeds: Sequence[Points], rounds: Sequence[int], key: str) -> Curve | None:
    """Return a score at these rounds, None if no seed has it."""
    columns = [[points[r][key] for points in seeds if key in points.get(r, {})] for r in rounds]
    if not any(columns):
        return None
    several = any(len(column) > 1 for column in columns)
    num = [len(column) for column in columns]
    return Curve(
        mean=_each(columns, _mean),
        low=_each(columns, min) if several else None,
        high=_each(columns, max) if several else None,
        num=num if len(set(num)) > 1 else None,
    )


def costs(seeds: Sequence[Points], rounds: Sequence[int]) -> dict[str, Column]:
    """Return every cost that a seed tells, at these rounds: the mean over the seeds that tell it."""
    found = {name: curve(seeds, rounds, f"cost/{name}") for name in COSTS}
    return {name: cost.mean for name, cost in found.items() if cost is not None}


def outcome(seeds: Sequence[Points], key: str, *, best: bool = False, chosen_by: str | None = None) -> Outcome | None:
    """Return a score after training: of the last round that has it, or of each seed's best one; with `chosen_by`, the
    key of a score on the validation set, of the round that is best by that.

    Round 0 is the untrained model, which is no result of the method. None if no seed has been trained and scored.
    """
    chosen = []
    for points in seeds:
        values = {r: found[key] for r, found in points.items() if r > 0 and key in found}
        number_of_round = best_round(key, values) if best else max(values, default=None)
        if best and chosen_by is not None:
            number_of_round = best_round(chosen_by, {r: found.get(chosen_by) for r, found in points.items()})
        if number_of_round in values:
            chosen.append((number_of_round, points[number_of_round]))
    if not chosen:
        return None
    both = [values for _, values in chosen if {"cost/uploaded_mb", "cost/downloaded_mb"} <= values.keys()]
    traffic = [values["cost/uploaded_mb"] + values["cost/downloaded_mb"] for values in both]
    return Outcome(
        seeds=[rounded(values[key]) for _, values in chosen],
        rounds=[r for r, _ in chosen],
        traffic_mb=rounded(_mean(traffic)) if traffic else None,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _each(columns: Sequence[Sequence[float]], statistic: Callable[[Sequence[float]], float]) -> Column:
    return [rounded(statistic(column)) if column else None for column in columns]
