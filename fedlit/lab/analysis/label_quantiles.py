"""Who holds what among many clients: their sizes in order, and how a label's share differs between them."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedlit.lab.analysis.palette import INK, MUTED, PALETTE
from fedlit.lab.analysis.plots import save, style

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def plot_quantiles(counts: Sequence[Mapping[str, int]], labels: Sequence[str], path: Path, *, title: str) -> None:
    """Draw the clients' sizes from the largest down and, for every label, quantiles of its share of a client's rows.

    Writes a PNG, atomically, whose size does not depend on the number of clients. `counts[i]` maps labels to numbers of
    rows of client i; clients without rows have no shares.
    """
    sizes = np.array([sum(row.values()) for row in counts])
    height = max(3.2, 0.24 * len(labels) + 1.5)
    figure = Figure(figsize=(10.0, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(0.42, 0.58))
    _draw_sizes(left, sizes)
    held = [row for row in counts if sum(row.values())]
    shares = np.array([[row.get(label, 0) / sum(row.values()) for label in labels] for row in held])
    _draw_shares(right, shares.reshape(len(held), len(labels)), labels)
    heading = textwrap.fill(f"{title}, {len(counts):,} clients", 100)
    figure.suptitle(heading, x=0.01, ha="left", fontsize=11, color=INK, parse_math=False)
    save(figure, path)


def _draw_sizes(axes: Axes, sizes: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
    style(axes)
    ordered = np.sort(sizes)[::-1]
    axes.fill_between(np.arange(len(ordered)), ordered, step="post", color=PALETTE[0], alpha=0.85, linewidth=0)
    axes.set_xlim(0, max(len(ordered) - 1, 1))
    axes.set_ylim(0, max(1, int(ordered.max(initial=0))) * 1.05)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("clients, from the largest to the smallest", fontsize=9, color=MUTED)
    axes.set_ylabel("rows", fontsize=9, color=MUTED)


def _draw_shares(
    axes: Axes, shares: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", labels: Sequence[str]
) -> None:
    """Draw of every label a line from the 5th to the 95th percentile, a bar from the 25th to the 75th, a dot at the
    median.
    """
    style(axes)
    axes.grid(axis="y", visible=False)
    if shares.size:
        places = np.arange(len(labels))
        low, lower, middle, upper, high = np.quantile(shares, QUANTILES, axis=0)
        axes.hlines(places, low, high, color=PALETTE[0], linewidth=1.2)
        axes.barh(places, upper - lower, left=lower, height=0.5, color=PALETTE[0], alpha=0.45, linewidth=0)
        axes.scatter(middle, places, s=16, color=INK, zorder=3)
    names = [textwrap.shorten(label, 34, placeholder="…") or "(blank)" for label in labels]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.tick_params(axis="y", labelsize=8, length=0)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.set_xlabel("share of a client's rows: 5 to 95 % of clients, 25 to 75 %, median", fontsize=9, color=MUTED)
