"""What the page draws of the statistics over draws: differences from the best, and shares of the variance."""

from dataclasses import dataclass

from fedlit.lab.analysis.slots import slots
from fedlit.lab.dashboard.series import rounded
from fedlit.lab.report.over_draws.claims import Claims
from fedlit.lab.report.over_draws.differences import Row, against
from fedlit.lab.report.over_draws.scores import Scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Forest:
    """One score under one condition: every method's difference from the best one. slots: the looks of the methods."""

    title: str
    best: str
    lower_is_better: bool
    names: list[str]
    slots: list[int]
    means: list[float]
    lows: list[float | None]
    highs: list[float | None]
    texts: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """The shares of one score under one condition, 0 to 1, by source. texts: of each part, for a reader."""

    title: str
    sources: list[str]
    shares: list[float]
    texts: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """The charts of the statistics."""

    forests: list[Forest]
    bars: list[Bar]


def drawn_claims(claims: Claims | None) -> Drawn:
    """Return the charts; none without statistics over draws."""
    if claims is None or claims.num_draws < 2:
        return Drawn(forests=[], bars=[])
    bars = [
        Bar(
            title=_title(shared.score, shared.condition),
            sources=[share.source for share in shared.found.shares],
            shares=[rounded(share.share) for share in shared.found.shares],
            texts=[
                f"{100 * share.share:.1f} %{_between(share.low, share.high, 100, '.0f')}"
                for share in shared.found.shares
            ],
        )
        for shared in claims.shares
        if shared.found.shares
    ]
    return Drawn(forests=[_forest(claims, scores) for scores in claims.scores], bars=bars)


def _forest(claims: Claims, scores: Scores) -> Forest:
    best = scores.best()
    rows = [row for row in against(claims.rows, scores, best) if row.found.mean is not None]
    by_name = dict(zip(scores.runs, slots(list(scores.runs)), strict=True))
    return Forest(
        title=_title(scores.score, scores.condition),
        best=best,
        lower_is_better=scores.lower_is_better,
        names=[row.first for row in rows],
        slots=[by_name[row.first] for row in rows],
        means=[rounded(row.found.mean or 0.0) for row in rows],
        lows=[_rounded(row.found.low) for row in rows],
        highs=[_rounded(row.found.high) for row in rows],
        texts=[_text(row) for row in rows],
    )


def _text(row: Row) -> str:
    found = row.found
    test = f"p {found.p:.3g}" if found.p is not None else f"{found.num_pairs} draws, too few for a test"
    return f"{found.mean:.3g}{_between(found.low, found.high, 1, '.3g')}, {test}"


def _between(low: float | None, high: float | None, factor: float, form: str) -> str:
    return "" if low is None or high is None else f" [{factor * low:{form}}, {factor * high:{form}}]"


def _title(score: str, condition: str) -> str:
    return " · ".join(text for text in (score, condition) if text)


def _rounded(value: float | None) -> float | None:
    return None if value is None else rounded(value)
