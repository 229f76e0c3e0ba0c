"""How steadily a score rises over the rounds: its curve, its drops, and the area under it.

Mahla, Jadhav and Ramakrishnan, Exploring Gradient Subspaces, arXiv 2410.23111, figures 4, 7 and 8: ROUGE-L on the
global test set after each aggregation. The paper reads the stability of a method off these curves; the numbers here
are ours.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedlit.lab.analyses.base import Analysis, Findings, Run, Table, lines_of
from fedlit.lab.analysis.column import Panel, Picture
from fedlit.lab.analysis.plots import score_look
from fedlit.scores import chosen_scores

PLACES = ("global", "own", "validation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Steadiness:
    """A curve in numbers, in the score's unit.

    drops: by how much it got worse from one evaluation to the next, by the round of the second; none of those in which
    it got no worse. area: the mean height of the curve over the rounds (trapezoids).
    """

    first: float
    last: float
    best: float
    best_round: int
    drops: Mapping[int, float]
    area: float


def steadiness(points: Mapping[int, float], *, lower_is_better: bool) -> Steadiness:
    """Return the numbers of a curve of one point or more, by round."""
    rounds = sorted(points)
    sign = -1.0 if lower_is_better else 1.0
    best_round = max(rounds, key=lambda place: (sign * points[place], -place))
    pairs = list(itertools.pairwise(rounds))
    losses = {later: sign * (points[before] - points[later]) for before, later in pairs}
    area = sum((later - before) * (points[before] + points[later]) / 2 for before, later in pairs)
    span = rounds[-1] - rounds[0]
    return Steadiness(
        first=points[rounds[0]],
        last=points[rounds[-1]],
        best=points[best_round],
        best_round=best_round,
        drops={place: loss for place, loss in losses.items() if loss > 0},
        area=area / span if span else points[rounds[0]],
    )


class Stability(Analysis):
    """Score against rounds, drops between rounds, area under the curve."""

    name = "stability"
    title = "Stability of the score over the rounds"
    source = "arXiv 2410.23111 (FedFTG), figures 4, 7 and 8"
    needs = tuple(f"{place}/" for place in PLACES)
    remedy = "evaluate them (eval.every=1)"

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return the numbers of all scores, and a picture of each score that the data set has."""
        rows, pictures = [], []
        for score in dict.fromkeys(score for run in runs for score in (*chosen_scores(run.config.data), "loss")):
            key = _key(runs, score)
            if key is None:
                continue
            lower = score_look(score).lower_is_better
            found = {id(run): steadiness(points, lower_is_better=lower) for run in runs if (points := run.points(key))}
            rows += [_row(run, key, found[id(run)]) for run in runs if id(run) in found]
            pictures.append(_picture(runs, score, key, found))
        columns = tuple(rows[0]) if rows else ()
        caption = (
            "Every score over the rounds. A drop is by how much it got worse from one evaluation to the next; area is "
            "the curve's mean height (trapezoids), in the score's unit."
        )
        return Findings(
            tables=[Table(name="stability", caption=caption, columns=columns, rows=rows)], pictures=pictures
        )


def _key(runs: Sequence[Run], score: str) -> str | None:
    """Return where most of the runs have a score."""
    counts = {f"{place}/{score}": sum(bool(run.points(f"{place}/{score}")) for run in runs) for place in PLACES}
    best = max(counts, key=lambda key: counts[key])
    return best if counts[best] else None


def _row(run: Run, key: str, found: Steadiness) -> dict[str, object]:
    return {
        "setting": run.label,
        "run": run.name,
        "score": key,
        "first": found.first,
        "last": found.last,
        "best": found.best,
        "best round": found.best_round,
        "drops": len(found.drops),
        "largest drop": max(found.drops.values(), default=0.0),
        "sum of drops": sum(found.drops.values()),
        "area": found.area,
    }


def _picture(runs: Sequence[Run], score: str, key: str, found: Mapping[int, Steadiness]) -> Picture:
    look = score_look(score)

    def fallen(run: Run) -> dict[int, float]:
        rounds = sorted(run.points(key))[1:]
        return {place: found[id(run)].drops.get(place, 0.0) for place in rounds} if id(run) in found else {}

    unit = look.unit if look.lower_is_better or look.unit in look.heading else f"{look.heading} ({look.unit})"
    label = f"loss ({look.unit})" if score == "loss" else unit
    return Picture(
        name=f"stability-{score.replace('/', '-')}",
        caption=f"{look.heading} after each aggregation (`{key}`), and by how much it got worse.",
        panels=[
            Panel(x="aggregations S (rounds)", y=label, lines=list(lines_of(runs, lambda run: run.points(key)))),
            Panel(x="aggregations S (rounds)", y=f"drop of {label}", lines=list(lines_of(runs, fallen))),
        ],
        height=1.45,
    )
