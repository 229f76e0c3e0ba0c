"""How unequal a model serves its clients: the worst, the spread and the range over their own test rows.

Beyond the papers. The spread over clients is a usual measure of fairness in federated learning (Li, Sanjabi, Beirami
and Smith, Fair Resource Allocation in Federated Learning, arXiv 1905.10497, definition 1).
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedlit.lab.analyses.base import Analysis, Findings, Run, Table, lines_of
from fedlit.lab.analysis.column import Line, Panel, Picture
from fedlit.lab.analysis.plots import score_look
from fedlit.scores import chosen_scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Inequality:
    """Of one score over clients: mean, worst, population standard deviation, and the best less the worst."""

    mean: float
    worst: float
    spread: float
    disparity: float


def inequality(values: Sequence[float], *, lower_is_better: bool) -> Inequality:
    """Return the numbers of one score of every client, one client or more."""
    return Inequality(
        mean=statistics.fmean(values),
        worst=max(values) if lower_is_better else min(values),
        spread=statistics.pstdev(values),
        disparity=max(values) - min(values),
    )


def over_clients(run: Run, score: str) -> dict[int, Inequality]:
    """Return a score's inequality over the clients' own test rows by round; none where no client was scored alone."""
    found: dict[int, list[float]] = {}
    for key, points in run.below("client/").items():
        if re.fullmatch(rf"[0-9]+/own/{re.escape(score)}", key):
            for number, value in points.items():
                found.setdefault(number, []).append(value)
    lower = score_look(score).lower_is_better
    return {number: inequality(values, lower_is_better=lower) for number, values in sorted(found.items())}


class Fairness(Analysis):
    """Worst client, spread and disparity of every score."""

    name = "fairness"
    title = "Fairness over the clients"
    source = "beyond the papers; spread as in arXiv 1905.10497, definition 1"
    needs = ("own/",)
    remedy = "score every client on its own test rows (eval.on=both), with at most 100 clients"

    def fits(self, run: Run) -> bool:
        """Tell whether single clients were scored."""
        return bool(over_clients(run, "loss"))

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return the last round's numbers of all scores, and a picture of the loss over the rounds."""
        scores = dict.fromkeys(score for run in runs for score in ("loss", *chosen_scores(run.config.data)))
        rows = [row for score in scores for run in runs if (row := _row(run, score))]

        def part(name: str) -> list[Line]:
            return list(lines_of(runs, lambda run: _points(over_clients(run, "loss"), name)))

        panels = [
            Panel(x="aggregation round", y="worst client's loss (nats)", lines=part("worst")),
            Panel(x="aggregation round", y="worst less best (nats)", lines=part("disparity")),
        ]
        caption = "Loss on the clients' own test rows: the worst client's, and the worst client's less the best one's."
        table = Table(name="fairness", caption=_CAPTION, columns=tuple(rows[0]) if rows else (), rows=rows)
        return Findings(
            tables=[table], pictures=[Picture(name="fairness", caption=caption, panels=panels, height=1.45)]
        )


_CAPTION = (
    "After the last evaluation, over the clients' own test rows, in the score's unit: mean, worst client, population "
    "standard deviation (spread), best less worst client (disparity)."
)


def _points(found: Mapping[int, Inequality], name: str) -> dict[int, float]:
    return {number: getattr(each, name) for number, each in found.items()}


def _row(run: Run, score: str) -> dict[str, object] | None:
    found = over_clients(run, score)
    if not found:
        return None
    number = max(found)
    last = found[number]
    return {
        **{"setting": run.label, "run": run.name, "score": score, "round": number, "mean": last.mean},
        **{"worst": last.worst, "spread": last.spread, "disparity": last.disparity},
    }
