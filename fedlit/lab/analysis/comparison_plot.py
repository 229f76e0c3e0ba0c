"""Several methods side by side: one score over the rounds, a line for each method, named at its end."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from fedlit.lab.analysis.palette import INK, MUTED, PALETTE
from fedlit.lab.analysis.plots import Points, curve_places, points_of, save, score_look, style

_DASHES: Sequence[Any] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
_LEADER: Mapping[str, Any] = {"arrowstyle": "-", "linewidth": 0.9, "linestyle": (0, (1, 2)), "shrinkA": 0, "shrinkB": 3}
_LABEL_INCHES = 0.175
"""Height of a line's name, with room around it."""


def plot_comparison(runs: Mapping[str, Sequence[Mapping[str, Any]]], score: str, path: Path, title: str = "") -> None:
    """Draw one score of every run over its rounds, round 0 (the untrained model, hollow) included, and write a PNG,
    atomically.

    `runs` maps a name to the lines of metrics.jsonl. `global/<score>` is drawn or, where a run does not have it,
    `own/<score>`, the mean over clients on their own test rows; `validation/<score>` where the test set was not scored
    in all rounds. Names stand beside the lines' ends with the last value,
    in the order of these; runs without the score are named below.
    """
    places = curve_places((record for records in runs.values() for record in records), score)
    found = {
        name: [(place, points) for place in places if (points := points_of(records, f"{place}/{score}"))]
        for name, records in runs.items()
    }
    values: dict[str, Points] = {name: entries[0][1] if entries else [] for name, entries in found.items()}
    own, validated = (
        [name for name, entries in found.items() if entries and entries[0][0] == place]
        for place in ("own", "validation")
    )
    shown = {name: points for name, points in values.items() if points}
    look = score_look(score)
    figure = Figure(
        figsize=(7.6, max(4.2, len(shown) * _LABEL_INCHES + 1.4)), layout=ConstrainedLayoutEngine(w_pad=0.1)
    )
    axes = figure.subplots()
    style(axes)
    axes.set_title(textwrap.fill(title, 78), loc="left", fontsize=11, color=INK, parse_math=False)
    direction = ", lower is better" if look.lower_is_better else ""
    axes.set_ylabel(f"{look.heading} ({look.unit}{direction})", fontsize=9, color=MUTED)
    missing = [name for name, points in values.items() if not points]
    notes = ["rounds of training"]
    if own:
        names = "all" if len(own) == len(shown) else ", ".join(own)
        notes.append(f"mean over clients on their own test rows: {names}")
    if validated:
        names = "all" if len(validated) == len(shown) else ", ".join(validated)
        notes.append(f"on the validation set: {names}")
    if missing:
        notes.append(f"without this score: {', '.join(missing)}")
    text = "\n".join(line for note in notes for line in textwrap.wrap(note, 88))
    axes.set_xlabel(text, fontsize=9, color=MUTED, parse_math=False)
    for index, points in enumerate(shown.values()):
        _draw(axes, points, index)
    _scale_rounds(axes, max((points[-1][0] for points in shown.values()), default=0))
    axes.margins(y=0.06)
    if shown:
        axes.autoscale_view(scalex=False)
        figure.draw_without_rendering()  # the height of the axes is known from here on
        _name_lines(axes, shown)
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=MUTED, fontsize=9)
    save(figure, path)


def _look(index: int) -> dict[str, Any]:
    """Return colour and dashes of a line: ten colours whole, then the same ones dashed, then dotted."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": _DASHES[index // len(PALETTE) % len(_DASHES)],
        "linewidth": 1.7,
    }


def _draw(axes: Axes, points: Points, index: int) -> None:
    look = _look(index)
    rounds, values = zip(*points, strict=True)
    axes.plot(rounds, values, **look, marker="o", markersize=3.5 if len(points) <= 40 else 0, zorder=3)
    if rounds[0] == 0:
        hollow = {"markerfacecolor": "white", "markeredgecolor": look["color"], "markeredgewidth": 1.3}
        axes.plot(rounds[:1], values[:1], linestyle="none", marker="o", markersize=5.5, **hollow, zorder=4)


def _scale_rounds(axes: Axes, last_round: int) -> None:
    span = max(last_round, 1)
    axes.set_xlim(-0.04 * span, 1.02 * span)
    locator = MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10])
    axes.set_xticks([tick for tick in locator.tick_values(0, span) if 0 <= tick <= span])


def _name_lines(axes: Axes, shown: Mapping[str, Points]) -> None:
    """Write every name right of the axes, as near to its line's end as the others let it, joined to it by a thin
    line.
    """
    low, high = axes.get_ylim()
    inches = axes.get_window_extent().height / axes.figure.dpi
    order = sorted(range(len(shown)), key=lambda i: list(shown.values())[i][-1][1])
    names, ends = list(shown), [points[-1] for points in shown.values()]
    wanted = [(ends[i][1] - low) / (high - low) for i in order]
    for i, height in zip(order, spread(wanted, _LABEL_INCHES / inches), strict=True):
        look = _look(i)
        start, value = ends[i]
        axes.annotate(
            "",
            (start, value),
            xytext=(1.045, height),
            textcoords="axes fraction",
            arrowprops={**_LEADER, "color": look["color"]},
            annotation_clip=False,
        )
        axes.plot(
            (1.045, 1.085), (height, height), transform=axes.transAxes, clip_on=False, **(look | {"linewidth": 2.2})
        )
        label = f"{textwrap.shorten(names[i], 34, placeholder='…')}  {value:.3f}"
        axes.text(1.095, height, label, transform=axes.transAxes, va="center", fontsize=8, color=INK, parse_math=False)


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Return ascending places at least `gap` apart, in [0, 1] where they fit, near to the ascending `wanted` ones.

    Neighbours that are too close become a block around the mean of what its members want; blocks that touch merge.
    """
    blocks: list[tuple[float, int]] = []  # (sum of the first member's places, number of members)
    for place in wanted:
        total, num = place, 1
        while blocks and total / num < _end(*blocks[-1], gap):
            before, num_before = blocks.pop()
            total, num = before + total - num * num_before * gap, num + num_before
        blocks.append((total, num))
    places = [total / num + i * gap for total, num in blocks for i in range(num)]
    highest = math.inf
    for i in range(len(places) - 1, -1, -1):  # down from 1, then up from 0
        highest = min(places[i], 1.0 if i == len(places) - 1 else highest - gap)
        places[i] = highest
    for i, place in enumerate(places):
        places[i] = max(place, 0.0 if i == 0 else places[i - 1] + gap)
    return places


def _end(total: float, num: int, gap: float) -> float:
    """Return the first place that a block leaves free."""
    return total / num + num * gap
