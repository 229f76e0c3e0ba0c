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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Entry, collect
from fedlit.lab.analysis.palette import INK, MUTED, PALETTE
from fedlit.lab.analysis.plots import add_legend, save, style
from fedlit.lab.analysis.slots import slots

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
    looks = {name: _look(slot, order) for order, (name, slot) in enumerate(zip(methods, slots(methods), strict=True))}
    figure = Figure(
        figsize=(5.0 if len(panels) == 1 else 7.6, 3.7), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    )
    values = [
        {epsilon_name(one.epsilon) for one in points if (one.population, one.cohort) == panel} for panel in panels
    ]
    widths = {"width_ratios": [0.5 + len(names) for names in values]}
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False, gridspec_kw=widths)
    for axes, (population, cohort) in zip(grid[0], panels, strict=True):
        shown = [point for point in points if (point.population, point.cohort) == (population, cohort)]
        style(axes)
        axes.set_title(f"{population:,} clients,\nabout {cohort:,} a round", loc="left", fontsize=9, color=INK)
        _draw_panel(axes, shown, looks)
    figure.axes[0].set_ylabel("test loss (nats a token), lower is better", fontsize=8, color=MUTED)
    handles = [Line2D([], [], **look) for look in looks.values()]
    untrained = Line2D([], [], color=MUTED, linestyle="--", linewidth=1)
    add_legend(figure, [*handles, untrained], [*methods, "untrained"], loc="outside lower left", num_columns=3)
    save(figure, path)


def _look(slot: int, order: int) -> dict[str, Any]:
    """Return a method's colour in all pictures of the house; those of the second round are dashed, with white marks."""
    again = slot >= len(PALETTE)
    return {
        "color": PALETTE[slot % len(PALETTE)],
        "linestyle": (0, (4, 1.5)) if again else "-",
        "marker": _MARKERS[order % len(_MARKERS)],
        "markerfacecolor": "white" if again else None,
        "markersize": 5,
        "linewidth": 1.4,
    }


def _draw_panel(axes: Axes, points: Sequence[Point], looks: Mapping[str, Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(epsilon_name(point.epsilon) for point in sorted(points, key=lambda one: one.epsilon)))
    axes.axhline(statistics.fmean(point.untrained for point in points), color=MUTED, linestyle="--", linewidth=1)
    for order, (method, look) in enumerate(looks.items()):
        places, means, below, above = [], [], [], []
        for place, name in enumerate(names):
            losses = [one.loss for one in points if (one.method, epsilon_name(one.epsilon)) == (method, name)]
            if losses:
                places.append(place + 0.07 * (order - (len(looks) - 1) / 2))
                means.append(statistics.fmean(losses))
                below.append(means[-1] - min(losses))
                above.append(max(losses) - means[-1])
        axes.errorbar(places, means, yerr=[below, above], **look, capsize=2, elinewidth=1)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel(f"epsilon, delta {points[0].delta:g}", fontsize=8, color=MUTED)
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
            names = sorted({point.method for point in points})
            place = dict(zip(names, slots(names), strict=True))
            write_table(sorted(points, key=lambda p: (p.population, place[p.method], p.epsilon, p.seed)), told.table)
        draw(read_table(told.table), told.picture)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
