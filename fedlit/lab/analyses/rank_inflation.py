"""How the rank of the clients' mean change grows over that of a single client's.

Mahla, Jadhav and Ramakrishnan, arXiv 2410.23111, proposition 1: of N clients of rank r each, the rank of the mean is r
to N r, so that eta = rank(mean) / r is 1 to N. The lower bound is no theorem, since changes can cancel. Beside the
numerical rank, which counts singular values above rounding, stands the effective one, the exponential of the entropy of
the normalised singular values (Roy and Vetterli, EUSIPCO 2007).
"""

from collections.abc import Iterator, Sequence

from fedlit.lab.analyses.base import ON_BY_DEFAULT, Analysis, Findings, Run, Table, lines_of, mean_of, place_of
from fedlit.lab.analysis.column import Line, Panel, Picture


class RankInflation(Analysis):
    """Numerical and effective rank of the aggregate per layer and round, eta with its bounds."""

    name = "rank"
    title = "Rank inflation of the aggregate"
    source = "arXiv 2410.23111 (FedFTG), proposition 1"
    needs = ("rank/",)
    remedy = f"give runs of LoRA methods or SCL analysis=[rank] {ON_BY_DEFAULT}, dense ones analysis=[dense]"

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return both ranks of each layer and round, and pictures of the means over layers."""
        trends = [_trend(run) for run in runs]
        outside = [row["setting"] for row in trends if not row["within bounds"]]
        verdict = f"outside for {', '.join(map(str, outside))}" if outside else "within them for all runs"
        bounds = "1 and the sum of the clients' ranks over the largest"
        note = f"eta of every layer and round against its bounds, {bounds}: {verdict}."
        tables = [
            Table(name="rank_trends", caption=_TRENDS, columns=tuple(trends[0]), rows=trends),
            Table(name="rank", caption=_CAPTION, columns=_COLUMNS, rows=[row for run in runs for row in _rows(run)]),
        ]
        return Findings(tables=tables, pictures=[_over_rounds(runs), *_over_depth(runs)], notes=[note])


_COLUMNS = ("setting", "run", "round", "layer", "block", "projection", "numerical rank", "effective rank", "eta")
_CAPTION = "Rank of the clients' mean change of each layer in each round, before any truncation."
_TRENDS = (
    "Over all rounds: least and largest eta of a layer and the upper bound; means over layers in the last round of the "
    "numerical and effective rank, of the effective rank of one client's change, and of the ratio of the two."
)


def _of_layers(run: Run, name: str) -> dict[str, dict[int, float]]:
    return run.below(f"rank/{name}/")


def _rows(run: Run) -> Iterator[dict[str, object]]:
    effective, eta = _of_layers(run, "effective"), _of_layers(run, "eta")
    for layer, points in _of_layers(run, "numerical").items():
        place = place_of(layer)
        for number, rank in points.items():
            yield {
                **{"setting": run.label, "run": run.name, "round": number, "layer": layer, "block": place.block},
                **{"projection": place.projection, "numerical rank": rank},
                "effective rank": effective.get(layer, {}).get(number),
                "eta": eta.get(layer, {}).get(number),
            }


def _trend(run: Run) -> dict[str, object]:
    bounds = run.points("rank/eta_bound")
    etas = [(number, eta) for points in _of_layers(run, "eta").values() for number, eta in points.items()]
    etas = etas or list(run.points("rank/eta").items())
    last = max(run.points("rank/numerical"), default=0)
    # Ranks are whole numbers: a bound is met to rounding of their ratio.
    within = all(1 - 1e-9 <= eta <= bounds.get(number, float("inf")) + 1e-9 for number, eta in etas)
    return {
        "setting": run.label,
        "run": run.name,
        "least eta": min((eta for _, eta in etas), default=None),
        "largest eta": max((eta for _, eta in etas), default=None),
        "upper bound": max(bounds.values(), default=None),
        "within bounds": within,
        **{name: run.points(f"rank/{key}").get(last) for name, key in _LAST.items()},
    }


_LAST = {
    "numerical rank": "numerical",
    "effective rank": "effective",
    "effective rank of a client": "client_effective",
    "effective eta": "effective_eta",
}


def _over_rounds(runs: Sequence[Run]) -> Picture:
    bound = mean_of([run.points("rank/eta_bound") for run in runs if run.has("rank/eta_bound")])
    limits = [Line(name="bounds 1 and N", x=list(bound), y=[1.0] * len(bound), is_reference=True)] if bound else []
    if bound:
        limits.append(Line(name="bounds 1 and N", x=list(bound), y=list(bound.values()), is_reference=True))

    def panel(label: str, key: str, extra: Sequence[Line] = ()) -> Panel:
        return Panel(x="aggregation round", y=label, lines=[*lines_of(runs, lambda run: run.points(key)), *extra])

    panels = [
        panel("rank inflation eta", "rank/eta", limits),
        panel("effective rank of the mean", "rank/effective"),
        panel("effective over a client's", "rank/effective_eta"),
    ]
    caption = "Rank inflation of the clients' mean change with the proposition's bounds, and its effective rank."
    return Picture(name="rank-rounds", caption=caption, panels=panels, height=1.25)


def _over_depth(runs: Sequence[Run]) -> Iterator[Picture]:
    """Yield the effective rank by block in the last round, means over the projections."""

    def by_block(run: Run) -> dict[int, float]:
        found: dict[int, list[float]] = {}
        for layer, points in _of_layers(run, "effective").items():
            if points and (place := place_of(layer)).block >= 0:
                found.setdefault(place.block, []).append(points[max(points)])
        return {block: sum(values) / len(values) for block, values in sorted(found.items())}

    lines = list(lines_of(runs, by_block))
    if lines:
        caption = "Effective rank of the clients' mean change after the last round, mean over a block's projections."
        yield Picture(name="rank-depth", caption=caption, panels=[Panel(x="block", y="effective rank", lines=lines)])
