"""Pictures of several panels, a panel for each setting: as many pictures as they need, each as PNG and PDF."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fedlit.lab.analysis.palette import INK
from fedlit.lab.analysis.plots import add_legend, save, style

MAX_PANELS = 12
"""Panels of one picture; more go to further pictures."""
_NUM_COLUMNS = 3


def pages(
    scales: Mapping[str, str],
    height: float,
    draw: Callable[[Axes, str], None],
    legend: tuple[Sequence[Line2D | Patch], Sequence[str]],
    stem: Path,
    title: str,
    *,
    shared: str,
) -> list[Path]:
    """Draw the panels on as many pictures as they need; return the files, `<stem>.png`, `<stem>.pdf`, `<stem>-2.png`.

    scales: of each panel, what it shares its axis `shared`, x or y, with. height: of one, in inches. draw: fills the
    axes of a panel. legend: handles and texts, for all panels of a picture.
    """
    written, panels = [], list(scales)
    for page, first in enumerate(range(0, len(panels), MAX_PANELS)):
        part = panels[first : first + MAX_PANELS]
        num_columns = min(_NUM_COLUMNS, len(part))
        num_rows = math.ceil(len(part) / num_columns)
        width = 5.4 if num_columns == 1 else 3.3 * num_columns
        figure = Figure(
            figsize=(width, height * num_rows + 0.9), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
        )
        grid = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
        for axes, panel in zip(grid, part, strict=False):
            style(axes)
            axes.set_title(textwrap.fill(panel, 44), loc="left", fontsize=9, color=INK, parse_math=False)
            draw(axes, panel)
        _share(dict(zip(part, grid, strict=False)), scales, shared)
        for axes in grid[len(part) :]:
            axes.set_visible(False)
        heading = "\n".join(textwrap.fill(line, int(width * 12)) for line in title.splitlines())
        figure.suptitle(heading, x=0.012, ha="left", fontsize=10, color=INK, parse_math=False)
        longest_inches = 0.55 + 0.075 * max(len(text) for text in legend[1])
        add_legend(figure, *legend, loc="outside lower left", num_columns=max(1, int(width / longest_inches)))
        for suffix in (".png", ".pdf"):
            path = stem.with_name(f"{stem.name}{f'-{page + 1}' if page else ''}{suffix}")
            save(figure, path)
            figure.set_layout_engine("none")  # places are found, which takes a second
            written.append(path)
    return written


def _share(axes: Mapping[str, Axes], scales: Mapping[str, str], which: str) -> None:
    """Give the panels of one scale one range, so that they can be compared."""
    for scale in set(scales.values()):
        same = [panel for name, panel in axes.items() if scales[name] == scale]
        limits = [panel.get_ylim() if which == "y" else panel.get_xlim() for panel in same]
        for panel in same:
            span = min(low for low, _ in limits), max(high for _, high in limits)
            panel.set_ylim(span) if which == "y" else panel.set_xlim(span)
