"""The statistics of a table as tables for a page or a paper: compact, every other number is in the CSV files."""

from collections.abc import Sequence
from dataclasses import replace

from fedlit.lab.report.cells import MISSING, Cell
from fedlit.lab.report.over_draws.claims import Claims
from fedlit.lab.report.over_draws.differences import FEW, Row, against, shared_draws
from fedlit.lab.report.over_draws.examples import Error
from fedlit.lab.report.table import Table
from fedlit.statistics.paired import EXACT_PAIRS, LEVEL, min_pairs
from fedlit.statistics.planning import MAX_DRAWS
from fedlit.statistics.shares import SOURCES, Share

ALPHA = 1 - LEVEL


def sections_of(claims: Claims) -> list[tuple[str, Table]]:
    """Return every section's name and table; none where one draw or one method leaves nothing to say over draws."""
    found = []
    if claims.num_draws > 1:
        found.append(("Differences over draws", differences_table(claims)))
        if any(shared.found.shares for shared in claims.shares):
            found.append(("Shares of the variance", shares_table(claims)))
    if claims.errors:
        found.append(("Errors over examples", examples_table(claims)))
    return found


def silence(claims: Claims) -> str:
    """Return why there are no differences over draws, in a sentence; empty where there are, or nothing is compared."""
    if claims.num_draws > 1 or not claims.rows:
        return ""
    many = "no draw that two methods share" if not claims.num_draws else "one draw of the partition"
    return f"No statistics over draws: {many}. An axis partition.seed gives more; a test takes {min_pairs(ALPHA)}."


def differences_table(claims: Claims) -> Table:
    """Return every method against the best one and against the reference."""
    conditions = _has_conditions(claims)
    cells: list[tuple[Cell, ...]] = []
    breaks: list[int] = []
    for scores in claims.scores:
        breaks.append(len(cells))
        for other in dict.fromkeys((scores.best(), claims.reference)):
            for row in against(claims.rows, scores, other):
                labels = [scores.score, *([scores.condition] if conditions else []), row.first, row.second]
                cells.append((*(Cell(text) for text in labels), *_numbers(row)))
    flips = ", ".join([*map(str, FEW), "all"])
    heads = (
        "score",
        *(("condition",) if conditions else ()),
        "method",
        "against",
        "draws",
        "difference",
        f"{LEVEL:.0%}, Student",
        f"{LEVEL:.0%}, BCa",
    )
    return Table(
        caption=f"Paired differences over draws of the partition, of every method from the best of each score and from "
        f"{claims.reference}; each draw is the mean over its seeds. Student's and BCa bootstrap intervals, p of the "
        f"two-sided sign-flip test, corrected for all tests of a score, by Holm and by flipping whole draws.",
        heads=(
            *heads,
            "p",
            "p, Holm",
            "p, table",
            f"order flips with {flips} draws",
            "draws needed",
        ),
        num_labels=3 + conditions,
        cells=tuple(cells),
        breaks=tuple(breaks[1:]),
        notes=_difference_notes(claims),
    )


def _numbers(row: Row) -> list[Cell]:
    found = row.found
    if found.p is None:
        p = f"too few draws ({found.num_pairs} of {min_pairs(ALPHA)})"
    else:
        p = f"{found.p:.3g}" + ("" if found.is_exact else " *")
    flips = " / ".join(MISSING if flip is None else f"{flip:.2f}" for flip in row.flips)
    return [
        Cell(str(found.num_pairs)),
        Cell(_number(found.mean)),
        *(Cell(_between(*ends)) for ends in ((found.t_low, found.t_high), (found.low, found.high))),
        Cell(p),
        *(Cell(_number(p), best=p is not None and p <= ALPHA) for p in (row.p_holm, row.p_table)),
        Cell(flips),
        Cell(_needed(row.needed)),
    ]


def _difference_notes(claims: Claims) -> tuple[str, ...]:
    notes = [
        "Below some 30 draws BCa's interval is too short, and Student's is the one to read.",
        f"Bold: at most {ALPHA:.2g} after the correction for all tests of a score.",
        *_deaf(claims),
    ]
    for score, members in claims.by_score().items():
        shared, most = len(shared_draws(members)), max(row.found.num_pairs for row in claims.rows if row.score == score)
        if shared < most and most >= min_pairs(ALPHA):
            notes.append(f"{score}: p, table is over the {shared} draws that all methods have.")
    if any(row.found.p is None for row in claims.rows):
        notes.append(f"With fewer than {min_pairs(ALPHA)} draws no two-sided test can reach {ALPHA:.2g}.")
    if any(row.found.num_pairs > 1 and row.found.low is None for row in claims.rows):
        reasons = dict.fromkeys(_without_count(row.found.reason) for row in claims.rows if row.found.low is None)
        notes.append(f"Without an interval: {'; '.join(reason for reason in reasons if reason)}.")
    if any(row.found.p is not None and not row.found.is_exact for row in claims.rows):
        notes.append("*: drawn patterns of signs; others count all.")
    notes.append(
        "Order flips: probability that the mean over so many new draws has the other sign, at least; all: as many as "
        "there are. Draws needed: for a gap as large as this one at power 0.8; a gap that chance enlarged takes more."
    )
    if any(scores.own_seeds for scores in claims.scores):
        notes.append("Every draw has a seed of its own: what is over draws is over both.")
    return (*notes, "Every two methods: differences.csv.")


def _deaf(claims: Claims) -> list[str]:
    """Return a note on scores whose tests are too many for any of them to pass, however large a difference is."""
    notes = []
    for score in dict.fromkeys(row.score for row in claims.rows):
        tested = [row.found for row in claims.rows if row.score == score and row.found.p is not None]
        if tested and (num := max(found.num_pairs for found in tested)) <= EXACT_PAIRS:
            least = min(1.0, len(tested) * 2.0 ** (1 - num))
            if least > ALPHA:
                needed = min_pairs(ALPHA / len(tested))
                notes.append(
                    f"{score}: with {num} draws p is at least {2.0 ** (1 - num):.2g}, after Holm over {len(tested)} "
                    f"tests {least:.2g}: no difference could pass Holm; it takes {needed} draws."
                )
    return notes


def _without_count(reason: str) -> str:
    return reason.partition("; ")[2].partition(", no two-sided")[0]


def shares_table(claims: Claims) -> Table:
    """Return the shares of every score under every condition."""
    conditions = _has_conditions(claims)
    shown = [shared for shared in claims.shares if shared.found.shares]
    sources = [source for source in SOURCES if any(source in _by_source(s.found.shares) for s in shown)]
    cells, notes = [], []
    for shared in shown:
        by_source = _by_source(shared.found.shares)
        size = f"{shared.found.num_methods} x {shared.found.num_draws} x {shared.found.num_seeds}"
        labels = [shared.score, *([shared.condition] if conditions else []), size]
        cells.append((*(Cell(text) for text in labels), *(Cell(_percent(by_source.get(s))) for s in sources)))
    for shared in claims.shares:
        where = f"{shared.score}, {shared.condition}" if shared.condition else shared.score
        if shared.note:
            notes.append(f"Of {where}: {shared.note}.")
    return Table(
        caption=f"Shares of the variance of a score, by source, with {LEVEL:.0%} intervals; of methods x draws x "
        "seeds.",
        heads=("score", *(("condition",) if conditions else ()), "table", *sources),
        num_labels=2 + conditions,
        cells=tuple(cells),
        breaks=(),
        notes=tuple(dict.fromkeys(notes)),
    )


def examples_table(claims: Claims) -> Table:
    """Return of every method, and of its difference from the best, the errors over examples and over draws."""
    conditions = _has_conditions(claims)
    cells: list[tuple[Cell, ...]] = []
    breaks: list[int] = []
    for scores in claims.scores:
        mine = [error for error in claims.errors if (error.score, error.condition) == (scores.score, scores.condition)]
        best = scores.best()
        breaks.append(len(cells))
        for error in (error for error in mine if not error.second):
            paired = next(
                (_from(e, best) for e in mine if e.second and {e.first, e.second} == {error.first, best}), None
            )
            labels = [scores.score, *([scores.condition] if conditions else []), error.first]
            cells.append(
                (
                    *(Cell(text) for text in labels),
                    *(Cell(text) for text in (str(error.num_draws), str(error.num_examples), f"{error.mean:.4g}")),
                    *(Cell(_number(value)) for value in (error.std_error, error.std_draws)),
                    *(
                        Cell(_number(value))
                        for value in (
                            (None, None, None) if paired is None else (paired.mean, paired.std_error, paired.std_draws)
                        )
                    ),
                )
            )
    columns = ("mean", "over examples", "over draws", "from the best", "over examples", "over draws")
    return Table(
        caption="How far a score of one draw lies by chance: the standard error over its test examples, beside the "
        "sample deviation between draws; the same of the difference from the best method, example by example.",
        heads=("score", *(("condition",) if conditions else ()), "method", "draws", "examples", *columns),
        num_labels=2 + conditions,
        cells=tuple(cells),
        breaks=tuple(number for number in dict.fromkeys(breaks[1:]) if 0 < number < len(cells)),
        notes=("The error over examples says nothing about other draws. Every two methods: examples.csv.",),
    )


def _from(error: Error, best: str) -> Error:
    """Return a paired error as the difference from the best."""
    return error if error.second == best else replace(error, first=error.second, second=best, mean=0.0 - error.mean)


def _has_conditions(claims: Claims) -> bool:
    return any(scores.condition for scores in claims.scores)


def _by_source(shares: Sequence[Share]) -> dict[str, Share]:
    return {share.source: share for share in shares}


def _between(low: float | None, high: float | None) -> str:
    return MISSING if low is None else f"{_number(low)} to {_number(high)}"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3g}"


def _percent(share: Share | None) -> str:
    if share is None:
        return MISSING
    between = (
        f" [{100 * share.low:.0f}, {100 * share.high:.0f}]" if share.low is not None and share.high is not None else ""
    )
    return f"{100 * share.share:.1f} %{between}"


def _needed(needed: int | None) -> str:
    if needed is None:
        return MISSING
    return f"{MAX_DRAWS} or more" if needed >= MAX_DRAWS else str(needed)
