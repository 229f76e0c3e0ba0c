"""Which differences between methods the planned draws can show.

A comparison is two contenders under the same conditions; a pair in it is one draw of the partition that both have, with
the mean over its seeds. What a test can show goes with the number of pairs and the standard deviation of their
differences, which finished cells tell.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlit.config.keys import DRAW, SEED
from fedlit.lab.analysis.collection import Collection
from fedlit.lab.report.cells import measure_all
from fedlit.lab.report.contenders import conditions_of, contender_keys
from fedlit.lab.report.layout import default_scores, make_layout
from fedlit.lab.report.measures import is_done
from fedlit.lab.report.over_draws.scores import scores_of
from fedlit.lab.report.versions import comparable
from fedlit.statistics.paired import min_pairs
from fedlit.statistics.planning import detectable_difference

POWER, ALPHA = 0.8, 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeated:
    """A run in words of the plan: its settings, its draw and its seed."""

    settings: Mapping[str, Any]
    draw: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """A score in finished runs. std: of paired differences between draws, the middle of `num_pairs` comparisons, and
    the lowest and the highest. one, all: what can be shown in the unit of the score, alone and after Holm.
    """

    score: str
    num_comparisons: int
    std: float
    std_low: float
    std_high: float
    one: float | None
    all: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Power:
    """What the planned draws can show.

    num_draws: that two contenders have in common, at least. num_draws_most: at most. num_seeds: of a draw, the fewest.
    comparisons: pairs of contenders, in all conditions. min_draws, min_draws_holm: with fewer no test reaches ALPHA,
    alone or after Holm. one, all: the smallest true difference that is found with probability POWER, alone and after
    Holm over all comparisons, in standard deviations of the paired differences; None where no test can speak.
    """

    contenders: tuple[str, ...]
    num_contenders: int
    num_conditions: int
    num_draws: int
    num_draws_most: int
    num_seeds: int
    comparisons: int
    min_draws: int
    min_draws_holm: int
    one: float | None
    all: float | None
    observed: tuple[Observed, ...] = ()


def power_of(runs: Sequence[Repeated], planned: Collection, seen: Collection) -> Power:
    """Return what planned runs can show.

    planned: the sweep that they are of. seen: finished runs that tell how much differences vary, the sweep's or others.
    """
    keys = tuple(key for key in contender_keys(planned) if key not in planned.best)
    arms = _arms(runs, keys, planned.best)
    shared = [
        (len(one.keys() & other.keys()), [len(seeds) for seeds in (*one.values(), *other.values())])
        for contenders in arms.values()
        for one, other in itertools.combinations(contenders.values(), 2)
    ]
    counts = [number for number, _ in shared] or [len(draws) for each in arms.values() for draws in each.values()]
    seeds = [number for _, each in shared for number in each] or [
        len(found) for each in arms.values() for draws in each.values() for found in draws.values()
    ]
    num_draws, comparisons = min(counts, default=0), len(shared)
    corrected = ALPHA / max(comparisons, 1)
    return Power(
        contenders=keys,
        num_contenders=max(map(len, arms.values()), default=0),
        num_conditions=len(arms),
        num_draws=num_draws,
        num_draws_most=max(counts, default=0),
        num_seeds=min(seeds, default=0),
        comparisons=comparisons,
        min_draws=min_pairs(ALPHA),
        min_draws_holm=min_pairs(corrected),
        one=_shown(1.0, num_draws, ALPHA),
        all=_shown(1.0, num_draws, corrected),
        observed=tuple(_observed(seen, num_draws, corrected)) if comparisons else (),
    )


def repeated(settings: Mapping[str, Any], draw: int | None, seed: int) -> Repeated:
    """Return a cell in these words. draw, seed: of its kind's configuration, where the cell does not say."""
    own = settings.get(SEED, seed)
    found = settings.get(DRAW, draw)
    return Repeated(settings=settings, draw=own if found is None else found, seed=own)


def _arms(
    runs: Sequence[Repeated], keys: Sequence[str], chosen: Sequence[str]
) -> dict[tuple[str, ...], dict[str, dict[int, set[int]]]]:
    """Return the seeds of every draw, by conditions and contender. `chosen`: axes of which one value will be shown."""
    arms: dict[tuple[str, ...], dict[str, dict[int, set[int]]]] = {}
    for run in runs:
        contender = repr([(key, run.settings[key]) for key in keys if key in run.settings])
        of_conditions = arms.setdefault(conditions_of(run.settings, (*keys, *chosen)), {})
        of_conditions.setdefault(contender, {}).setdefault(run.draw, set()).add(run.seed)
    return arms


def _observed(seen: Collection, num_draws: int, corrected: float) -> list[Observed]:
    """Return what finished runs tell of each score whose differences vary in at least one comparison."""
    found = []
    for score, deviations in _deviations(seen).items():
        std = statistics.median(deviations)
        found.append(
            Observed(
                score=score,
                num_comparisons=len(deviations),
                std=std,
                std_low=min(deviations),
                std_high=max(deviations),
                one=_shown(std, num_draws, ALPHA),
                all=_shown(std, num_draws, corrected),
            )
        )
    return found


def _deviations(seen: Collection) -> dict[str, list[float]]:
    """Return by score the standard deviations of the paired differences of those comparisons of the report with two
    common draws or more whose differences vary. An axis whose best value will be shown is a condition here: at each of
    its values.
    """
    names = default_scores(seen) if any(is_done(entry) for entry in seen.entries) else []
    if not names:
        return {}
    layout = make_layout(seen, None, names)
    deviations: dict[str, list[float]] = {}
    for scores in scores_of(layout, comparable(layout, measure_all(layout, "last"))):
        for one, other in itertools.combinations(scores.runs, 2):
            differences = list(scores.differences(one, other).values())
            if len(differences) > 1 and (std := statistics.stdev(differences)) > 0:
                deviations.setdefault(scores.key, []).append(std)
    return deviations


def _shown(std: float, num_draws: int, alpha: float) -> float | None:
    if num_draws < 2:
        return None
    found = detectable_difference(std, num_draws, power=POWER, alpha=alpha)
    return found if math.isfinite(found) else None
