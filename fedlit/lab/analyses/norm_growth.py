"""How the norm of the shared weights grows with S t_agg, beside the bound of the lemma.

Lemma 1 of Mahla, Gupta and Sethi (SCL, arXiv 2412.07021, equation 2) and of Mahla, Jadhav and Ramakrishnan (arXiv
2410.23111, equation 30): ||W_agg|| <= B + eta S t_agg D, with B the norm before training, eta the learning rate, S
aggregations, t_agg local steps of each, D the largest gradient norm. Its proof is for plain gradient descent: a step of
AdamW or GaLore is no multiple of the gradient, and only then may the norm pass the bound.
"""

from collections.abc import Sequence
from typing import Any

from fedlit.lab.analyses.base import Analysis, Findings, Run, Table, lines_of
from fedlit.lab.analysis.column import Line, Panel, Picture
from fedlit.recipes import picked_names


def growth(run: Run) -> tuple[dict[float, float], dict[float, float]]:
    """Return norm and bound by local steps so far, both from round 0 on; D is the largest of the whole run."""
    norms, gradients, steps = (run.points(f"norms/{name}") for name in ("shared", "gradient", "steps"))
    if 0 not in norms or not gradients:
        return {}, {}
    largest = max(gradients.values())
    taken, measured, bound = 0.0, {0.0: norms[0]}, {0.0: norms[0]}
    for number in sorted(steps):
        taken += steps[number]
        if number in norms:
            measured[taken] = norms[number]
            bound[taken] = norms[0] + run.config.local.lr * taken * largest
    return measured, bound


class NormGrowth(Analysis):
    """Norm of what is shared against S t_agg, with the lemma's bound."""

    name = "norms"
    title = "Growth of the norm"
    source = "arXiv 2412.07021 (SCL), lemma 1, equation 2; arXiv 2410.23111 (FedFTG), lemma 1, equation 30"
    needs = ("norms/shared",)
    remedy = "give them analysis=[norms] (on by default)"

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return norm and bound of every run, and a picture of both."""
        rows = [row for run in runs if (row := _row(run))]
        grown = list(lines_of(runs, lambda run: _above(growth(run)[0])))
        bounds = [
            Line(name="bound", x=line.x, y=line.y, like=line.name)
            for line in lines_of(runs, lambda run: _above(growth(run)[1]))
        ]
        shares = list(lines_of(runs, _shares))
        places = sorted({place for line in shares for place in line.x})
        met = Line(name="bound met", x=places, y=[1.0] * len(places), is_reference=True)
        panels = [
            Panel(x="local steps, S t_agg", y="norm less B", lines=[*grown, *bounds]),
            Panel(x="local steps, S t_agg", y="share of the bound", lines=[*shares, met], log_y=True),
        ]
        caption = (
            "What the norm of what is shared grew by, with the bound eta S t_agg D (dotted), and the ratio of the two."
        )
        beyond = [str(row["setting"]) for row in rows if not row["within the bound"]]
        picture = Picture(name="norms", caption=caption, panels=panels, height=1.45)
        table = Table(name="norms", caption=_CAPTION, columns=tuple(rows[0]) if rows else (), rows=rows)
        return Findings(tables=[table], pictures=[picture], notes=[_note(beyond)])


_CAPTION = (
    "After the last round: norm and bound B + eta S t_agg D, with D the largest gradient norm of any step; slope is "
    "the norm less B over eta S t_agg D, 1 where the bound is met."
)


def _note(beyond: Sequence[str]) -> str:
    said = f"Beyond the bound: {', '.join(beyond)}" if beyond else "No run passes the bound"
    return (
        f"{said}. The lemma's proof takes steps of the learning rate times a gradient, those of SGD; a step of AdamW "
        "has the size of the learning rate in every entry, whatever the gradient, so its runs may pass it."
    )


def _above(points: dict[float, float]) -> dict[float, float]:
    """Return the points after round 0, less its norm."""
    start = points.get(0.0, 0.0)
    return {place: value - start for place, value in points.items() if place}


def _shares(run: Run) -> dict[float, float]:
    """Return what the norm grew by over what the bound allows."""
    measured, bound = (_above(points) for points in growth(run))
    return {place: value / bound[place] for place, value in measured.items() if bound[place] > 0}


def _row(run: Run) -> dict[str, Any] | None:
    measured, bound = growth(run)
    if len(measured) < 2:
        return None
    last = max(measured)
    start, end, limit = measured[0.0], measured[last], bound[last]
    return {
        "setting": run.label,
        "run": run.name,
        "optimizer": dict(picked_names(run.config.method))["optimizer"],
        "B": start,
        "S t_agg": last,
        "D": (limit - start) / (run.config.local.lr * last),
        "norm": end,
        "bound": limit,
        "slope": (end - start) / (limit - start) if limit > start else None,
        "within the bound": all(value <= bound[place] * (1 + 1e-12) for place, value in measured.items()),
    }
