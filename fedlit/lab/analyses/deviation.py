"""How far a server's weights are from the mean of its clients', layer by layer.

Singhal, Ponkshe and Vepakomma, FedEx-LoRA, arXiv 2410.09432, section 6, figures 2 to 9: the Frobenius norm of the
difference of effective weights over the square root of their number, against depth after the first round, against the
local epochs, and against the rounds, of the first layer's query and as a mean over layers. Beyond the paper: FlexLoRA's
deviation is what its truncation cuts off; SCL's effective weight is W_2 W_c; the spread of FedSA-LoRA is that of its
clients' own models.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence

from fedlit.lab.analyses.base import (
    ON_BY_DEFAULT,
    Analysis,
    Findings,
    Run,
    Table,
    by_label,
    lines_of,
    mean_of,
    place_of,
)
from fedlit.lab.analysis.column import Line, Panel, Picture
from fedlit.statistics.fitting import rank_correlation

KINDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "deviation": (("lora/deviation/", "scl/deviation/"), "deviation (RMS of weights)"),
    "spread": (("lora/spread/",), "spread of clients (RMS of weights)"),
}
"""What is measured of each layer: the beginnings of its keys, of which a run has one, and how its axis is called."""

EXACT = 1e-7
"""Below it nothing but rounding is left of a deviation in float32."""
MOST_PANELS = 8
"""Of one picture."""


class Deviation(Analysis):
    """Deviation and spread per layer and projection, against depth, rounds and local work."""

    name = "deviation"
    title = "Deviation from the mean of the clients"
    source = "arXiv 2410.09432 (FedEx-LoRA), section 6, figures 2 to 9"
    needs = tuple(prefix for prefixes, _ in KINDS.values() for prefix in prefixes)
    remedy = f"give runs of LoRA methods or SCL analysis=[deviation] {ON_BY_DEFAULT}"

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return every layer's numbers, and pictures against depth, rounds and, where it differs, local work."""
        pictures: list[Picture] = []
        rows: list[dict[str, object]] = []
        for kind, (_, label) in KINDS.items():
            having = [run for run in runs if layers_of(run, kind)]
            if having:
                pictures += [*_against_rounds(having, kind, label), *_against_depth(having, kind, label)]
                pictures += _against_work(having, kind, label)
                rows += [row for run in having for row in _rows(run, kind)]
        trends = [_trend(run) for run in runs if layers_of(run, "deviation")]
        exact = [str(row["setting"]) for row in trends if row["exact"]]
        notes = [f"Exact but for rounding: {', '.join(dict.fromkeys(exact))}."] if exact else []
        tables = [
            Table(name="deviation_trends", caption=_TRENDS, columns=tuple(trends[0]) if trends else (), rows=trends),
            Table(name="deviation", caption=_CAPTION, columns=_COLUMNS, rows=rows),
        ]
        return Findings(tables=tables, pictures=pictures, notes=notes)


_COLUMNS = ("setting", "run", "measure", "round", "layer", "block", "projection", "value")
_CAPTION = (
    "After each round, root mean squares over a layer's weights: the server's effective weight less the mean of the "
    "clients' (deviation), the clients' own less their mean (spread)."
)
_TRENDS = (
    "What the paper reads off its figures: deviation after the first round in the first and the last block and its "
    "rank correlation with depth (paper: falls), query over value (paper: above 1), and the mean over layers after the "
    "last round over that after the first (paper: below 1). Last: deviation over the server's update in the last round."
)


def layers_of(run: Run, kind: str) -> dict[str, dict[int, float]]:
    """Return the values of every layer by round, in the order of the model."""
    found: dict[str, dict[int, float]] = {}
    for prefix in KINDS[kind][0]:
        found |= run.below(prefix)
    return found


def _rows(run: Run, kind: str) -> Iterator[dict[str, object]]:
    for layer, points in layers_of(run, kind).items():
        place = place_of(layer)
        for number, value in points.items():
            yield {
                **{"setting": run.label, "run": run.name, "measure": kind, "round": number, "layer": layer},
                **{"block": place.block, "projection": place.projection, "value": value},
            }


def mean_over_layers(run: Run, kind: str) -> dict[int, float]:
    """Return the mean over layers by round."""
    return mean_of(list(layers_of(run, kind).values()))


def by_depth(run: Run, kind: str, number: int) -> dict[str, dict[int, float]]:
    """Return the values of one round by projection and block."""
    found: dict[str, dict[int, float]] = {}
    for layer, points in layers_of(run, kind).items():
        place = place_of(layer)
        if number in points and place.block >= 0:
            found.setdefault(place.projection, {})[place.block] = points[number]
    return found


def first_round(run: Run, kind: str) -> int:
    """Return the first round that has values."""
    return min(number for points in layers_of(run, kind).values() for number in points)


def _against_rounds(runs: Sequence[Run], kind: str, label: str) -> Iterator[Picture]:
    """Yield the mean over layers and the first query over the rounds, where a run has more than one; of runs that are
    exact there is nothing to see.
    """
    runs = [run for run in runs if max(mean_over_layers(run, kind).values()) > EXACT]
    if all(len(mean_over_layers(run, kind)) < 2 for run in runs):
        return
    lines = list(lines_of(runs, lambda run: mean_over_layers(run, kind)))
    panels = [Panel(x="aggregation round", y=label, title="mean over layers", lines=lines, log_y=True)]
    if first := _first_query(runs, kind):
        lines = list(lines_of(runs, lambda run: layers_of(run, kind).get(first, {})))
        panels.append(Panel(x="aggregation round", y=label, title=first, lines=lines, log_y=True))
    caption = f"{_begin(label)} after each round{_figures(kind, '3 and 6 to 9')}."
    yield Picture(name=f"{kind}-rounds", caption=caption, panels=panels, height=1.5)


def _begin(label: str) -> str:
    return f"{label[:1].upper()}{label[1:]}"


def _figures(kind: str, numbers: str) -> str:
    """Return which figures of the paper show the same; it shows no spread of private models."""
    return f" (as figures {numbers} of the paper)" if kind == "deviation" else ""


def _first_query(runs: Sequence[Run], kind: str) -> str:
    """Return the query of the first block that has one; empty without any."""
    layers = {layer for run in runs for layer in layers_of(run, kind) if place_of(layer).projection.startswith("q")}
    return min(layers, key=lambda layer: (place_of(layer), layer), default="")


def _against_depth(runs: Sequence[Run], kind: str, label: str) -> Iterator[Picture]:
    """Yield panels, one for each setting, with a line for each projection, after the first round."""
    panels = []
    for name, repeats in by_label(runs).items():
        found = [by_depth(run, kind, first_round(run, kind)) for run in repeats]
        lines = []
        for projection in dict.fromkeys(projection for each in found for projection in each):
            mean = mean_of([each[projection] for each in found if projection in each])
            lines.append(Line(name=projection, x=list(mean), y=list(mean.values())))
        if max((value for line in lines for value in line.y), default=0.0) > EXACT:
            panels.append(Panel(x="block", y=label, title=name, lines=lines))
    caption = f"{_begin(label)} against depth after the first round{_figures(kind, '2, 4 and 5')}."
    for first in range(0, len(panels), MOST_PANELS):
        part = panels[first : first + MOST_PANELS]
        name = f"{kind}-depth{f'-{first // MOST_PANELS + 1}' if first else ''}"
        yield Picture(name=name, caption=caption, panels=part, columns=min(2, len(part)), height=1.3)


def _against_work(runs: Sequence[Run], kind: str, label: str) -> Iterator[Picture]:
    """Yield the mean over layers after the first round against local epochs, or steps, where runs differ in them."""
    for unit in ("epochs", "steps"):
        methods: dict[str, dict[float, list[float]]] = {}
        for run in runs:
            if (amount := getattr(run.config.local, unit)) is not None:
                value = mean_over_layers(run, kind)[first_round(run, kind)]
                methods.setdefault(run.method, {}).setdefault(amount, []).append(value)
        lines = [
            Line(name=name, x=sorted(found), y=[statistics.fmean(found[amount]) for amount in sorted(found)])
            for name, found in methods.items()
            if len(found) > 1
        ]
        if lines:
            panel = Panel(x=f"local {unit}", y=label, lines=lines, log_x=True, log_y=True)
            what = f"{_begin(label)}, mean over layers after the first round, against local {unit}"
            caption = f"{what}{_figures(kind, '2')}."
            yield Picture(name=f"{kind}-{unit}", caption=caption, panels=[panel])


def _trend(run: Run) -> dict[str, object]:
    """Return the paper's statements about a run's deviations, in numbers."""
    start = first_round(run, "deviation")
    depth, rounds = by_depth(run, "deviation", start), mean_over_layers(run, "deviation")
    blocks = mean_of(list(depth.values()))
    query, value = (_mean(depth, letter) for letter in "qv")
    last = max(rounds)
    update = {**run.points("scl/update_norm"), **run.points("lora/update_norm")}.get(last)
    return {
        "setting": run.label,
        "run": run.name,
        "first block": blocks[min(blocks)] if blocks else None,
        "last block": blocks[max(blocks)] if blocks else None,
        "correlation with depth": rank_correlation(list(blocks), list(blocks.values())),
        "query / value": query / value if query and value else None,
        "last / first round": rounds[last] / rounds[start] if rounds.get(start) else None,
        "deviation / update": rounds[last] / update if update else None,
        "exact": max(rounds.values()) < EXACT,
    }


def _mean(depth: Mapping[str, Mapping[int, float]], letter: str) -> float | None:
    found = [value for name, points in depth.items() if name.startswith(letter) for value in points.values()]
    return statistics.fmean(found) if found else None
