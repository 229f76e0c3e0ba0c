"""One run over its rounds: the loss, and the scores that matter most."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedlit.lab.analysis.palette import INK, MUTED, PALETTE
from fedlit.lab.analysis.plots import Points, add_legend, points_of, save, score_look, style

MAX_SCORES = 3
"""Panels beside that of the loss."""
MAX_NAMED_CLIENTS = 6
_MAIN_COLOUR = PALETTE[0]
_CLIENT_COLOURS = ("#CC6677", "#44AA99", "#999933", "#AA4499", "#88CCEE", "#DDCC77")

_MAIN_LINE: Mapping[str, Any] = {"color": _MAIN_COLOUR, "linewidth": 2.2, "marker": "o", "markersize": 5}
_WORST_LINE: Mapping[str, Any] = {"color": _MAIN_COLOUR, "linewidth": 1.2, "linestyle": (0, (3, 2))}
_TRAINING_LINE: Mapping[str, Any] = {"color": MUTED, "linewidth": 1.1, "marker": ".", "markersize": 4}
_VALIDATION_LINE: Mapping[str, Any] = {"color": INK, "linewidth": 1.4, "linestyle": (0, (1, 1.5))}
_UNTRAINED_MARK: Mapping[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 7,
    "markerfacecolor": "white",
    "markeredgecolor": _MAIN_COLOUR,
    "markeredgewidth": 1.8,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    """What one panel shows.

    main: values of the global model or means over clients, as `what` says. worst: values of the worst client.
    training: mean training loss of a run whose records hold no single client. validation: values on the validation set.
    """

    heading: str
    unit: str
    what: str
    main: Points
    worst: Points
    training: Points
    validation: Points
    clients: Mapping[int, Points]

    @property
    def all_points(self) -> list[Points]:
        return [
            points
            for points in (self.main, self.worst, self.training, self.validation, *self.clients.values())
            if points
        ]


def plot_curves(
    records: Sequence[Mapping[str, Any]], path: Path, *, scores: Sequence[str] = (), title: str = ""
) -> None:
    """Draw the loss and the first of `scores` over the rounds from the lines of metrics.jsonl; write a PNG, atomically.

    A record has `round` (0 is the untrained model), `client/<id>/train_loss` and, of the loss and of each score, any of
    `global/<score>`, `validation/<score>` and `client/<id>/<score>`. Where the global test set was not scored,
    `own/<score>`, `own/<score>_worst` and `client/<id>/own/<score>` take its places. Missing, null and non-finite values
    are left out; of two records with the same round and key the later one counts. A score that no record has gets no panel.
    """
    panels = [_panel(records, "loss")]
    panels += [panel for name in scores if (panel := _panel(records, name)).all_points][:MAX_SCORES]
    client_ids = sorted({client_id for panel in panels for client_id in panel.clients})
    last_round = max((int(record["round"]) for record in records), default=0)
    figure = Figure(figsize=(4.3 * len(panels) + 0.6, 4.2), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        style(axes)
        axes.set_title(panel.heading, loc="left", fontsize=11, fontweight="bold", color=INK)
        axes.set_ylabel(panel.unit, fontsize=9, color=MUTED)
        for client_id, points in panel.clients.items():
            axes.plot(*zip(*points, strict=True), **_client_line(client_ids, client_id))
        if panel.training:
            axes.plot(*zip(*panel.training, strict=True), **_TRAINING_LINE)
        if panel.worst:
            axes.plot(*zip(*panel.worst, strict=True), **_WORST_LINE, zorder=3)
        if panel.validation:
            axes.plot(*zip(*panel.validation, strict=True), **_VALIDATION_LINE, zorder=3)
        _draw_main(axes, panel.main)
        _scale(axes, last_round, [value for points in panel.all_points for _, value in points])
    _add_legend(figure, panels, client_ids)
    if title:
        wrapped = textwrap.fill(title, int(figure.get_figwidth() * 11))
        figure.suptitle(wrapped, x=0.012, ha="left", fontsize=11, color=INK, parse_math=False)
    save(figure, path)


def _panel(records: Sequence[Mapping[str, Any]], score: str) -> _Panel:
    look = score_look(score)
    main, place, what = points_of(records, f"global/{score}"), "", "global model, evaluation"
    if any(f"global/{score}_std" in record for record in records):
        what = "mean of the clients' models, evaluation"
    worst: Points = []
    if not main and (own := points_of(records, f"own/{score}")):
        main, place, what = own, "own/", "mean over clients, each on its own test rows"
        worst = points_of(records, f"own/{score}_worst")
    clients = _client_points(records, "train_loss" if score == "loss" else f"{place}{score}")
    training = points_of(records, "clients/train_loss") if score == "loss" and not clients else []
    return _Panel(
        heading=look.heading,
        unit=look.unit,
        what=what,
        main=main,
        worst=worst,
        training=training,
        validation=points_of(records, f"validation/{score}"),
        clients=clients,
    )


def _client_points(records: Sequence[Mapping[str, Any]], metric: str) -> dict[int, Points]:
    """Return the points of `client/<id>/<metric>` for every client that has any, sorted by client."""
    pattern = re.compile(rf"client/(\d+)/{re.escape(metric)}")
    ids = sorted({int(match[1]) for record in records for key in record if (match := pattern.fullmatch(key))})
    points = {client_id: points_of(records, f"client/{client_id}/{metric}") for client_id in ids}
    return {client_id: found for client_id, found in points.items() if found}


def _client_line(client_ids: Sequence[int], client_id: int) -> dict[str, Any]:
    """Return how a client's line looks: thin, in a colour of its own if the clients are few, else in grey."""
    few = len(client_ids) <= MAX_NAMED_CLIENTS
    if not few:
        return {"color": MUTED, "linewidth": 0.8, "marker": ".", "markersize": 1.5, "alpha": 0.35}
    return {"color": _CLIENT_COLOURS[client_ids.index(client_id)], "linewidth": 1.1, "marker": ".", "markersize": 4}


def _draw_main(axes: Axes, points: Points) -> None:
    """Draw the panel's main line: strong, round 0 hollow, the last value written beside its point."""
    if not points:
        return
    rounds, values = zip(*points, strict=True)
    axes.plot(rounds, values, **{**_MAIN_LINE, "markersize": 5 if len(points) <= 40 else 2.5}, zorder=4)
    if rounds[0] == 0:
        axes.plot(rounds[:1], values[:1], **_UNTRAINED_MARK, zorder=5)
    label = axes.annotate(f"{values[-1]:.3f}", points[-1], xytext=(8, 0), textcoords="offset points", va="center")
    label.set(fontsize=9, fontweight="bold", color=_MAIN_COLOUR)


def _scale(axes: Axes, last_round: int, values: Sequence[float]) -> None:
    """Scale x to rounds 0..last_round with room for the last value's label, and y so that one value has a scale."""
    span = max(last_round, 1)
    axes.set_xlim(-0.05 * span, 1.18 * span)
    locator = MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10])
    axes.set_xticks([tick for tick in locator.tick_values(0, span) if 0 <= tick <= span])
    axes.set_xlabel("rounds of training", fontsize=9, color=MUTED)
    axes.margins(y=0.1)
    if not values:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=MUTED, fontsize=9)
    elif min(values) == max(values) >= 0:
        top = 1.5 * values[0] or 1.0
        axes.set_ylim(-0.04 * top, top)


def _add_legend(figure: Figure, panels: Sequence[_Panel], client_ids: Sequence[int]) -> None:
    """Put one legend for all panels below them."""
    entries = [(Line2D([], [], **_MAIN_LINE), what) for what in dict.fromkeys(p.what for p in panels if p.main)]
    if any(panel.worst for panel in panels):
        entries.append((Line2D([], [], **_WORST_LINE), "worst client on its own test rows"))
    if any(panel.validation for panel in panels):
        entries.append((Line2D([], [], **_VALIDATION_LINE), "on the validation set"))
    if any(panel.training for panel in panels):
        entries.append((Line2D([], [], **_TRAINING_LINE), "mean of the clients, training"))
    if any(panel.main and panel.main[0][0] == 0 for panel in panels):
        entries.append((Line2D([], [], **_UNTRAINED_MARK), "before training"))
    suffix = "" if any(panel.clients for panel in panels[1:]) else ", training"
    if len(client_ids) > MAX_NAMED_CLIENTS:
        line = Line2D([], [], **(_client_line(client_ids, client_ids[0]) | {"alpha": 1.0}))
        entries.append((line, f"each of {len(client_ids)} clients{suffix}"))
    else:
        entries += [(Line2D([], [], **_client_line(client_ids, i)), f"client {i}{suffix}") for i in client_ids]
    if entries:
        handles, names = zip(*entries, strict=True)
        add_legend(figure, handles, names, loc="outside lower center", num_columns=min(len(names), 2 * len(panels)))
