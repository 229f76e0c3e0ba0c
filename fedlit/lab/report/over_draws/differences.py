"""Every two methods of a table over the draws that both have: difference, interval, test, and what more draws give."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedlit.lab.report.over_draws.scores import Scores
from fedlit.statistics.family import step_down_p
from fedlit.statistics.paired import ROUNDING, Difference, holm, paired_difference
from fedlit.statistics.planning import draws_needed, flip_probability

POWER = 0.8
FEW = (3, 5)
"""Numbers of draws of which the probability of a flip is told, beside that of all there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One method against another in one score under one condition.

    found: of `first - second`, in the unit of the table. p_holm: corrected for all tests of the score, whatever the
    condition; None without a test. p_table: corrected for the same tests by flipping whole draws (step_down_p), which
    can speak where Holm cannot; of the draws that all methods have. flips: the probability that the order of the two is
    the other one in the mean over 3, over 5 and over as many new draws as there are. needed: draws for a gap like this
    at power 0.8; None where it is zero or unknown.
    """

    score: str
    condition: str
    first: str
    second: str
    lower_is_better: bool
    found: Difference
    p_holm: float | None
    p_table: float | None
    flips: tuple[float | None, ...]
    needed: int | None

    @property
    def better(self) -> str:
        """The method with the better mean; empty if neither has it."""
        if not self.found.mean:
            return ""
        return self.first if (self.found.mean > 0) != self.lower_is_better else self.second

    def seen_from(self, contender: str) -> "Row":
        """Return the same row with this contender as its second."""
        if contender != self.first:
            return self
        found = self.found
        turned = replace(
            found,
            mean=_minus(found.mean),
            low=_minus(found.high),
            high=_minus(found.low),
            t_low=_minus(found.t_high),
            t_high=_minus(found.t_low),
        )
        return replace(self, first=self.second, second=self.first, found=turned)


def compare_draws(all_scores: Sequence[Scores]) -> list[Row]:
    """Return the comparisons of every two methods in every score under every condition."""
    rows: list[Row] = []
    for score in dict.fromkeys(scores.score for scores in all_scores):
        members = [scores for scores in all_scores if scores.score == score]
        family = [row for scores in members for row in _of_one(scores)]
        corrected = zip(family, holm([row.found.p for row in family]), _of_table(members), strict=True)
        rows += [replace(row, p_holm=p_holm, p_table=p_table) for row, p_holm, p_table in corrected]
    return rows


def shared_draws(members: Sequence[Scores]) -> list[Any]:
    """Return the draws on which every method has a run under every condition, with a seed that all of it have."""
    return [draw for draw in members[0].draws if all(scores.common_seeds(draw) for scores in members)]


def _of_table(members: Sequence[Scores]) -> list[float | None]:
    """Return the p-values of all comparisons of a score, corrected over the table, in the order of the rows."""
    draws = shared_draws(members)
    columns = [
        [found[draw] for draw in draws]
        for scores in members
        for first, second in itertools.combinations(scores.runs, 2)
        for found in (scores.differences(first, second),)
    ]
    largest = max(
        abs(run.score) for s in members for each in s.runs.values() for d in each.values() for run in d.values()
    )
    return step_down_p(np.array(columns).reshape(len(columns), len(draws)).T, rounding=ROUNDING * largest)


def against(rows: Iterable[Row], scores: Scores, contender: str) -> list[Row]:
    """Return the rows of one score under one condition in which a contender takes part, as the second of each."""
    mine = [row for row in rows if (row.score, row.condition) == (scores.score, scores.condition)]
    return [row.seen_from(contender) for row in mine if contender in (row.first, row.second)]


def _of_one(scores: Scores) -> list[Row]:
    rows = []
    for first, second in itertools.combinations(scores.runs, 2):
        pairs = list(scores.pairs(first, second).values())
        differences = list(scores.differences(first, second).values())
        sizes = (*FEW, max(len(differences), 1))
        rows.append(
            Row(
                score=scores.score,
                condition=scores.condition,
                first=first,
                second=second,
                lower_is_better=scores.lower_is_better,
                found=paired_difference([one for one, _ in pairs], [other for _, other in pairs]),
                p_holm=None,
                p_table=None,
                flips=tuple(flip_probability(differences, size) for size in sizes),
                needed=draws_needed(differences, power=POWER),
            )
        )
    return rows


def _minus(value: float | None) -> float | None:
    return None if value is None else 0.0 - value
