"""How the gap to the best training loss goes with the number of aggregations.

Theorem 1 of Mahla, Jadhav and Ramakrishnan (arXiv 2410.23111, equation 5) bounds the excess risk of FFA-LoRA by a
polynomial of degree two in S t_agg; theorem 2 there (equation 6), and theorem 1 of Mahla, Gupta and Sethi (SCL, arXiv
2412.07021, equation 5), bound that of averaged weights by one of degree one. S counts aggregations, t_agg local steps.
Both are upper bounds that grow while training lowers the loss: the shape of a measured gap neither confirms nor refutes
them. The fits show it with its errors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fedlit.lab.analyses.base import Analysis, Findings, Run, Table, by_label, lines_of, mean_of
from fedlit.lab.analysis.column import Line, Panel, Picture
from fedlit.statistics.fitting import fit_polynomial

CLEAR = 2.0
"""Of AICc, from which one fit is said to predict better."""
FEWEST = 5
"""Rounds from which both fits have residuals and a criterion."""


def gap_of(losses: Mapping[int, float]) -> dict[int, float]:
    """Return training losses by round less their least."""
    least = min(losses.values(), default=0.0)
    return {number: loss - least for number, loss in losses.items()}


class ExcessRisk(Analysis):
    """Training loss above the best seen against S, with a line and a parabola."""

    name = "excess_risk"
    title = "Excess risk against the number of aggregations"
    source = "arXiv 2410.23111 (FedFTG), theorems 1 and 2; arXiv 2412.07021 (SCL), theorem 1"
    needs = ("client/", "clients/train_loss")
    remedy = "train for a round at least"

    def fits(self, run: Run) -> bool:
        """Tell whether a run has training losses."""
        return bool(run.train_loss())

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return both fits of every run, and a picture of the gaps with the parabolas."""
        rows = [row for run in runs if len(run.train_loss()) >= FEWEST for row in _rows(run)]
        lines = list(lines_of(runs, lambda run: gap_of(run.train_loss())))
        panel = Panel(
            x="aggregations S (rounds)", y="train loss above the best (nats)", lines=[*lines, *_parabolas(runs)]
        )
        caption = "Training loss above the least of the run, and the parabola that fits best (dotted)."
        table = Table(name="excess_risk", caption=_CAPTION, columns=tuple(rows[0]) if rows else (), rows=rows)
        picture = Picture(name="excess_risk", caption=caption, panels=[panel], height=2.1)
        bounds = [row for run in runs if (row := _bound_row(run))]
        columns = tuple(bounds[0]) if bounds else ()
        bound_table = Table(name="excess_risk_bounds", caption=_BOUNDS, columns=columns, rows=bounds)
        return Findings(tables=[table, bound_table], pictures=[picture], notes=[_NOTE, *_verdicts(rows)])


_CAPTION = (
    "Fits of the gap by least squares, constant + slope S + curvature S^2, with standard errors; residual is their "
    "standard deviation. The smaller AICc, the better a fit predicts."
)
_BOUNDS = (
    "The part of theorem 2's bound that is known, alpha D^2 S t_agg, after the last round, with D the largest gradient "
    "norm of the run; theorem 1's has constants that no run shows. It is a bound of averaged weights under SGD."
)
_NOTE = (
    "The gap is measured: mean training loss of the clients' local steps in round S above the least of the run, which "
    "stands for the unknown optimum. The theorems bound it from above by a line or a parabola that rises in S. A gap "
    "that falls lies below any such bound with a large enough constant: the fits show a shape and prove nothing."
)


def _rows(run: Run) -> list[dict[str, Any]]:
    gap = gap_of(run.train_loss())
    rounds, values = list(gap), list(gap.values())
    rows = []
    for degree, name in ((1, "linear"), (2, "quadratic")):
        fit = fit_polynomial(rounds, values, degree)
        padded = [*zip(fit.coefficients, fit.errors, strict=True), (None, None)][:3]
        row: dict[str, Any] = {"setting": run.label, "run": run.name, "fit": name}
        for term, (value, error) in zip(("constant", "slope", "curvature"), padded, strict=False):
            row |= {term: value, f"{term} error": error}
        rows.append(row | {"residual": fit.residual, "AICc": fit.aicc})
    return rows


def _bound_row(run: Run) -> dict[str, Any] | None:
    """Return alpha D^2 S t_agg of a run whose gradients were measured (`analysis=[norms]`)."""
    gradients, steps = run.points("norms/gradient"), run.points("norms/steps")
    if not gradients or not steps:
        return None
    rate, largest, taken = run.config.local.lr, max(gradients.values()), sum(steps.values())
    return {
        **{"setting": run.label, "run": run.name, "alpha": rate, "D": largest, "S t_agg": taken},
        "alpha D^2 S t_agg": rate * largest**2 * taken,
        "largest gap": max(gap_of(run.train_loss()).values()),
    }


def _parabolas(runs: Sequence[Run]) -> list[Line]:
    lines = []
    for label, repeats in by_label(runs).items():
        gap = mean_of([gap_of(run.train_loss()) for run in repeats])
        if len(gap) >= FEWEST:
            constant, slope, curvature = fit_polynomial(list(gap), list(gap.values()), 2).coefficients
            heights = [constant + slope * place + curvature * place**2 for place in gap]
            lines.append(Line(name="parabola", x=list(gap), y=heights, like=label))
    return lines


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence on slopes and on which fit predicts better."""
    linear = [row for row in rows if row["fit"] == "linear"]
    if not linear:
        return [f"No fits: they need {FEWEST} rounds."]
    falling = [row["setting"] for row in linear if row["slope"] + 2 * row["slope error"] < 0]
    rising = [row["setting"] for row in linear if row["slope"] - 2 * row["slope error"] > 0]
    bent = [
        straight["setting"]
        for straight, parabola in zip(linear, [row for row in rows if row["fit"] == "quadratic"], strict=True)
        if parabola["AICc"] < straight["AICc"] - CLEAR
    ]
    said = [f"The gap falls by more than two standard errors of its slope under {_list(falling)}."]
    said.append(
        f"It rises by as much under {_list(rising)}. The parabola predicts better than the line under {_list(bent)}."
    )
    return said


def _list(names: Sequence[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, names))) if names else "none"
