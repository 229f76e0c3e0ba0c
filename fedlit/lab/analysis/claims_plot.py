"""What a table may claim, as pictures: differences with intervals, shares of the variance, how often an order flips."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedlit.lab.analysis.palette import INK, MUTED, PALETTE
from fedlit.lab.analysis.panels import pages
from fedlit.lab.analysis.plots import text_colour
from fedlit.lab.analysis.seeds_plot import looks_of

LONGEST = 26
"""Characters of a name beside an axis."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """One method's difference from the best of its panel, with an interval; low and high are None without one."""

    panel: str
    name: str
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One source of one bar: its share, 0 to 1, and the interval of it."""

    source: str
    share: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Flips:
    """The probability that two methods change places, by number of draws from 1; `name` is of both."""

    panel: str
    name: str
    probabilities: Sequence[float]


def plot_gaps(gaps: Sequence[Gap], best: Mapping[str, str], better: str, stem: Path, title: str) -> list[Path]:
    """Draw a forest of differences, a row for each method; return the files, PNG and PDF.

    best: by panel, what the differences are from. better: which side of zero is better.
    """
    looks = looks_of(list(dict.fromkeys(gap.name for gap in gaps)))

    def draw(axes: Axes, panel: str) -> None:
        shown = [gap for gap in gaps if gap.panel == panel]
        axes.axvline(0, color=INK, linewidth=1)
        for row, gap in enumerate(shown):
            look = looks[gap.name]
            if gap.low is not None and gap.high is not None:
                axes.plot([gap.low, gap.high], [row, row], color=look["color"], linewidth=2, solid_capstyle="butt")
            axes.plot([gap.mean], [row], color=look["color"], marker=look["marker"], linestyle="none", markersize=6.5)
        _name_rows(axes, [gap.name for gap in shown])
        axes.set_xlabel(f"minus {textwrap.shorten(best[panel], LONGEST, placeholder='…')}, {better}", fontsize=8)
        axes.xaxis.label.set(color=MUTED, parse_math=False)

    mark: Any = Line2D([], [], color=MUTED, marker="o", linewidth=2, markersize=6.5)
    panels = {gap.panel: gap.panel for gap in gaps}
    height = 0.95 + 0.27 * max(sum(gap.panel == panel for gap in gaps) for panel in panels)
    legend = [mark], ["mean over draws and its 95 % interval (Student)"]
    return pages(panels, height, draw, legend, stem, title, shared="x")


def plot_shares(bars: Mapping[str, Sequence[Part]], stem: Path, title: str) -> list[Path]:
    """Draw a stacked bar for each table, by its name, with an interval for each part; return the files, PNG and PDF."""
    sources = list(dict.fromkeys(part.source for parts in bars.values() for part in parts))
    colours = {source: PALETTE[(3, 1, 4, 5, 7)[i % 5]] for i, source in enumerate(sources)}

    def draw(axes: Axes, _: str) -> None:
        for row, parts in enumerate(bars.values()):
            _draw_bar(axes, row, parts, colours)
        _name_rows(axes, list(bars))
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel(
            "share of the variance; lines below a bar: 95 % intervals of its parts", fontsize=8, color=MUTED
        )

    handles: list[Line2D | Patch] = [Patch(color=colour) for colour in colours.values()]
    return pages({"": ""}, 0.9 + 0.62 * len(bars), draw, (handles, sources), stem, title, shared="x")


def _draw_bar(axes: Axes, row: int, parts: Sequence[Part], colours: Mapping[str, str]) -> None:
    """Draw the parts of a bar from left to right, and below it the intervals, each on a line of its own from 0."""
    left, step = 0.0, 0.34 / max(len(parts), 1)
    for i, part in enumerate(parts):
        colour = colours[part.source]
        axes.barh(row - 0.14, part.share, 0.4, left=left, color=colour, edgecolor="white", linewidth=0.8)
        if part.share > 0.07:
            text = f"{100 * part.share:.0f} %"
            place = (left + part.share / 2, row - 0.14)
            axes.text(*place, text, ha="center", va="center", fontsize=7, color=text_colour(colour))
        left += part.share
        if part.low is not None and part.high is not None:
            below = row + 0.12 + step * i
            axes.plot([part.low, part.high], [below, below], color=colour, linewidth=1.6, solid_capstyle="butt")
            axes.plot([part.share], [below], color=colour, marker="o", markersize=2.6, linestyle="none")


def plot_flips(flips: Sequence[Flips], stem: Path, title: str) -> list[Path]:
    """Draw by number of draws how probable it is that two methods change places; return the files."""
    names = list(dict.fromkeys(each.name for each in flips))
    looks = looks_of(names)

    def draw(axes: Axes, panel: str) -> None:
        for each in (each for each in flips if each.panel == panel):
            numbers = range(1, len(each.probabilities) + 1)
            axes.plot(numbers, each.probabilities, **looks[each.name], markevery=max(1, len(numbers) // 8))
        axes.set_ylim(0, 0.52)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("draws", fontsize=8, color=MUTED)
        axes.set_ylabel("order flips", fontsize=8, color=MUTED)

    handles = [Line2D([], [], **looks[name]) for name in names]
    return pages({each.panel: "" for each in flips}, 2.9, draw, (handles, names), stem, title, shared="y")


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [textwrap.shorten(name, LONGEST, placeholder="…") for name in names], fontsize=8)
    for label in axes.get_yticklabels():
        label.set(color=INK, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
