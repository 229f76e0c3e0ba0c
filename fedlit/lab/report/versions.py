"""Which cells of a table are of other task versions, what is said of it, and what is left for bold and for tests.

Two questions are asked. Of a column, among the runs of one data set: is the score the same quantity? Of rows that are
compared, which differ in the method only: is everything the same, and in each draw the rows too? A cell that departs in
either has a mark; one that departs in the second takes no part in bold and tests.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedlit.lab.analysis import draws
from fedlit.lab.analysis.versions import Judged, departures, other_rows, told_versions, warning_of, words_of
from fedlit.lab.report.cells import Measures, mean_of
from fedlit.lab.report.layout import Layout
from fedlit.lab.report.measures import Measure, Value

Spot = tuple[int, int, Any]
"""Of a value: its line, its column, and its key among the values of its measure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Versions:
    """What the task versions of a table's runs say.

    remarks: of every line and column, why the cell has a mark; empty for none. comparable: the measures without those
    values that are not compared. warnings, notes: lines about the table.
    """

    remarks: Sequence[Sequence[str]]
    comparable: Measures
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def compare_versions(layout: Layout, measures: Measures) -> Versions:
    """Return what the versions of all values of a table say."""
    values = {
        (i, j, key): value
        for i, row in enumerate(measures)
        for j, found in enumerate(row[: len(layout.columns)])
        for key, value in found.values.items()
    }
    names: dict[Spot, dict[str, None]] = {}
    for group in _groups(values, lambda i, j: (_data(layout, i, j), j)):
        _add(names, group, departures(_judged(values, group), across_models=True))
    left_out: dict[Spot, dict[str, None]] = {}
    for group in _groups(values, lambda i, j: (layout.lines[i].conditions, j)):
        _add(left_out, group, departures(_judged(values, group), across_models=False))
        kept = [spot for spot in group if spot not in left_out]
        for draw in _groups({spot: values[spot] for spot in kept}, lambda i, j: (), by_draw=True):
            _add(left_out, draw, other_rows(_judged(values, draw)))
    for spot, added in left_out.items():
        names.setdefault(spot, {}).update(added)
    return Versions(
        remarks=[[_remark(i, j, found, names) for j, found in enumerate(row)] for i, row in enumerate(measures)],
        comparable=_without(layout, measures, left_out.keys()),
        warnings=tuple(_warnings(layout, names)),
        notes=tuple(told_versions(list({value.run: value.version for value in values.values()}.values()))),
    )


def comparable(layout: Layout, measures: Measures) -> Measures:
    """Return measures without the values that tests and bold leave out."""
    return compare_versions(layout, measures).comparable


def _data(layout: Layout, i: int, j: int) -> str:
    """Return the data set of a place: rows of different data sets say so, and nobody takes them for one."""
    configs = [entry.config for entry in layout.lines[i].places[j].entries if entry.config]
    return configs[0].data.name if configs else ""


def _groups(values: Mapping[Spot, Value], of: Any, *, by_draw: bool = False) -> Iterable[list[Spot]]:
    groups: dict[Any, list[Spot]] = {}
    for spot, value in values.items():
        group = (of(*spot[:2]), spot[2] if by_draw else None, value.key.split("/")[0])
        groups.setdefault(group, []).append(spot)
    return groups.values()


def _judged(values: Mapping[Spot, Value], group: Sequence[Spot]) -> list[Judged]:
    found = [values[spot] for spot in group]
    return [Judged(key=value.key, protocol=value.protocol, version=value.version) for value in found]


def _add(names: dict[Spot, dict[str, None]], group: Sequence[Spot], found: Sequence[tuple[str, ...]]) -> None:
    for spot, parts in zip(group, found, strict=True):
        if parts:
            names.setdefault(spot, {}).update(dict.fromkeys(parts))


def _remark(i: int, j: int, found: Measure, names: Mapping[Spot, Mapping[str, None]]) -> str:
    """Return why a cell has a mark, by seed where its runs are not alike."""
    by_seed = {key: words_of(names.get((i, j, key), {})) for key in found.values}
    if len(set(by_seed.values())) == 1:
        return next(iter(by_seed.values()))
    return "; ".join(f"{draws.words(key)}: {words}" for key, words in by_seed.items() if words)


def _without(layout: Layout, measures: Measures, left_out: Iterable[Spot]) -> Measures:
    gone = set(left_out)
    if not gone:
        return measures
    rows = []
    for i, row in enumerate(measures):
        kept = []
        for j, found in enumerate(row[: len(layout.columns)]):
            values = {key: value for key, value in found.values.items() if (i, j, key) not in gone}
            kept.append(replace(found, values=values, final=found.final and bool(values)))
        rows.append([*kept, mean_of(kept, layout.columns)] if layout.has_average else kept)
    return rows


def _warnings(layout: Layout, names: Mapping[Spot, Mapping[str, None]]) -> list[str]:
    by_column: dict[int, dict[str, None]] = {}
    for (_, j, _), parts in names.items():
        by_column.setdefault(j, {}).update(parts)
    columns: dict[tuple[str, ...], list[str]] = {}
    for j, parts in sorted(by_column.items()):
        columns.setdefault(tuple(parts), []).append(layout.columns[j].heading)
    return [warning_of(headings, parts) for parts, headings in columns.items()]
