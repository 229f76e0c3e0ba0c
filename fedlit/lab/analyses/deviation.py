"""How far a server's weights are from the mean of its clients', layer by layer.

Singhal, Ponkshe and Vepakomma, FedEx-LoRA, arXiv 2410.09432, section 6, figures 2 to 9: the Frobenius norm of the
difference of effective weights over the square root of their number, against depth after the first round, against the
local epochs, and against the rounds, of the first layer's query and as a mean over layers.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence

from fedlit.lab.analyses.base import Analysis, Findings, Run, Table, by_label, lines_of, mean_of, place_of
from fedlit.lab.analysis.column import Line, Panel, Picture
from fedlit.statistics.fitting import rank_correlation

KINDS: Mapping[str, tuple[str, str]] = {
    "deviation": ("lora/deviation/", "deviation (RMS of weights)"),
}
"""What is measured of each layer, the beginning of its keys, and how its axis is called."""

EXACT = 1e-7
"""Below it nothing but rounding is left of a deviation in float32."""


class Deviation(Analysis):
    """Deviation per layer and projection, against depth, rounds and local work."""

    name = "deviation"
    title = "Deviation from the mean of the clients"
    source = "arXiv 2410.09432 (FedEx-LoRA), section 6, figures 2 to 9"
    needs = tuple(prefix for prefix, _ in KINDS.values())
    remedy = "give LoRA runs eval.deviation=true (the default)"

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return every layer's numbers, and pictures against depth, rounds and, where it differs, local work."""
        fitting = [run for run in runs if self.fits(run)]
        pictures, rows = [], []
        for kind, (prefix, label) in KINDS.items():
            having = [run for run in fitting if run.has(prefix)]
            if having:
                pictures += [
                    *_against_rounds(having, kind, prefix, label),
                    *_against_depth(having, kind, prefix, label),
                ]
                pictures += _against_work(having, kind, prefix, label)
                rows += [row for run in having for row in _rows(run, kind, prefix)]
        caption = (
            "After each round: root mean square over a layer's weights of the server's effective weight less the mean "
            "of the clients'."
        )
        columns = ("setting", "run", "measure", "round", "layer", "block", "projection", "value")
        trends = [trend for run in fitting if (trend := _trend(run))]
        return Findings(
            tables=[
                Table(
                    name="deviation_trends", caption=_TRENDS, columns=tuple(trends[0]) if trends else (), rows=trends
                ),
                Table(name="deviation", caption=caption, columns=columns, rows=rows),
            ],
            pictures=pictures,
        )


_TRENDS = (
    "What the paper reads off its figures: deviation after the first round in the first and the last block and its "
    "rank correlation with depth (paper: falls), query over value (paper: above 1), and the mean over layers after the "
    "last round over that after the first (paper: below 1)."
)


def layers_of(run: Run, prefix: str) -> dict[str, dict[int, float]]:
    """Return the values of every layer by round, in the order of the model; a mean over layers is none."""
    return {layer: points for layer, points in run.below(prefix).items() if layer}


def _rows(run: Run, kind: str, prefix: str) -> Iterator[dict[str, object]]:
    for layer, points in layers_of(run, prefix).items():
        place = place_of(layer)
        for number, value in points.items():
            yield {
                **{"setting": run.label, "run": run.name, "measure": kind, "round": number, "layer": layer},
                **{"block": place.block, "projection": place.projection, "value": value},
            }


def mean_over_layers(run: Run, prefix: str) -> dict[float, float]:
    """Return the mean over layers by round."""
    return mean_of(list(layers_of(run, prefix).values()))


def by_depth(run: Run, prefix: str, number: int) -> dict[str, dict[int, float]]:
    """Return the values of one round by projection and block."""
    found: dict[str, dict[int, float]] = {}
    for layer, points in layers_of(run, prefix).items():
        place = place_of(layer)
        if number in points and place.block >= 0:
            found.setdefault(place.projection, {})[place.block] = points[number]
    return found


def first_round(run: Run, prefix: str) -> int:
    """Return the first round that has values."""
    return min(number for points in layers_of(run, prefix).values() for number in points)


def _against_rounds(runs: Sequence[Run], kind: str, prefix: str, label: str) -> Iterator[Picture]:
    first = _first_query(runs[0], prefix)
    panels = [
        Panel(
            x="aggregation round",
            y=label,
            title="mean over layers",
            lines=list(lines_of(runs, lambda r: mean_over_layers(r, prefix))),
            log_y=True,
        )
    ]
    if first:
        lines = list(lines_of(runs, lambda run: layers_of(run, prefix).get(first, {})))
        panels.append(Panel(x="aggregation round", y=label, title=first, lines=lines, log_y=True))
    caption = f"{label} after each round (figures 3 and 6 to 9 of the paper)."
    yield Picture(name=f"{kind}-rounds", caption=caption, panels=panels, height=1.5)


def _first_query(run: Run, prefix: str) -> str:
    """Return the layer of the first block that is called after a query, or the first of all."""
    layers = sorted(layers_of(run, prefix), key=place_of)
    queries = [layer for layer in layers if place_of(layer).projection.startswith("q")]
    return next(iter([*queries, *layers]), "")


def _against_depth(runs: Sequence[Run], kind: str, prefix: str, label: str) -> Iterator[Picture]:
    """Yield for each setting a panel with a line for each projection, after the first round."""
    panels = []
    for name, repeats in by_label(runs).items():
        found = [by_depth(run, prefix, first_round(run, prefix)) for run in repeats]
        projections = dict.fromkeys(projection for each in found for projection in each)
        lines = []
        for projection in projections:
            mean = mean_of([each[projection] for each in found if projection in each])
            lines.append(Line(name=projection, x=list(mean), y=list(mean.values())))
        values = [value for line in lines for value in line.y]
        if values and max(values) > EXACT:
            panels.append(Panel(x="block", y=label, title=name, lines=lines))
    if panels:
        caption = f"{label} against depth after the first round (figures 2, 4 and 5 of the paper)."
        columns = 2 if len(panels) > 1 else 1
        yield Picture(name=f"{kind}-depth", caption=caption, panels=panels, columns=columns, height=1.3)


def _against_work(runs: Sequence[Run], kind: str, prefix: str, label: str) -> Iterator[Picture]:
    """Yield the mean over layers after the first round against local epochs, or steps, where runs differ in them."""
    for unit in ("epochs", "steps"):
        methods: dict[str, dict[float, list[float]]] = {}
        for run in runs:
            if (amount := getattr(run.config.local, unit)) is not None:
                value = mean_over_layers(run, prefix)[first_round(run, prefix)]
                methods.setdefault(run.method, {}).setdefault(amount, []).append(value)
        lines = [
            Line(name=name, x=sorted(found), y=[statistics.fmean(found[amount]) for amount in sorted(found)])
            for name, found in methods.items()
            if len(found) > 1
        ]
        if lines:
            panel = Panel(x=f"local {unit}", y=label, lines=lines, log_x=True)
            caption = f"{label}, mean over layers after the first round, against local {unit} (figure 2 of the paper)."
            yield Picture(name=f"{kind}-{unit}", caption=caption, panels=[panel])


def _trend(run: Run) -> dict[str, object] | None:
    """Return the paper's three statements about a run's deviations, in numbers."""
    prefix = KINDS["deviation"][0]
    if not run.has(prefix):
        return None
    start = first_round(run, prefix)
    depth = by_depth(run, prefix, start)
    blocks = mean_of(list(depth.values()))
    rounds = mean_over_layers(run, prefix)
    query, value = (_mean(depth, letter) for letter in "qv")
    return {
        "setting": run.label,
        "run": run.name,
        "first block": blocks[min(blocks)] if blocks else None,
        "last block": blocks[max(blocks)] if blocks else None,
        "correlation with depth": rank_correlation(list(blocks), list(blocks.values())),
        "query / value": query / value if query and value else None,
        "last / first round": rounds[max(rounds)] / rounds[start] if rounds.get(start) else None,
        "exact": max(rounds.values(), default=0.0) < EXACT,
    }


def _mean(depth: Mapping[str, Mapping[int, float]], letter: str) -> float | None:
    found = [value for name, points in depth.items() if name.startswith(letter) for value in points.values()]
    return statistics.fmean(found) if found else None
