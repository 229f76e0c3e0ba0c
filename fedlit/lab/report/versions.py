"""Which cells of a table are of other task versions, what is said of it, and what is left for bold and for tests.

Two questions are asked. Of a column, among the runs of one data set: is the score the same quantity? Of rows that are
compared, which differ in the method only: is everything the same, and in each draw the rows too? A cell that departs in
either has a mark; one that departs in the second takes no part in bold and tests.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedlit.lab.analysis.versions import KNOWN, ROWS, UNKNOWN, Judged, departures, other_rows
from fedlit.lab.report.cells import Measures, mean_of
from fedlit.lab.report.layout import Layout
from fedlit.lab.report.measures import Measure, Value
from fedlit.store.task_version import TaskVersion, shown

Spot = tuple[int, int, Any]
"""Of a value: its line, its column, and its key among the values of its measure."""

MOST_SHOWN = 3


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
            others = other_rows(_judged(values, draw))
            found = [
                (ROWS[values[spot].key.split("/")[0]],) if other else ()
                for spot, other in zip(draw, others, strict=True)
            ]
            _add(left_out, draw, found)
    for spot, added in left_out.items():
        names.setdefault(spot, {}).update(added)
    return Versions(
        remarks=[[_remark(i, j, found, names) for j, found in enumerate(row)] for i, row in enumerate(measures)],
        comparable=_without(layout, measures, left_out.keys()),
        warnings=tuple(_warnings(layout, names)),
        notes=tuple(_notes(values.values())),
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
    by_seed = {key: _words(names.get((i, j, key), {})) for key in found.values}
    if len(set(by_seed.values())) == 1:
        return next(iter(by_seed.values()))
    return "; ".join(f"seed {key}: {words}" for key, words in by_seed.items() if words)


def _words(parts: Mapping[str, None]) -> str:
    rows = [name for name in parts if name in ROWS.values()]
    others = [name for name in parts if name not in (*rows, UNKNOWN, KNOWN)]
    told = [f"another task version ({', '.join(others)})"] if others else []
    told += [f"task version {name}" for name in (UNKNOWN, KNOWN) if name in parts]
    return ", ".join([*told, *(f"other {name} in one draw" for name in rows)])


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
    return [
        f"Warning: task versions differ in {', '.join(headings)} ({', '.join(parts)}): cells that depart are marked, "
        "and neither bold nor a test goes across versions."
        for parts, headings in columns.items()
    ]


def _notes(values: Iterable[Value]) -> list[str]:
    """Return the versions of a table's runs; nothing of a table without runs."""
    runs = {value.run: value.version for value in values}
    known = [version for version in runs.values() if version is not None]
    unknown = len(runs) - len(known)
    notes = [_told(known)] if known else []
    if unknown:
        which = "all runs" if not known else f"{unknown} of {len(runs)} runs"
        notes.append(f"Task version unknown: {which}, of an older fedlit.")
    return notes


def _told(known: Sequence[TaskVersion]) -> str:
    protocols = Counter(shown(version.protocol) for version in known)
    rows = list(dict.fromkeys(shown(version.all_rows) for version in known))
    if len(protocols) == 1:
        text = f"Task version {next(iter(protocols))}"
    else:
        first = [f"{name} ({num} runs)" for name, num in protocols.most_common(MOST_SHOWN)]
        text = f"Task versions {', '.join(first)}{' and others' if len(protocols) > MOST_SHOWN else ''}"
    sets = ", ".join(rows) if len(rows) <= MOST_SHOWN else f"{len(rows)} sets, one for each draw or more"
    return f"{text}; test rows {sets}."
