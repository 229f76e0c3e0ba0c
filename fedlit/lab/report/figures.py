"""The figures beside a table: every score over the rounds, and what every method reached in it, as PDF and PNG."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedlit.lab.analysis.collection import Collection, Group, by_seed
from fedlit.lab.analysis.draws import by_draw, repeat_of, several_draws
from fedlit.lab.analysis.plots import Points, curve_places, points_of
from fedlit.lab.analysis.seeds_plot import Curves, Reached, plot_curves_of_seeds, plot_reached
from fedlit.lab.report.contenders import contender_keys
from fedlit.lab.report.layout import Layout, bound_last, known_scores, naming_keys
from fedlit.lab.report.measures import is_done, measure
from fedlit.lab.report.published import scales_of
from fedlit.scores import SCORES


def draw_figures(collection: Collection, layout: Layout, which: str, folder: Path) -> list[Path]:
    """Write the figures of every score of the table that a run has, and return their paths."""
    scales = scales_of(layout.published)
    scores = dict.fromkeys(score.split("/")[0] for column in layout.columns for score in column.scores)
    groups = _named(collection, layout)
    published = _published(layout)
    written = []
    for score in (score for score in scores if score in known_scores(collection)):
        stem, scale = score.replace("/", "-"), scales.get(score, 1.0)
        places = curve_places((record for entry in collection.entries for record in entry.records), score)
        curves = [
            Curves(panel=panel, name=name, by_seed=points, scale=_data_of(group))
            for panel, name, group in groups
            if (points := _points(group, score, places, scale))
        ]
        if not curves:
            continue
        title = f"{collection.name}: {SCORES[score].heading if score in SCORES else score}"
        where = " on the validation set, where there is one" if places[0] == "validation" else ""
        heading = f"{title} over the rounds{where}"
        over = "draws" if any(several_draws(group.entries) for _, _, group in groups) else "seeds"
        written += plot_curves_of_seeds(curves, score, folder / f"curves-{stem}", heading, scale, over)
        panels = {curve.panel for curve in curves}
        reached = [_reached(*entry, score, which, published, scale) for entry in groups if entry[0] in panels]
        when = "after the last round" if which == "last" else "in the best round"
        written += plot_reached(reached, score, folder / f"reached-{stem}", f"{title} {when}", scale, over)
    return written


def _named(collection: Collection, layout: Layout) -> list[tuple[str, str, Group]]:
    """Return every setting with the panel it stands in and the name of its line."""
    contenders = contender_keys(collection)
    groups = by_seed(collection)
    keys = naming_keys(groups, bound_last(collection))
    called = {label.key: label.names for label in layout.published.rows_by} if layout.published else {}
    mine = [key for key in keys if key in contenders]
    others = [key for key in keys if key not in contenders]
    return [(_label(g, others, called), _label(g, mine, called) or collection.name, g) for g in groups]


def _reached(
    panel: str,
    name: str,
    group: Group,
    score: str,
    which: str,
    published: Mapping[tuple[int, str], float],
    scale: float,
) -> Reached:
    found = measure(group.entries, (score,), which)
    return Reached(
        panel=panel,
        name=name,
        values=[scale * value for value in found.of_draws],
        final=found.final,
        scale=_data_of(group),
        published=published.get((id(group.entries[0]), score)),
    )


def _data_of(group: Group) -> str:
    """Return the data set of a setting, whose panels are compared."""
    config = next((entry.config for entry in group.entries if entry.config), None)
    return str(group.settings.get("data", config.data.name if config else ""))


def _label(group: Group, keys: Sequence[str], called: Mapping[str, Mapping[object, str]]) -> str:
    parts = [called.get(key, {}).get(group.settings.get(key)) or group.label([key]) for key in keys]
    return ", ".join(part for part in parts if part)


def _points(group: Group, score: str, places: Sequence[str], scale: float) -> list[list[tuple[int, float]]]:
    """Return the curves of the seeds, or of the draws, as in the table: of the runs that are done, or of the others
    where none is.
    """
    entries = [entry for entry in group.entries if is_done(entry)] or group.entries
    for place in places:
        found = {
            repeat_of(entry): points for entry in entries if (points := points_of(entry.records, f"{place}/{score}"))
        }
        if found:
            curves = by_draw(found) if several_draws(entries) else [[points] for points in found.values()]
            return [[(number, scale * value) for number, value in _mean_curve(curve)] for curve in curves]
    return []


def _mean_curve(seeds: Sequence[Points]) -> Points:
    """Return the mean of the curves of a draw's seeds, at the rounds that all of them have."""
    values = [dict(points) for points in seeds]
    rounds = sorted(set.intersection(*map(set, values)))
    return [(number, statistics.fmean(points[number] for points in values)) for number in rounds]


def _published(layout: Layout) -> dict[tuple[int, str], float]:
    """Return the published numbers as they are printed, by the first run of their place and score."""
    return {
        (id(place.entries[0]), score): float(place.published)
        for line in layout.lines
        for place, column in zip(line.places, layout.columns, strict=True)
        if place.entries and place.published is not None
        for score in column.scores
    }
