"""Which classes are taken for which: a confusion matrix as a picture."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure

from fedlit.lab.analysis.palette import INK, MUTED, PALETTE
from fedlit.lab.analysis.plots import save, text_colour

MAX_WRITTEN = 20
"""With more classes the numbers are not written into the cells."""
_SHADES = LinearSegmentedColormap.from_list("share", ["#FFFFFF", PALETTE[5], PALETTE[8], PALETTE[0]])


def plot_confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str] | None, path: Path, title: str) -> None:
    """Draw a confusion matrix, rows true classes and columns predicted ones, and write a PNG, atomically.

    The number in a cell counts examples; its shade is their share of the row, so that a rare class is as visible as a
    frequent one. Without names the classes are called by their numbers.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    num_classes = len(counts)
    assert counts.shape == (num_classes, num_classes)
    names = [str(i) for i in range(num_classes)] if classes is None else list(classes)
    assert len(names) == num_classes
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels = [textwrap.shorten(name, 24, placeholder="…") or "(blank)" for name in names]
    longest = max(map(len, labels))
    side = min(9.0, max(2.6, 0.42 * num_classes))
    figure = Figure(figsize=(side + 1.6 + 0.07 * longest, side + 1.1 + 0.05 * longest), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap=_SHADES, vmin=0, vmax=1, aspect="equal")
    axes.spines[:].set_visible(False)
    step = 1 if num_classes <= 40 else num_classes // 20
    ticks = range(0, num_classes, step)
    size = 8 if num_classes <= 25 else 6
    axes.set_xticks(ticks, labels[::step], rotation=0 if longest <= 3 else 45, ha="center" if longest <= 3 else "right")
    axes.set_yticks(ticks, labels[::step])
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    axes.set_xticks(np.arange(1, num_classes) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, num_classes) - 0.5, minor=True)
    axes.grid(which="minor", color="#E0E0E0", linewidth=0.6)
    axes.tick_params(labelsize=size, colors=INK, length=0)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("predicted", fontsize=9, color=MUTED)
    axes.set_ylabel("true", fontsize=9, color=MUTED)
    figure.suptitle(
        textwrap.fill(title, max(30, int(figure.get_figwidth() * 11))),
        x=0.02,
        ha="left",
        fontsize=10,
        color=INK,
        parse_math=False,
    )
    if num_classes <= MAX_WRITTEN:
        for true, predicted in np.ndindex(counts.shape):
            if number := int(counts[true, predicted]):
                colour = text_colour(to_hex(_SHADES(float(shares[true, predicted]))))
                axes.text(predicted, true, f"{number:,}", ha="center", va="center", fontsize=size, color=colour)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=25, ticks=[0, 0.5, 1])
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, colors=MUTED, length=0)
    bar.set_label("share of the true class", fontsize=8, color=MUTED)
    save(figure, path)
