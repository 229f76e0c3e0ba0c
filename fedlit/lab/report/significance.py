"""Wilcoxon's signed-rank test between every two contenders over the cells that both have.

F. Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1, 1945, as J. Demsar recommends it for
two classifiers over several data sets (JMLR 7, 2006). A pair is two cells that differ in the contender only, each the
mean over the seeds and draws that both have: runs of one cell share data, model and task, so that to count each as a
pair of its own would make more of them than there is. Differences are rounded, so that equal ones are ties: 0.3 - 0.2
is not 0.1 in binary. Those of zero are left out, the test is two-sided, and the p-values of one score are corrected for
their number by S. Holm's step-down method (Scandinavian Journal of Statistics 6, 1979).
"""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy.stats import wilcoxon

from fedlit.lab.analysis.draws import of_draws
from fedlit.lab.report.cells import Measures
from fedlit.lab.report.layout import Layout
from fedlit.lab.report.measures import Measure
from fedlit.scores import is_lower_better
from fedlit.statistics.paired import holm as holm_p

NUM_DECIMALS = 10
"""Of a difference; scores are sums of doubles, whose error is some 1e-15 of a score."""

MIN_PAIRS = 6
"""With five pairs no two-sided p-value is below 0.05."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One contender against another in one score.

    num_pairs: cells that both have. num_nonzero: of them with a difference. median: of `first - second`, in the unit of
    the table. statistic: the smaller of the two sums of ranks. p, p_holm: None with too few pairs.
    """

    score: str
    first: str
    second: str
    num_pairs: int
    num_nonzero: int
    median: float | None
    statistic: float | None
    p: float | None
    p_holm: float | None
    lower_is_better: bool

    @property
    def better(self) -> str:
        """The contender with the better median; empty if neither has it."""
        if not self.median:
            return ""
        return self.first if (self.median > 0) != self.lower_is_better else self.second


Cells = dict[tuple[Any, ...], tuple[Measure, float]]
"""A contender's measures and their factors to the table's unit, by conditions and column."""


def compare_all(layout: Layout, measures: Measures) -> list[Comparison]:
    """Return the comparisons of every two contenders of a table in every score; none without two contenders."""
    results = []
    for score, numbers in _families(layout).items():
        lower = is_lower_better(layout.columns[numbers[0]].scores[0])
        cells = _cells(layout, measures, numbers)
        pairs = itertools.combinations(cells, 2)
        results += holm([_compare(score, a, b, cells, lower_is_better=lower) for a, b in pairs])
    return results


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with their p-values corrected for being several."""
    corrected = holm_p([comparison.p for comparison in comparisons])
    return [replace(comparison, p_holm=p) for comparison, p in zip(comparisons, corrected, strict=True)]


def signed_rank(differences: Sequence[float]) -> Any:
    """Return scipy's two-sided test of differences without zeros, its `statistic` and `pvalue`.

    Which method it is, scipy decides: from 1.15 on the permutation test for up to 13 pairs with ties, and the tables of
    `exact`, which are for ranks without ties, never with them.
    """
    return wilcoxon(sorted(differences), method="auto")


def _families(layout: Layout) -> dict[str, list[int]]:
    """Return the columns that are tested together, by what they are called.

    Tasks are pairs of one test, be they runs of their own or parts of one run's score; different scores of one run are
    tests of their own.
    """
    families: dict[str, list[int]] = {}
    for j, column in enumerate(layout.columns):
        part = "/" in column.scores[0]
        name = "all columns" if column.settings or (part and len(layout.columns) > 1) else column.heading
        families.setdefault(name, []).append(j)
    return families


def _cells(layout: Layout, measures: Measures, numbers: Sequence[int]) -> dict[str, Cells]:
    """Return by contender the finished measures of these columns."""
    cells: dict[str, Cells] = {}
    for line, row in zip(layout.lines, measures, strict=True):
        if not line.contender:
            continue
        mine = cells.setdefault(line.contender, {})
        for j in numbers:
            if row[j].final:
                mine[(*line.conditions, j)] = (row[j], layout.columns[j].scale)
    return cells


def _compare(score: str, first: str, second: str, cells: dict[str, Cells], *, lower_is_better: bool) -> Comparison:
    differences = []
    for place in cells[first].keys() & cells[second].keys():
        (one, scale), (other, _) = cells[first][place], cells[second][place]
        repeats = one.values.keys() & other.values.keys()
        if repeats:
            means = [statistics.fmean(of_draws({r: each.values[r].value for r in repeats})) for each in (one, other)]
            differences.append(round(scale * (means[0] - means[1]), NUM_DECIMALS))
    nonzero = [difference for difference in differences if difference != 0]
    enough = len(nonzero) >= MIN_PAIRS
    test = signed_rank(nonzero) if enough else None
    return Comparison(
        score=score,
        first=first,
        second=second,
        num_pairs=len(differences),
        num_nonzero=len(nonzero),
        median=statistics.median(differences) if differences else None,
        statistic=float(test.statistic) if test else None,
        p=float(test.pvalue) if test else None,
        p_holm=None,
        lower_is_better=lower_is_better,
    )
