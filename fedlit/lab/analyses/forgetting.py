"""What a model loses on texts that no client has: its loss on a general set over the rounds.

Beyond the papers. The set is `eval.general` of the runs.
"""

from collections.abc import Sequence

from fedlit.lab.analyses.base import Analysis, Findings, Run, Table, by_label, lines_of, mean_of
from fedlit.lab.analysis.column import Line, Panel, Picture

KEY = "general/loss"


class Forgetting(Analysis):
    """Loss on the general set against rounds, and against the loss on the clients' task."""

    name = "forgetting"
    title = "Forgetting"
    source = "beyond the papers"
    needs = (KEY,)
    remedy = "run them with analysis=[...,forgetting] and eval.general=<data set>, such as pydoc"

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return how the loss rose, and a picture over the rounds."""
        rows = [row for run in runs if (row := _row(run))]
        lines = list(lines_of(runs, lambda run: run.points(KEY)))
        panel = Panel(x="aggregation round", y="loss on the general set (nats)", lines=lines)
        traded = Panel(
            x="loss on the clients' task (nats)", y="loss on the general set (nats)", lines=_traded(runs), whole_x=False
        )
        caption = "Loss on texts that no client has, over the rounds and against the loss on the global test set."
        table = Table(name="forgetting", caption=_CAPTION, columns=tuple(rows[0]) if rows else (), rows=rows)
        picture = Picture(name="forgetting", caption=caption, panels=[panel, traded], height=1.6)
        return Findings(tables=[table], pictures=[picture])


_CAPTION = "Loss on the general set before training and after the last round, the largest of all rounds, and the rise."


def _traded(runs: Sequence[Run]) -> list[Line]:
    """Return the loss on the general set against that on the task, each a mean over repeats, round after round."""
    lines = []
    for label, repeats in by_label(runs).items():
        general, task = (mean_of([run.points(key) for run in repeats]) for key in (KEY, "global/loss"))
        rounds = [number for number in general if number in task]
        if rounds:
            x, y = [task[number] for number in rounds], [general[number] for number in rounds]
            lines.append(Line(name=label, x=x, y=y))
    return lines


def _row(run: Run) -> dict[str, object] | None:
    points = run.points(KEY)
    if len(points) < 2:
        return None
    first, last = points[min(points)], points[max(points)]
    return {
        **{"setting": run.label, "run": run.name, "before": first, "after": last},
        **{"largest": max(points.values()), "rise": last - first},
    }
