"""The figures of the statistics: a forest of differences, bars of shares, how an order flips; as PDF and PNG."""

from pathlib import Path

from fedlit.lab.analysis.claims_plot import Flips, Gap, Part, plot_flips, plot_gaps, plot_shares
from fedlit.lab.report.over_draws.claims import Claims
from fedlit.lab.report.over_draws.differences import Row, against
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
        rows = [(scores, row) for scores in own for row in against(claims.rows, scores, best[scores.condition])]
        gaps = [gap for scores, row in rows if (gap := _gap(scores, row)) is not None]
        if gaps:
            better = "below 0 is better" if own[0].lower_is_better else "above 0 is better"
            heading = f"{name}: {score}, differences from the best over draws"
            written += plot_gaps(gaps, best, better, folder / f"differences-{stem}", heading)
        flips = [each for scores, row in rows if (each := _flips(scores, row)) is not None]
        if flips:
            heading = f"{name}: {score}, probability that the order with the best flips"
            written += plot_flips(flips, best, folder / f"flips-{stem}", heading)
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


def _gap(scores: Scores, row: Row) -> Gap | None:
    found = row.found
    if found.mean is None:
        return None
    return Gap(panel=scores.condition, name=row.first, mean=found.mean, low=found.low, high=found.high)


def _flips(scores: Scores, row: Row) -> Flips | None:
    differences = list(scores.differences(row.first, row.second).values())
    most = max(MOST_DRAWS, len(differences))
    found = [flip_probability(differences, number) for number in range(1, most + 1)]
    known = [probability for probability in found if probability is not None]
    return Flips(panel=scores.condition, name=row.first, probabilities=known) if known else None
