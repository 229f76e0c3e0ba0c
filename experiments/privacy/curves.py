"""What privacy costs in loss: a small table of finished runs, and a picture of it.

    python curves.py runs/utility runs/deployment
    python curves.py

The first reads run folders and writes the table, the second draws the picture from the table alone. A point is the
mean over the seeds, a bar goes from the lowest to the highest; the dashed line is the untrained model.
"""

import argparse
import csv
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Entry, collect
from fedlit.lab.analysis.palette import INK, MUTED
from fedlit.lab.analysis.plots import add_legend, save, style
from fedlit.lab.analysis.slots import colours

HERE = Path(__file__).resolve().parent
TABLE = HERE / "results" / "utility.csv"
PICTURE = HERE.parents[1] / "docs" / "howto" / "privacy.png"
_MARKERS = "osD^vPX"


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One run, done. population, cohort: clients of the deployment and of its rounds, which the noise is made for.
    epsilon: spent by all rounds, infinite without noise. untrained, loss: on the test rows, nats a token.
    """

    population: int
    cohort: int
    method: str
    epsilon: float
    seed: int
    noise_multiplier: float
    clip_norm: float
    lr: float
    rounds: int
    delta: float
    untrained: float
    loss: float


def point_of(entry: Entry) -> Point:
    """Return what a run with client-level privacy came to.

    Raises:
        UserError: it is not done, or hides no clients.
    """
    config = entry.config
    if config is None or entry.status.state != "done" or config.privacy.unit != "client":
        raise UserError(f"{entry.folder}: no finished run with privacy.unit=client; leave it out, or go on with it")
    first, last = entry.records[0], entry.records[-1]
    return Point(
        population=config.privacy.population or config.num_clients,
        cohort=config.privacy.noise_cohort_size or config.cohort_size or config.num_clients,
        method=config.method.name,
        epsilon=round(float(last.get("privacy/epsilon", math.inf)), 4),
        seed=config.seed,
        noise_multiplier=float(last["privacy/noise_multiplier"]),
        clip_norm=float(config.privacy.clip_norm or math.nan),
        lr=config.local.lr,
        rounds=config.num_rounds,
        delta=config.privacy.delta,
        untrained=round(first["global/loss"], 5),
        loss=round(last["global/loss"], 5),
    )


def write_table(points: Sequence[Point], path: Path) -> None:
    """Write one line a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Point)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(point) for point in points)


def read_table(path: Path) -> list[Point]:
    """Return the runs of a table."""
    kinds = get_type_hints(Point)
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{name: kinds[name](value) for name, value in row.items()} for row in csv.DictReader(file)]
    made: list[Any] = [Point(**row) for row in rows]
    return made


def epsilon_name(epsilon: float) -> str:
    """Return an epsilon as an axis names it, where the noise was made for a round number: 3.9996 is 4."""
    return "∞" if math.isinf(epsilon) else f"{epsilon:.2g}"


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw loss against epsilon, a panel for each deployment, all on one scale."""
    panels = sorted({(point.population, point.cohort) for point in points})
    methods = list(dict.fromkeys(point.method for point in points))
    colour_of = colours(methods)
    marks = dict(zip(methods, _MARKERS * len(methods), strict=False))
    size = (1.6 + 3.4 * len(panels), 3.7)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))
    for axes, (population, cohort) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True
    ):
        shown = [point for point in points if (point.population, point.cohort) == (population, cohort)]
        style(axes)
        axes.set_title(f"{population:,} clients, about {cohort:,} a round", loc="left", fontsize=9, color=INK)
        _draw_panel(axes, shown, methods, colour_of, marks)
    figure.axes[0].set_ylabel("test loss (nats a token), lower is better", fontsize=8, color=MUTED)
    handles = [Line2D([], [], color=colour_of[name], marker=marks[name], markersize=5) for name in methods]
    untrained = Line2D([], [], color=MUTED, linestyle="--", linewidth=1)
    add_legend(figure, [*handles, untrained], [*methods, "untrained"], loc="outside lower left", num_columns=6)
    save(figure, path)


def _draw_panel(
    axes: Axes, points: Sequence[Point], methods: Sequence[str], colour_of: dict[str, str], marks: dict[str, str]
) -> None:
    names = list(dict.fromkeys(epsilon_name(point.epsilon) for point in sorted(points, key=lambda one: one.epsilon)))
    axes.axhline(statistics.fmean(point.untrained for point in points), color=MUTED, linestyle="--", linewidth=1)
    for order, method in enumerate(methods):
        places, means, below, above = [], [], [], []
        for place, name in enumerate(names):
            losses = [one.loss for one in points if (one.method, epsilon_name(one.epsilon)) == (method, name)]
            if losses:
                places.append(place + 0.07 * (order - (len(methods) - 1) / 2))
                means.append(statistics.fmean(losses))
                below.append(means[-1] - min(losses))
                above.append(max(losses) - means[-1])
        look: dict[str, Any] = {"color": colour_of[method], "marker": marks[method], "markersize": 5, "linewidth": 1.4}
        axes.errorbar(places, means, yerr=[below, above], **look, capsize=2, elinewidth=1)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("epsilon of one client at delta 1e-5", fontsize=8, color=MUTED)
    axes.grid(visible=False, axis="x")


def main(words: Sequence[str]) -> int:
    """Write the table, if there are run folders, and draw the picture; return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="run folders, or folders of them; none: draw what the table holds")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    told = parser.parse_args(words)
    try:
        if told.runs:
            points = [point_of(entry) for entry in collect(told.runs).entries]
            order = dict.fromkeys(point.method for point in points)
            write_table(
                sorted(points, key=lambda one: (one.population, [*order].index(one.method), one.epsilon, one.seed)),
                told.table,
            )
        draw(read_table(told.table), told.picture)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
