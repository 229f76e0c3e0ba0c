"""Who holds what: a bar for every client, stacked by label."""

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fedlit.lab.analysis.label_quantiles import plot_quantiles
from fedlit.lab.analysis.palette import INK, MUTED, PALETTE
from fedlit.lab.analysis.plots import add_legend, save, style, text_colour

OTHER_COLOUR = "#D0D0D0"
MAX_LABELS = 2 * len(PALETTE)
MAX_CLIENTS = 200
"""With a bar each, 5,000 clients would be a picture of 127 million pixels."""


def plot_label_distribution(
    counts: Sequence[Mapping[str, int]], path: Path, *, title: str, names: Sequence[str] = ()
) -> None:
    """Draw one horizontal bar per client, in order, stacked by label, and write a PNG, atomically.

    `counts[i]` maps a label to its number of rows in the shard of client i, and `names[i]` is what that is called
    (`client_names.labels`); without names clients are numbered. Labels stand in the order of their totals;
    beyond 20 the rarest are drawn together as "other". Of more than 200 clients sizes and quantiles are drawn.
    """
    labels, rows = _grouped(counts)
    if len(rows) > MAX_CLIENTS:
        plot_quantiles(rows, labels, path, title=title)
        return
    bar_inches = min(0.36, max(0.13, 5.0 / max(len(rows), 1)))
    height = max(2.6, len(rows) * bar_inches + 1.3)
    num_columns = max(1, math.ceil(len(labels) / int((height - 0.9) / 0.21)))
    shown = [textwrap.shorten(label, 34, placeholder="…") or "(blank)" for label in labels]
    column_inches = 0.55 + 0.075 * max(map(len, shown), default=0)
    ticks = list(names) or [f"client {client_id}" for client_id in range(len(rows))]
    tick_inches = max(0.0, 0.065 * max(map(len, ticks), default=0) - 0.65)
    figure = Figure(figsize=(7.0 + tick_inches + column_inches * num_columns, height), layout="constrained")
    axes = figure.subplots()
    style(axes)
    axes.grid(axis="y", visible=False)
    axes.set_title(textwrap.fill(title, 78), loc="left", fontsize=11, color=INK, parse_math=False)
    totals = [sum(row.values()) for row in rows]
    widest = max([1, *totals])
    left = [0] * len(rows)
    for index, label in enumerate(labels):
        fill = _fill(index)
        present = {client_id: row[label] for client_id, row in enumerate(rows) if row.get(label)}
        boxes = [_box(left[client_id], client_id, width) for client_id, width in present.items()]
        axes.add_collection(
            PolyCollection(boxes, label=label, **fill), autolim=False
        )  # one patch each would take seconds
        for client_id, width in present.items():
            if _fits(label, 5.6 * width / widest, bar_inches):
                _write_in_segment(axes, label, left[client_id] + width / 2, client_id, fill["facecolor"])
            left[client_id] += width
    _client_axis(axes, ticks, totals, widest)
    if labels:
        patches = [Patch(**_fill(index)) for index in range(len(labels))]
        add_legend(figure, patches, shown, loc="outside right upper", num_columns=num_columns)
    save(figure, path)


def _grouped(counts: Sequence[Mapping[str, int]]) -> tuple[list[str], list[dict[str, int]]]:
    """Return the labels by falling total (ties by name), those after the twentieth as one, and each client's counts."""
    totals: Counter[str] = Counter()
    for row in counts:
        totals.update(row)
    ordered = sorted((label for label in totals if totals[label]), key=lambda label: (-totals[label], label))
    if len(ordered) <= MAX_LABELS:
        return ordered, [dict(row) for row in counts]
    kept, rest = ordered[:MAX_LABELS], ordered[MAX_LABELS:]
    other = f"other ({len(rest)} labels)"
    rows = [
        {label: row.get(label, 0) for label in kept} | {other: sum(row.get(label, 0) for label in rest)}
        for row in counts
    ]
    return [*kept, other], rows


def _fill(index: int) -> dict[str, Any]:
    """Return how the bars of a label look: a colour, hatched from the eleventh label on, grey after the twentieth."""
    colour = PALETTE[index % len(PALETTE)] if index < MAX_LABELS else OTHER_COLOUR
    hatch = "////" if len(PALETTE) <= index < MAX_LABELS else None
    return {"facecolor": colour, "edgecolor": "white", "linewidth": 0.6, "hatch": hatch}


def _box(left: float, client_id: int, width: float) -> list[tuple[float, float]]:
    """Return the corners of one segment of a client's bar."""
    right, low, high = left + width, client_id - 0.42, client_id + 0.42
    return [(left, low), (right, low), (right, high), (left, high)]


def _fits(label: str, width_inches: float, height_inches: float) -> bool:
    """Tell whether a label at 7 points can be written into its segment."""
    return height_inches >= 0.18 and 0.065 * len(label) + 0.08 <= width_inches


def _write_in_segment(axes: Axes, label: str, x: float, y: float, background: str) -> None:
    """Write a label clear of the hatching."""
    box = {"facecolor": background, "edgecolor": "none", "pad": 1.2}
    axes.text(
        x, y, label, ha="center", va="center", fontsize=7, color=text_colour(background), bbox=box, parse_math=False
    )


def _client_axis(axes: Axes, names: Sequence[str], totals: Sequence[int], widest: int) -> None:
    """Name the clients from the top down and write the size of each shard at the end of its bar."""
    step = math.ceil(len(totals) / 50)
    axes.set_yticks(range(0, len(totals), step), [names[i] for i in range(0, len(totals), step)])
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
    axes.set_ylim(len(totals) - 0.4, -0.6)
    axes.set_xlim(0, widest * 1.1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("rows", fontsize=9, color=MUTED)
    size = 8 if len(totals) <= 30 else 6
    axes.tick_params(axis="y", labelsize=size, length=0)
    for client_id, total in enumerate(totals):
        axes.text(total + 0.01 * widest, client_id, f"{total:,}", va="center", fontsize=size, color=MUTED)
