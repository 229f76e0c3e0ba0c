"""The two pictures of a run, drawn from records alone: its curves over the rounds and the labels of its clients.

Colours are those of P. Tol's "muted" scheme ("Colour Schemes", SRON/EPS/TN/09-002) and a blue, in an order whose
neighbours differ in lightness, so that they stay apart in grey and for the colour-blind. Figures are objects of their
own: no pyplot, no state that outlives a call.
"""

import math
import os
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

# indigo, rose, green, sand, wine, cyan, purple, olive, blue, teal
PALETTE = ("#332288", "#CC6677", "#117733", "#DDCC77", "#882255", "#88CCEE", "#AA4499", "#999933", "#0077BB", "#44AA99")
OTHER_COLOUR = "#D0D0D0"
MAX_LABELS = 2 * len(PALETTE)
MAX_NAMED_CLIENTS = 6
_SERVER_COLOUR = PALETTE[0]
_CLIENT_COLOURS = ("#CC6677", "#44AA99", "#999933", "#AA4499", "#88CCEE", "#DDCC77")
_INK, _MUTED, _GRID = "#222222", "#6B6B6B", "#E8E8E8"
_DPI = 150
_PANELS = (
    ("loss", "train_loss", "Loss", "nats per token"),
    ("rouge_l", "rouge_l", "ROUGE-L", "F1"),
    ("bleu_4", "bleu_4", "BLEU-4", "score"),
)

_UNTRAINED_MARK: Mapping[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 7,
    "markerfacecolor": "white",
    "markeredgecolor": _SERVER_COLOUR,
    "markeredgewidth": 1.8,
}

Points = list[tuple[int, float]]
Panel = tuple[str, str, Points, dict[int, Points]]  # title, unit, the global model's values, those of the clients


def plot_curves(records: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw loss, ROUGE-L and BLEU-4 over the rounds from the lines of metrics.jsonl and write a PNG, atomically.

    A record has `round` (0 is the untrained model) and any of `global/loss`, `global/rouge_l`, `global/bleu_4`,
    `client/<id>/train_loss`, `client/<id>/rouge_l`, `client/<id>/bleu_4`. Missing, null and non-finite values are left
    out; of two records with the same round and key the later one counts. A score that no record has gets no panel.
    """
    panels: list[Panel] = []
    for metric, client_metric, name, unit in _PANELS:
        server, clients = _points(records, f"global/{metric}"), _client_points(records, client_metric)
        if server or clients or metric == "loss":
            panels.append((name, unit, server, clients))
    client_ids = sorted({client_id for *_, clients in panels for client_id in clients})
    last_round = max((int(record["round"]) for record in records), default=0)
    figure = Figure(figsize=(4.3 * len(panels) + 0.6, 4.2), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, unit, server, clients) in zip(all_axes, panels, strict=True):
        _style(axes)
        axes.set_title(name, loc="left", fontsize=11, fontweight="bold", color=_INK)
        axes.set_ylabel(unit, fontsize=9, color=_MUTED)
        for client_id, points in clients.items():
            axes.plot(*zip(*points, strict=True), **_client_line(client_ids, client_id))
        _draw_server(axes, server)
        _scale(axes, last_round, [value for points in (server, *clients.values()) for _, value in points])
    _curve_legend(figure, panels, client_ids)
    if title:
        wrapped = textwrap.fill(title, int(figure.get_figwidth() * 11))
        figure.suptitle(wrapped, x=0.012, ha="left", fontsize=11, color=_INK, parse_math=False)
    _save(figure, path)


def plot_label_distribution(counts: Sequence[Mapping[str, int]], path: Path, *, title: str) -> None:
    """Draw one horizontal bar per client, in order, stacked by label, and write a PNG, atomically.

    `counts[i]` maps a label to its number of rows in the shard of client i. Labels stand in the order of their totals;
    beyond 20 the rarest are drawn together as "other".
    """
    labels, rows = _grouped(counts)
    bar_inches = min(0.36, max(0.13, 5.0 / max(len(rows), 1)))
    height = max(2.6, len(rows) * bar_inches + 1.3)
    num_columns = max(1, math.ceil(len(labels) / int((height - 0.9) / 0.21)))
    names = [textwrap.shorten(label, 28, placeholder="…") or "(blank)" for label in labels]
    column_inches = 0.55 + 0.075 * max(map(len, names), default=0)
    figure = Figure(figsize=(7.0 + column_inches * num_columns, height), layout="constrained")
    axes = figure.subplots()
    _style(axes)
    axes.grid(axis="y", visible=False)
    axes.set_title(textwrap.fill(title, 78), loc="left", fontsize=11, color=_INK, parse_math=False)
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
    _client_axis(axes, totals, widest)
    if labels:
        patches = [Patch(**_fill(index)) for index in range(len(labels))]
        _legend(figure, patches, names, loc="outside right upper", num_columns=num_columns)
    _save(figure, path)


def _points(records: Sequence[Mapping[str, Any]], key: str) -> Points:
    """Return the finite values of one key by round, sorted by round."""
    by_round = {}
    for record in records:
        value = record.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            by_round[int(record["round"])] = float(value)
    return sorted(by_round.items())


def _client_points(records: Sequence[Mapping[str, Any]], metric: str) -> dict[int, Points]:
    """Return the points of `client/<id>/<metric>` for every client that has any, sorted by client."""
    pattern = re.compile(rf"client/(\d+)/{re.escape(metric)}")
    ids = sorted({int(match[1]) for record in records for key in record if (match := pattern.fullmatch(key))})
    points = {client_id: _points(records, f"client/{client_id}/{metric}") for client_id in ids}
    return {client_id: found for client_id, found in points.items() if found}


def _client_line(client_ids: Sequence[int], client_id: int) -> dict[str, Any]:
    """Return how a client's line looks: thin, in a colour of its own if the clients are few, else in grey."""
    few = len(client_ids) <= MAX_NAMED_CLIENTS
    if not few:
        return {"color": _MUTED, "linewidth": 0.8, "marker": ".", "markersize": 1.5, "alpha": 0.35}
    return {"color": _CLIENT_COLOURS[client_ids.index(client_id)], "linewidth": 1.1, "marker": ".", "markersize": 4}


def _draw_server(axes: Axes, points: Points) -> None:
    """Draw the global model: a strong line, round 0 hollow, the last value written beside its point."""
    if not points:
        return
    rounds, values = zip(*points, strict=True)
    size = 5 if len(points) <= 40 else 2.5
    axes.plot(rounds, values, color=_SERVER_COLOUR, linewidth=2.2, marker="o", markersize=size, zorder=4)
    if rounds[0] == 0:
        axes.plot(rounds[:1], values[:1], **_UNTRAINED_MARK, zorder=5)
    label = axes.annotate(f"{values[-1]:.3f}", points[-1], xytext=(8, 0), textcoords="offset points", va="center")
    label.set(fontsize=9, fontweight="bold", color=_SERVER_COLOUR)


def _scale(axes: Axes, last_round: int, values: Sequence[float]) -> None:
    """Scale x to rounds 0..last_round with room for the last value's label, and y so that one value has a scale."""
    span = max(last_round, 1)
    axes.set_xlim(-0.05 * span, 1.18 * span)
    locator = MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10])
    axes.set_xticks([tick for tick in locator.tick_values(0, span) if 0 <= tick <= span])
    axes.set_xlabel("rounds of training", fontsize=9, color=_MUTED)
    axes.margins(y=0.1)
    if not values:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=_MUTED, fontsize=9)
    elif min(values) == max(values) >= 0:
        top = 1.5 * values[0] or 1.0
        axes.set_ylim(-0.04 * top, top)


def _curve_legend(figure: Figure, panels: Sequence[Panel], client_ids: Sequence[int]) -> None:
    """Put one legend for all panels below them."""
    handles, names = [], []
    servers = [server for _, _, server, _ in panels if server]
    if servers:
        handles.append(Line2D([], [], color=_SERVER_COLOUR, linewidth=2.2, marker="o", markersize=5))
        names.append("global model, evaluation")
    if any(server[0][0] == 0 for server in servers):
        handles.append(Line2D([], [], **_UNTRAINED_MARK))
        names.append("before training")
    only_training = not any(clients for *_, clients in panels[1:])
    suffix = ", training" if only_training else ""
    if len(client_ids) > MAX_NAMED_CLIENTS:
        handles.append(Line2D([], [], **(_client_line(client_ids, client_ids[0]) | {"alpha": 1.0})))
        names.append(f"each of {len(client_ids)} clients{suffix}")
    else:
        handles += [Line2D([], [], **_client_line(client_ids, client_id)) for client_id in client_ids]
        names += [f"client {client_id}{suffix}" for client_id in client_ids]
    if handles:
        _legend(figure, handles, names, loc="outside lower center", num_columns=min(len(names), 2 * len(panels)))


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
    """Write a label in white or ink, whichever has the higher contrast of WCAG 2.1, clear of the hatching."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(background))
    colour = "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.21 else _INK
    box = {"facecolor": background, "edgecolor": "none", "pad": 1.2}
    axes.text(x, y, label, ha="center", va="center", fontsize=7, color=colour, bbox=box, parse_math=False)


def _client_axis(axes: Axes, totals: Sequence[int], widest: int) -> None:
    """Name the clients from the top down and write the size of each shard at the end of its bar."""
    step = math.ceil(len(totals) / 50)
    axes.set_yticks(range(0, len(totals), step), [f"client {i}" for i in range(0, len(totals), step)])
    axes.set_ylim(len(totals) - 0.4, -0.6)
    axes.set_xlim(0, widest * 1.1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("rows", fontsize=9, color=_MUTED)
    size = 8 if len(totals) <= 30 else 6
    axes.tick_params(axis="y", labelsize=size, length=0)
    for client_id, total in enumerate(totals):
        axes.text(total + 0.01 * widest, client_id, f"{total:,}", va="center", fontsize=size, color=_MUTED)


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#B0B0B0")
    axes.tick_params(labelsize=8, colors=_MUTED, length=3)
    axes.grid(visible=True, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str], *, loc: str, num_columns: int) -> Legend:
    legend = figure.legend(
        handles, names, loc=loc, ncols=num_columns, frameon=False, fontsize=8, labelcolor=_INK, handleheight=1.1
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return legend


def _save(figure: Figure, path: Path) -> None:
    """Write the PNG beside its place and move it there, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=_DPI, facecolor="white")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
