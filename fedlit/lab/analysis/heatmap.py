"""Where and when aggregation misses the mean of the clients: the deviation of every layer in every round.

What is drawn is `lora/deviation/<layer>` of the records (fedlit/round/observers/deviation.py): the root mean
square, over a layer's weights, of the server's effective weights less the mean of the clients'.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedlit.lab.analysis.palette import INK, MUTED, PALETTE
from fedlit.lab.analysis.plots import points_of, save, style

PREFIX = "lora/deviation/"
MAX_NAMED_LAYERS = 48
_COLOURS = LinearSegmentedColormap.from_list(
    "deviation", [(0.0, "#EFEDF8"), (0.45, "#9C93CF"), (0.85, PALETTE[0]), (1.0, "#140B3D")]
)
_EXACT_COLOUR, _MISSING_COLOUR = "#FFFFFF", "#D9D9D9"


def deviating_layers(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the layers whose deviation was measured in some round, in the model's order."""
    keys = dict.fromkeys(key for record in records for key in record if key.startswith(PREFIX))
    return [key.removeprefix(PREFIX) for key in keys]


def plot_deviation(records: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> bool:
    """Draw layers x rounds, on a logarithmic scale of colours, and write a PNG, atomically.

    Exact zeros are white, rounds without a value grey. Returns whether there was anything to draw.
    """
    layers = deviating_layers(records)
    points = [dict(points_of(records, f"{PREFIX}{layer}")) for layer in layers]
    rounds = sorted({number for each in points for number in each})
    if not rounds:
        return False
    columns = range(rounds[0], rounds[-1] + 1)
    values = np.array([[each.get(number, math.nan) for number in columns] for each in points])
    height = min(max(0.2 * len(layers), 1.6), 12.0) + 1.5
    figure = Figure(figsize=(min(max(6.4, 3.6 + 0.22 * len(columns)), 11.0), height), layout="constrained")
    axes = figure.subplots()
    style(axes)
    axes.grid(visible=False)
    axes.set_facecolor(_MISSING_COLOUR)
    positive = values[values > 0]
    norm = LogNorm(*_range(positive)) if positive.size else Normalize(0.0, 1.0)
    edges = np.arange(rounds[0], rounds[-1] + 2) - 0.5
    rows = np.arange(len(layers) + 1) - 0.5
    axes.pcolormesh(edges, rows, np.where(values == 0, 1.0, math.nan), cmap=_plain(_EXACT_COLOUR))
    if positive.size:
        mesh = axes.pcolormesh(edges, rows, np.where(values > 0, values, math.nan), cmap=_COLOURS, norm=norm)
        bar = figure.colorbar(mesh, ax=axes, pad=0.015, aspect=30)
        bar.set_label("root mean square over the layer's weights", fontsize=8, color=MUTED)
        bar.ax.tick_params(which="both", labelsize=8, colors=MUTED)
        bar.outline.set_visible(False)
    _name_axes(axes, layers, (values == 0).any())
    heading = f"{title}: " if title else ""
    text = f"{heading}deviation of the aggregate from the mean of the clients, by layer"
    wrapped = textwrap.fill(text, int(figure.get_figwidth() * 10))
    axes.set_title(wrapped, loc="left", fontsize=11, color=INK, parse_math=False)
    save(figure, path)
    return True


def short_names(layers: Sequence[str]) -> list[str]:
    """Return layers' names without the parts, between dots, that all of them begin or end with."""
    parts = [layer.split(".") for layer in layers]
    shortest = min(map(len, parts), default=0)
    before = 0
    while before < shortest - 1 and len({each[before] for each in parts}) == 1:
        before += 1
    after = 0
    while after < shortest - 1 - before and len({each[-1 - after] for each in parts}) == 1:
        after += 1
    return [".".join(each[before : len(each) - after]) for each in parts]


def _range(positive: "np.ndarray[Any, Any]") -> tuple[float, float]:
    low, high = float(positive.min()), float(positive.max())
    return (low, high) if low < high else (low / 2, high * 2)


def _plain(colour: str) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list("plain", [colour, colour])


def _name_axes(axes: Axes, layers: Sequence[str], has_zeros: bool) -> None:
    """Name the layers from the top down, every k-th where they are many, and the rounds."""
    step = math.ceil(len(layers) / MAX_NAMED_LAYERS)
    names = short_names(layers)
    axes.set_yticks(range(0, len(layers), step), [names[i] for i in range(0, len(layers), step)])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.tick_params(axis="y", labelsize=7, length=0)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    axes.set_xlabel("round of training" + (" (white: exactly 0)" if has_zeros else ""), fontsize=9, color=MUTED)
