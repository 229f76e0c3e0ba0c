"""Pictures that fit one column of a paper: 3.3 inches wide, letters of 7 points, as PDF and as PNG.

What a picture shows is data (`Picture`): who makes one needs no matplotlib. A method has the look that it has in every
other picture (`seeds_plot.looks_of`).
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from fedlit.lab.analysis.palette import INK, MUTED, PALETTE
from fedlit.lab.analysis.plots import save, style
from fedlit.lab.analysis.seeds_plot import looks_of

WIDTH = 3.3
"""Of a column, in inches."""
DPI = 300
MOST_LINEAR = 20
"""Largest over smallest value up to which an axis stays linear."""
_SIZE = 7
_LETTER = 0.055
"""Inches of a letter of this size, on average."""
_LEGEND: Mapping[str, Any] = {
    **{"frameon": False, "fontsize": _SIZE, "labelcolor": INK},
    **{"handlelength": 2.0, "handletextpad": 0.5, "columnspacing": 1.0, "borderpad": 0.2},
}
_MARKERS = "osD^v"
_REFERENCES: Sequence[Any] = ((0, (4, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), "-")


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a panel: y against x, of equal length.

    name: in the legend; a method's name at its beginning gives it the method's look. low, high: of a band. like: the
    name whose look it has, dashed, as a bound beside what it bounds. is_reference: grey, what others are held against.
    has_line: false for marks alone.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    like: str = ""
    is_reference: bool = False
    has_line: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Bars:
    """Horizontal bars, one below the other, of parts that are added up; `parts[name][i]` is a part of `rows[i]`."""

    rows: Sequence[str]
    parts: Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dots:
    """Rows of marks, one mark of each kind: `points[name][i]` stands in `rows[i]`, None is none."""

    rows: Sequence[str]
    points: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One pair of axes with lines, with bars or with dots. title: above it, short. x, y: the axes' labels, with
    units."""

    x: str
    y: str
    lines: Sequence[Line] = ()
    bars: Bars | None = None
    dots: Dots | None = None
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    whole_x: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """Panels in a grid, and one legend below them.

    name: of the files, without an ending. caption: a sentence or two that say what is seen. columns: panels beside one
    another, 1 or 2. height: of one panel in inches.
    """

    name: str
    caption: str
    panels: Sequence[Panel]
    columns: int = 1
    height: float = 1.75


def draw(picture: Picture, folder: Path) -> list[Path]:
    """Write a picture as PDF and PNG and return the files."""
    num_rows = math.ceil(len(picture.panels) / picture.columns)
    names = _names(picture)
    handles, texts = _legend(picture, names)
    num_columns = _legend_columns(texts)
    num_lines = math.ceil(len(texts) / num_columns) if texts else 0
    size = (WIDTH, picture.height * num_rows + 0.135 * num_lines + 0.1)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    grid = list(figure.subplots(num_rows, picture.columns, squeeze=False).flat)
    for place, (axes, panel) in enumerate(zip(grid, picture.panels, strict=False)):
        _draw_panel(axes, panel, looks_of(names))
        _label(axes, picture, place)
    for axes in grid[len(picture.panels) :]:
        axes.set_visible(False)
    if texts:
        legend = figure.legend(handles, texts, loc="outside lower center", ncols=num_columns, **_LEGEND)
        for text in legend.get_texts():
            text.set_parse_math(False)
    written = [folder / f"{picture.name}{suffix}" for suffix in (".pdf", ".png")]
    for path in written:
        save(figure, path, dpi=DPI)
        figure.set_layout_engine("none")
    return written


def _names(picture: Picture) -> list[str]:
    """Return the names that have a look of their own, in their order."""
    lines = [line for panel in picture.panels for line in panel.lines]
    own = [line.like or line.name for line in lines if not line.is_reference]
    return list(dict.fromkeys(own))


def _legend(picture: Picture, names: Sequence[str]) -> tuple[list[Any], list[str]]:
    looks = looks_of(names)
    entries: dict[str, Any] = {}
    for panel in picture.panels:
        for line in panel.lines:
            look = _look(line, looks, panel)
            shown = {} if line.has_line else {"linestyle": "none"}
            colour = {"color": MUTED} if line.like else {}  # one entry stands for those of all methods
            entries.setdefault(line.name, Line2D([], [], **(look | shown | colour)))
        if panel.bars is not None:
            for place, part in enumerate(panel.bars.parts):
                entries.setdefault(part, Patch(facecolor=PALETTE[place], edgecolor="none"))
        for place, part in enumerate(panel.dots.points if panel.dots else ()):
            entries.setdefault(part, Line2D([], [], **_dot(place)))
    if len(entries) < 2:
        return [], []
    return list(entries.values()), list(entries)


def _legend_columns(texts: Sequence[str]) -> int:
    """Return the most columns whose longest texts fit side by side."""
    for number in range(min(4, len(texts)), 1, -1):
        rows = math.ceil(len(texts) / number)
        columns = [texts[first : first + rows] for first in range(0, len(texts), rows)]
        if sum(0.36 + _LETTER * max(map(len, column)) for column in columns) <= WIDTH:
            return number
    return 1


def _look(line: Line, looks: Mapping[str, Mapping[str, Any]], panel: Panel) -> dict[str, Any]:
    if line.is_reference:
        names = [each.name for each in panel.lines if each.is_reference]
        dashes = _REFERENCES[names.index(line.name) % len(_REFERENCES)]
        return {"color": MUTED, "linestyle": dashes, "linewidth": 1.0, "marker": "none"}
    look = dict(looks[line.like or line.name])
    look |= {"linewidth": 0.6 * look["linewidth"], "markersize": 0.6 * look["markersize"]}
    return look | {"linestyle": (0, (1, 1)), "marker": "none"} if line.like else look


def _draw_panel(axes: Axes, panel: Panel, looks: Mapping[str, Mapping[str, Any]]) -> None:
    style(axes)
    axes.tick_params(labelsize=_SIZE - 0.5, length=2, pad=2)
    axes.tick_params(which="minor", length=1.2, color=MUTED)
    axes.grid(linewidth=0.5)
    if panel.bars is not None:
        _draw_bars(axes, panel.bars)
        return
    if panel.dots is not None:
        _draw_dots(axes, panel.dots)
        return
    for line in panel.lines:
        look = _look(line, looks, panel)
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=look["color"], alpha=0.16, linewidth=0)
        shown = {} if line.has_line else {"linestyle": "none"}
        every = max(1, math.ceil(len(line.x) / 12))
        axes.plot(line.x, line.y, **(look | shown), markevery=every, zorder=2 if line.is_reference else 3)
    _scale(axes, panel)


def _label(axes: Axes, picture: Picture, place: int) -> None:
    """Write title and labels, broken into lines that fit; a label that a panel beside or below has is not repeated."""
    panels, columns = picture.panels, picture.columns
    panel = panels[place]
    width = int((WIDTH / columns - 0.5) / _LETTER)
    axes.set_title(textwrap.fill(panel.title, width), loc="left", fontsize=_SIZE, color=INK, parse_math=False, pad=3)
    has_left = place % columns and panels[place - 1].y == panel.y
    has_below = place + columns < len(panels) and panels[place + columns].x == panel.x
    height = int((picture.height - 0.4) / _LETTER)
    for axis, text, room in (
        (axes.xaxis, "" if has_below else panel.x, width),
        (axes.yaxis, "" if has_left else panel.y, height),
    ):
        axis.set_label_text(textwrap.fill(text, room), fontsize=_SIZE, color=MUTED, parse_math=False)
        axis.labelpad = 2


def _scale(axes: Axes, panel: Panel) -> None:
    """Set ticks, and logarithmic axes where values are above 0 and differ enough for one."""
    values = [float(value) for line in panel.lines for value in line.y]
    if panel.log_y and values and min(values) > 0 and max(values) / min(values) >= MOST_LINEAR:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
        axes.yaxis.get_offset_text().set_fontsize(_SIZE - 1)
    places = sorted({float(value) for line in panel.lines for value in line.x})
    if panel.log_x and places and places[0] > 0:
        axes.set_xscale("log")
        shown = places if len(places) <= 6 else places[:: math.ceil(len(places) / 6)]
        axes.set_xticks(shown, [f"{place:g}" for place in shown], minor=False)
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=panel.whole_x, steps=[1, 2, 5, 10]))
    if not values:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=MUTED, fontsize=_SIZE)


def _draw_bars(axes: Axes, bars: Bars) -> None:
    left = [0.0] * len(bars.rows)
    for place, values in enumerate(bars.parts.values()):
        axes.barh(range(len(bars.rows)), values, left=left, height=0.7, color=PALETTE[place], linewidth=0)
        left = [before + value for before, value in zip(left, values, strict=True)]
    _name_rows(axes, bars.rows)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))


def _dot(place: int) -> dict[str, Any]:
    return {"color": PALETTE[place], "marker": _MARKERS[place % len(_MARKERS)], "markersize": 4, "linestyle": "none"}


def _draw_dots(axes: Axes, dots: Dots) -> None:
    """Draw the marks of each row, on an axis that is logarithmic away from 0 on either side where they differ much."""
    for place, values in enumerate(dots.points.values()):
        known = [(value, row) for row, value in enumerate(values) if value is not None]
        axes.plot([value for value, _ in known], [row for _, row in known], **_dot(place), zorder=3)
    sizes = [abs(value) for values in dots.points.values() for value in values if value]
    if sizes and max(sizes) / min(sizes) > 100:
        axes.set_xscale("symlog", linthresh=10.0 ** (math.floor(math.log10(max(sizes))) - 2))
        axes.axvline(0, color=MUTED, linewidth=0.6)
    _name_rows(axes, dots.rows)


def _name_rows(axes: Axes, rows: Sequence[str]) -> None:
    shown = [textwrap.shorten(row, 26, placeholder="…") for row in rows]
    axes.set_yticks(range(len(rows)), shown, fontsize=_SIZE, color=INK, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
