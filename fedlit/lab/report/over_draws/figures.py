"""The figures of the statistics: a forest of differences, bars of shares, how an order flips; as PDF and PNG."""

import itertools
from pathlib import Path

from fedlit.lab.analysis.claims_plot import Flips, Gap, Part, plot_flips, plot_gaps, plot_shares
from fedlit.lab.report.over_draws.claims import Claims
from fedlit.lab.report.over_draws.differences import against
from fedlit.lab.report.over_draws.scores import Scores
from fedlit.statistics.planning import flip_probability

MOST_DRAWS = 20
"""Up to which a flip is drawn, at least as many as there are."""


def draw_statistics(claims: Claims, name: str, folder: Path) -> list[Path]:
    """Write the figures of every score, and return their paths; none with one draw."""
    written: list[Path] = []
    if claims.num_draws < 2:
        return written
    for score in dict.fromkeys(scores.score for scores in claims.scores):
        own = [scores for scores in claims.scores if scores.score == score]
        stem = own[0].key.replace("/", "-")
        best = {scores.condition: scores.best() for scores in own}
        gaps = [gap for scores in own for gap in _gaps(claims, scores)]
        if gaps:
            better = "below 0 is better" if own[0].lower_is_better else "above 0 is better"
            heading = f"{name}: {score}, differences from the best over draws"
            written += plot_gaps(gaps, best, better, folder / f"differences-{stem}", heading)
        if flips := [each for scores in own for each in _flips(scores)]:
            heading = f"{name}: {score}, probability that neighbours in the order change places"
            written += plot_flips(flips, folder / f"flips-{stem}", heading)
    bars = {
        ", ".join(text for text in (shared.score, shared.condition) if text): [
            Part(source=share.source, share=share.share, low=share.low, high=share.high)
            for share in shared.found.shares
        ]
        for shared in claims.shares
        if shared.found.shares
    }
    if bars:
        written += plot_shares(bars, folder / "shares", f"{name}: shares of the variance of a score")
    return written


def _gaps(claims: Claims, scores: Scores) -> list[Gap]:
    """Return the differences from the best, the smallest first, with Student's intervals: BCa's are too short for few
    draws (docs/explanation/statistics.md).
    """
    known = [row for row in against(claims.rows, scores, scores.best()) if row.found.mean is not None]
    order = scores.ranking()
    return [
        Gap(
            panel=scores.condition,
            name=row.first,
            mean=row.found.mean or 0.0,
            low=row.found.t_low,
            high=row.found.t_high,
        )
        for row in sorted(known, key=lambda row: order.index(row.first))
    ]


def _flips(scores: Scores) -> list[Flips]:
    """Return the curves of every two methods that follow one another in the order of their means."""
    curves = []
    for better, worse in itertools.pairwise(scores.ranking()):
        differences = list(scores.differences(worse, better).values())
        most = max(MOST_DRAWS, len(differences))
        found = [flip_probability(differences, number) for number in range(1, most + 1)]
        known = [probability for probability in found if probability is not None]
        if known:
            curves.append(Flips(panel=scores.condition, name=f"{better}, {worse}", probabilities=known))
    return curves
