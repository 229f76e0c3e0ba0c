"""Which directions clients and rounds change: principal angles.

Mahla, Jadhav and Ramakrishnan, arXiv 2410.23111, explain what LoRA methods lose by the subspaces that clients learn,
and GaLore's gain by its projector; the paper shows no angles. 0 degrees: one space; 90: orthogonal ones. `out` is the
space of a change's columns, `in` that of its rows.
"""

from collections.abc import Sequence

from fedlit.lab.analyses.base import ON_BY_DEFAULT, Analysis, Findings, Run, Table, lines_of
from fedlit.lab.analysis.column import Panel, Picture

KEYS = {
    "subspaces/clients_out": "between clients, out",
    "subspaces/clients_in": "between clients, in",
    "subspaces/server_out": "between rounds, out",
    "subspaces/server_in": "between rounds, in",
    "subspaces/projector": "GaLore's projector between rounds",
}
"""What is measured, by its key in the record: means over angles, pairs and layers, in degrees."""


class Subspaces(Analysis):
    """Angles between clients' updates, between consecutive global updates, and of GaLore's projectors."""

    name = "subspaces"
    title = "Subspaces of clients and rounds"
    source = "arXiv 2410.23111 (FedFTG), section Why Not LoRA; angles are not in the paper"
    needs = ("subspaces/",)
    remedy = f"give runs of LoRA methods or SCL analysis=[subspaces] {ON_BY_DEFAULT}, dense ones analysis=[dense]"

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return every angle of every round, and a panel for each kind that a run has."""
        having = {key: [run for run in runs if run.points(key)] for key in KEYS}
        panels = [_panel(key, found) for key, found in having.items() if found]
        rows = [
            {
                "setting": run.label,
                "run": run.name,
                "measure": name,
                "first": points[min(points)],
                "last": points[max(points)],
            }
            for run in runs
            for key, name in KEYS.items()
            if (points := run.points(key))
        ]
        caption = "Mean principal angles in the first and in the last round that have them, in degrees."
        table = Table(name="subspaces", caption=caption, columns=tuple(rows[0]), rows=rows)
        picture = Picture(
            name="subspaces",
            caption="Mean principal angles: 0 is one space, 90 are orthogonal ones.",
            panels=panels,
            columns=2 if len(panels) > 1 else 1,
            height=1.3,
        )
        every = Table(
            name="subspaces_rounds",
            caption="The same in every round.",
            columns=("setting", "run", "measure", "round", "degrees"),
            rows=[
                {"setting": run.label, "run": run.name, "measure": name, "round": number, "degrees": degrees}
                for run in runs
                for key, name in KEYS.items()
                for number, degrees in run.points(key).items()
            ],
        )
        return Findings(tables=[table, every], pictures=[picture])


def _panel(key: str, runs: Sequence[Run]) -> Panel:
    lines = list(lines_of(runs, lambda run: run.points(key)))
    return Panel(x="aggregation round", y="mean angle (degrees)", title=KEYS[key], lines=lines)
