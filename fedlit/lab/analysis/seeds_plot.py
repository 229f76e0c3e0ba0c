"""Methods with several seeds: curves with a band, and the scores they reached, a panel for each setting.

A method has one look in all panels: its colour, its dashes and its marker, so that it is known in grey too.
"""

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedlit.lab.analysis.palette import INK, MUTED, PALETTE
from fedlit.lab.analysis.panels import pages
from fedlit.lab.analysis.plots import Points, score_look
from fedlit.lab.analysis.slots import slots

_DASHES: Sequence[Any] = ("-", (0, (5, 1.6)), (0, (1.2, 1.3)), (0, (6, 1.4, 1.3, 1.4)))
_MARKERS = "osD^vPX*<>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """The curves of one method in one setting, the points of every seed. Panels of one `scale` share their axis."""

    panel: str
    name: str
    by_seed: Sequence[Points]
    scale: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """What the seeds of one method reached in one setting, and the published value in the same unit.

    final: whether the values are of runs that are done. scale: panels of one scale share their axis.
    """

    panel: str
    name: str
    values: Sequence[float]
    final: bool = True
    published: float | None = None
    scale: str = ""


def plot_curves_of_seeds(
    curves: Sequence[Curves], score: str, stem: Path, title: str, scale: float = 1.0, over: str = "seeds"
) -> list[Path]:
    """Draw the mean over seeds by round with a band of one sample standard deviation; return the files, PNG and PDF.

    Means are over those rounds that all seeds of a line have; a single seed has no band. The points are in the unit of
    the records times `scale`. over: what the lines are means over.
    """
    names = list(dict.fromkeys(curve.name for curve in curves))
    looks = looks_of(names)

    def draw(axes: Axes, panel: str) -> None:
        for curve in (curve for curve in curves if curve.panel == panel):
            _draw_curve(axes, curve, looks[curve.name])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("rounds of training", fontsize=8, color=MUTED)
        axes.set_ylabel(_axis_label(score, scale), fontsize=8, color=MUTED)

    if any(len(curve.by_seed) > 1 for curve in curves):
        title += f"\nmean over {over}, band: ± one sample standard deviation"
    handles = [Line2D([], [], **looks[name]) for name in names]
    scales = {curve.panel: curve.scale for curve in curves}
    return pages(scales, 2.9, draw, (handles, names), stem, title, shared="y")


def plot_reached(
    reached: Sequence[Reached], score: str, stem: Path, title: str, scale: float = 1.0, over: str = "seeds"
) -> list[Path]:
    """Draw what every method reached, a row for each: the seeds, their mean and one sample standard deviation, and the
    published value; return the files, PNG and PDF. All are in the unit of the records times `scale`.
    over: what the values are of.
    """
    looks = looks_of(list(dict.fromkeys(entry.name for entry in reached)))

    def draw(axes: Axes, panel: str) -> None:
        shown = [entry for entry in reached if entry.panel == panel]
        for row, entry in enumerate(shown):
            _draw_reached(axes, row, entry, looks[entry.name])
        axes.set_yticks(range(len(shown)), [textwrap.shorten(e.name, 26, placeholder="…") for e in shown], fontsize=8)
        for label in axes.get_yticklabels():
            label.set(color=INK, parse_math=False)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.margins(x=0.08)
        axes.set_xlabel(_axis_label(score, scale), fontsize=8, color=MUTED)

    grey: Mapping[str, Any] = {"color": MUTED, "marker": "o"}
    entries = [("mean ± sample standard deviation", Line2D([], [], **grey, linewidth=1.4, markersize=7))]
    if any(len(entry.values) > 1 for entry in reached):
        entries.append(
            (f"one {over[:-1]}", Line2D([], [], **grey, linestyle="none", markersize=4, markerfacecolor="none"))
        )
    else:
        entries = [("one run", Line2D([], [], **grey, linestyle="none", markersize=7))]
    if any(entry.values and not entry.final for entry in reached):
        entries.append(("not done", Line2D([], [], **grey, linestyle="none", markersize=7, markerfacecolor="white")))
    if any(entry.published is not None for entry in reached):
        entries.append(("published", Line2D([], [], **_PUBLISHED)))
    legend = [line for _, line in entries], [text for text, _ in entries]
    scales = {entry.panel: entry.scale for entry in reached}
    height = 0.95 + 0.27 * max((sum(e.panel == panel for e in reached) for panel in scales), default=1)
    return pages(scales, height, draw, legend, stem, title, shared="x")


_PUBLISHED: Mapping[str, Any] = {
    "color": INK,
    "marker": "|",
    "linestyle": "none",
    "markersize": 13,
    "markeredgewidth": 1.6,
}


def looks_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return how each line looks, by name."""
    return {name: _look(slot, place) for place, (name, slot) in enumerate(zip(names, slots(names), strict=True))}


def _look(slot: int, place: int) -> dict[str, Any]:
    """Return colour, dashes and marker, of which no two of the first 20 slots share all three, and a width: the first
    are drawn first and wider, so that they show below others with the same values.
    """
    extra = 1.0 / (1 + place)
    return {
        "color": PALETTE[slot % len(PALETTE)],
        "linestyle": _DASHES[(slot + slot // len(PALETTE)) % len(_DASHES)],
        "marker": _MARKERS[(slot + slot // len(PALETTE)) % len(_MARKERS)],
        "linewidth": 1.4 + 0.9 * extra,
        "markersize": 4.2 + 2.2 * extra,
    }


def _axis_label(score: str, scale: float) -> str:
    look = score_look(score)
    times = "" if scale == 1.0 else f" × {scale:g}"
    return f"{look.heading}{times}, lower is better" if look.lower_is_better else f"{look.heading} ({look.unit}{times})"


def _draw_curve(axes: Axes, curve: Curves, look: Mapping[str, Any]) -> None:
    seeds = [dict(points) for points in curve.by_seed if points]
    rounds = sorted(set.intersection(*(set(points) for points in seeds))) if seeds else []
    if not rounds:
        return
    means = [statistics.fmean(points[number] for points in seeds) for number in rounds]
    if len(seeds) > 1:
        stds = [statistics.stdev(points[number] for points in seeds) for number in rounds]
        low, high = ([m + sign * s for m, s in zip(means, stds, strict=True)] for sign in (-1, 1))
        axes.fill_between(rounds, low, high, color=look["color"], alpha=0.16, linewidth=0)
    every = max(1, math.ceil(len(rounds) / 12))
    axes.plot(rounds, means, **look, markevery=every, zorder=3)


def _draw_reached(axes: Axes, row: int, entry: Reached, look: Mapping[str, Any]) -> None:
    mark = {"color": look["color"], "marker": look["marker"]}
    if entry.published is not None:
        axes.plot([entry.published], [row], **_PUBLISHED, zorder=2)
    if not entry.values:
        axes.annotate("no value", (0.5, row), xycoords=("axes fraction", "data"), fontsize=7, color=MUTED, ha="center")
        return
    mean = statistics.fmean(entry.values)
    if len(entry.values) > 1:
        axes.plot(
            entry.values, [row] * len(entry.values), **mark, linestyle="none", markersize=4, markerfacecolor="none"
        )
        axes.errorbar([mean], [row], xerr=statistics.stdev(entry.values), color=look["color"], capsize=3, linewidth=1.4)
    face: Mapping[str, Any] = {} if entry.final else {"markerfacecolor": "white"}
    axes.plot([mean], [row], **mark, **face, linestyle="none", markersize=7, zorder=3)
