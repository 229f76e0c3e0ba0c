"""A table and its tests as CSV, in the unit of the records, for other programs to read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fedlit.config.keys import as_argument
from fedlit.lab.analysis.collection import Collection, Group, by_seed
from fedlit.lab.analysis.csv_text import csv_text
from fedlit.lab.report.layout import Layout, Place, known_scores
from fedlit.lab.report.measures import Measure, deciding_key, is_done, measure
from fedlit.lab.report.published import Column
from fedlit.lab.report.significance import Comparison


def table_csv(collection: Collection, layout: Layout) -> str:
    """Return a line for each setting and score: the values of its runs after the last round and in the best, and the
    published number.

    A value by seed is `seed=value`, where draws are an axis `draw/seed=value`, several with spaces between them.
    `published` is in the record's unit, `published_as_printed` in the paper's.
    """
    places = {
        (id(place.entries[0]), score): (place, column)
        for line in layout.lines
        for place, column in zip(line.places, layout.columns, strict=True)
        for score in column.scores
        if place.entries
    }
    rows = []
    for group in by_seed(collection):
        shown = [score for entry, score in places if entry == id(group.entries[0])]
        for score in dict.fromkeys([*shown, *known_scores(collection)]):
            row = _row(collection, group, score, places.get((id(group.entries[0]), score)))
            if row is not None:
                rows.append(row)
    return _csv(rows)


def comparisons_csv(comparisons: Sequence[Comparison]) -> str:
    """Return a line for each test."""
    return _csv([{**asdict(comparison), "better": comparison.better} for comparison in comparisons])


def _row(collection: Collection, group: Group, score: str, found: tuple[Place, Column] | None) -> dict[str, Any] | None:
    """Return one line; None for a score that these runs have not and the table does not show."""
    last, best = (measure(group.entries, (score,), which) for which in ("last", "best"))
    if not last.values and (found is None or _has_alternative(group, score, found[1])):
        return None
    values = list(last.values.values())
    settings = {key: as_argument(group.settings[key]) if key in group.settings else "" for key in collection.varied}
    deciders = dict.fromkeys(key for entry in group.entries if (key := deciding_key(entry)))
    published, column = (found[0].published, found[1]) if found else (None, None)
    chosen = {axis: as_argument(value) for axis, value in group.entries[0].chosen.items()}
    return {
        **settings,
        **chosen,
        "score": score,
        "key": " ".join(sorted({value.key for value in values})),
        "protocol": " ".join(sorted({value.protocol for value in values if value.protocol})),
        "num_runs": len(group.entries),
        "num_done": sum(is_done(entry) for entry in group.entries),
        "complete": last.complete,
        **_numbers("last", last),
        **_numbers("best", best),
        "best_by": " ".join(deciders),
        "remark": last.remark,
        "published": "" if published is None or column is None else f"{float(published) / column.scale:.6g}",
        "published_as_printed": published or "",
        "published_doubts": "; ".join(found[0].doubts) if found else "",
    }


def _has_alternative(group: Group, score: str, column: Column) -> bool:
    """Tell whether these runs have, or the table expects first, another of a column's alternative scores."""
    others = [other for other in column.scores if other != score]
    return score != column.scores[0] or any(measure(group.entries, (other,), "last").values for other in others)


def _numbers(which: str, found: Measure) -> dict[str, Any]:
    return {
        f"{which}_mean": "" if found.mean is None else repr(found.mean),
        f"{which}_std": "" if found.std is None else repr(found.std),
        f"{which}_by_seed": " ".join(f"{seed}={value.value!r}" for seed, value in found.values.items()),
        f"{which}_round_by_seed": " ".join(f"{seed}={value.number}" for seed, value in found.values.items()),
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    return csv_text(rows, list(dict.fromkeys(key for row in rows for key in row)))
