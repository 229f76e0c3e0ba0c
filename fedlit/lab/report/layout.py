"""Which runs stand in which place of the table: as in the paper, or a row for each setting and a column for each score.

Only places are decided here; what stands in them is the matter of `table.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fedlit.config.keys import show
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Collection, Entry, Group, bound_keys, by_seed
from fedlit.lab.report.contenders import conditions_of, contender_keys
from fedlit.lab.report.published import Column, Published, Row, matches
from fedlit.scores import CHOSEN_ON_TEST, SCORES, chosen_scores

LONGEST_LABEL = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The runs of one place, which differ in seed and draw alone, and the published number, as printed."""

    entries: tuple[Entry, ...] = ()
    published: str | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row: a label for each heading, a place for each column, and what it is compared with.

    contender: its method, as the labels call it; empty where nothing is compared. conditions: rows whose conditions are
    equal are compared. average: the published mean of the row, as printed.
    """

    labels: tuple[str, ...]
    places: tuple[Place, ...]
    contender: str
    conditions: tuple[str, ...]
    average: Place | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The places of a table. published: None if nothing is known of its numbers."""

    headings: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    published: Published | None
    has_average: bool = False


def make_layout(collection: Collection, published: Published | None, scores: Sequence[str]) -> Layout:
    """Return the paper's layout if runs of the collection stand in it, else a row for each setting.

    scores: those to show; none for the paper's, or for those of the data sets and the loss.

    Raises:
        UserError: a score that no run has.
    """
    check_scores(collection, scores)
    if published is not None:
        columns = [
            column
            for column in published.columns
            if (not scores or set(scores) & {*column.scores, *_bases(column.scores)})
            and any(matches(column.settings, entry.settings) for entry in collection.entries)
        ]
        asked = {name for column in columns for name in (*column.scores, *_bases(column.scores))}
        if columns and set(scores) <= asked and (layout := _as_in_paper(collection, published, columns)):
            return layout
    return _by_setting(collection, scores or default_scores(collection))


def check_scores(collection: Collection, scores: Sequence[str]) -> None:
    """Raise a UserError for a score that no run has."""
    known = known_scores(collection)
    for score in scores:
        if score not in known:
            near = get_close_matches(score, known, n=1, cutoff=0.5)
            guess = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"--score={score} is in no record of {collection.name}; {guess}Valid scores: {', '.join(known)}"
            )


def known_scores(collection: Collection) -> list[str]:
    """Return the names of all scores in the records; where there is no record yet, all there are."""
    if not any(entry.records for entry in collection.entries):
        return list(SCORES)
    found: dict[str, None] = dict.fromkeys(default_scores(collection))
    for entry in collection.entries:
        for record in entry.records[-1:]:
            names = (key.partition("/")[2] for key in record if key.startswith(("global/", "own/")))
            found |= dict.fromkeys(name for name in names if not name.endswith(("_std", "_worst")))
    return list(found)


def default_scores(collection: Collection) -> list[str]:
    """Return the scores of the runs' data sets and the loss, the main one first, those that a record has if any has."""
    configs = [entry.config for entry in collection.entries if entry.config]
    wanted = [*dict.fromkeys(score for config in configs for score in chosen_scores(config.data)), "loss"]
    keys = {key for entry in collection.entries for record in entry.records[-1:] for key in record}
    return [name for name in wanted if {f"global/{name}", f"own/{name}"} & keys] or wanted


def _bases(scores: Sequence[str]) -> list[str]:
    return [score.split("/")[0] for score in scores]


def _as_in_paper(collection: Collection, published: Published, columns: Sequence[Column]) -> Layout | None:
    """Return the paper's rows that runs belong to, then a row for every other setting.

    None if no number has runs, or if several settings would stand in one place.
    """
    groups = by_seed(collection)
    contenders = contender_keys(collection)
    lines: list[Line] = []
    for row in published.rows:
        line = _printed_line(row, published, columns, groups, contenders)
        if any(place.entries for place in line.places):
            lines.append(line)
    firsts = [
        {id(g.entries[0]) for g in groups if g.entries[0] in place.entries} for line in lines for place in line.places
    ]
    if not lines or any(len(found) > 1 for found in firsts):
        return None
    placed = {entry for found in firsts for entry in found}
    lines += _other_lines([g for g in groups if id(g.entries[0]) not in placed], published, columns, contenders)
    return Layout(
        headings=tuple(label.heading for label in published.rows_by),
        columns=tuple(columns),
        lines=tuple(lines),
        published=published,
        has_average=published.has_average and len(columns) == len(published.columns),
    )


def _printed_line(
    row: Row, published: Published, columns: Sequence[Column], groups: Sequence[Group], contenders: Sequence[str]
) -> Line:
    values = dict(zip((column.heading for column in published.columns), row.values, strict=True))
    places = []
    for column in columns:
        wanted = {**row.settings, **column.settings}
        entries = tuple(entry for group in groups if matches(wanted, group.settings) for entry in group.entries)
        doubts = tuple(published.doubts_of(row, column)) if values[column.heading] is not None else ()
        places.append(Place(entries=entries, published=values[column.heading], doubts=doubts))
    average = None
    if row.average is not None:
        average = Place(published=row.average, doubts=tuple(published.doubts_of(row, None)))
    return Line(
        labels=tuple(label.of(row.settings) for label in published.rows_by),
        places=tuple(places),
        contender=_contender(row.settings, published, contenders),
        conditions=conditions_of(row.settings, contenders),
        average=average,
    )


def _other_lines(
    groups: Sequence[Group], published: Published, columns: Sequence[Column], contenders: Sequence[str]
) -> list[Line]:
    """Return a row for all settings that the paper does not have, told apart by what names its rows."""
    rows: dict[tuple[str, ...], dict[int, Group]] = {}
    for group in groups:
        labels = tuple(label.of(group.settings) for label in published.rows_by)
        for i, column in enumerate(columns):
            if matches(column.settings, group.settings):
                rows.setdefault(labels, {})[i] = group
    lines = []
    for labels, by_column in rows.items():
        first = next(iter(by_column.values())).settings
        settings = {label.key: first[label.key] for label in published.rows_by if label.key in first}
        lines.append(
            Line(
                labels=labels,
                places=tuple(
                    Place(entries=by_column[i].entries if i in by_column else ()) for i in range(len(columns))
                ),
                contender=_contender(settings, published, contenders),
                conditions=conditions_of(settings, contenders),
            )
        )
    return lines


def _contender(settings: Mapping[str, Any], published: Published, contenders: Sequence[str]) -> str:
    return ", ".join(label.of(settings) for label in published.rows_by if label.key in contenders)


def _by_setting(collection: Collection, scores: Sequence[str]) -> Layout:
    """Return a row for each setting, those that are compared beside one another, and a column for each score."""
    groups = by_seed(collection)
    contenders = contender_keys(collection)
    keys = naming_keys(groups, bound_last(collection))
    keys = [*(key for key in keys if key not in contenders), *(key for key in keys if key in contenders)]
    columns = [Column(heading=heading(score), scores=(score,), settings={}, scale=1.0, decimals=3) for score in scores]
    lines, axes = [], list(dict.fromkeys(axis for entry in collection.entries for axis in entry.chosen))
    for group in groups:
        labels = tuple(_label(group.settings, key) for key in keys) or (collection.name,)
        lines.append(
            Line(
                labels=(*labels, *(_chosen_label(group, axis) for axis in axes)),
                places=(Place(entries=group.entries),) * len(columns),
                contender=group.label([key for key in keys if key in contenders]),
                conditions=conditions_of(group.settings, contenders),
            )
        )
    order = list(dict.fromkeys(line.conditions for line in lines))
    leaves = [key.rsplit(".", 1)[-1] for key in keys]
    headings = tuple(key if leaves.count(leaf) > 1 else leaf for key, leaf in zip(keys, leaves, strict=True))
    return Layout(
        headings=(*(headings or ("runs",)), *(f"best {axis.rsplit('.', 1)[-1]}" for axis in axes)),
        columns=tuple(columns),
        lines=tuple(sorted(lines, key=lambda line: order.index(line.conditions))),
        published=None,
    )


def heading(score: str) -> str:
    """Return what a score is called, a part of one (`accuracy/boolq`) by both names."""
    base, _, part = score.partition("/")
    stem = base.removesuffix("_macro") if base not in SCORES else base
    name = SCORES[stem].heading if stem in SCORES else stem
    return f"{name} {part}".strip() if stem == base else f"{name}, mean of groups"


def _chosen_label(group: Group, axis: str) -> str:
    """Return the value of an axis that was chosen for a row, marked where that was on the test set."""
    entry = group.entries[0]
    mark = f" {CHOSEN_ON_TEST}" if entry.chosen_note else ""
    return f"{_label(entry.chosen, axis)}{mark}" if axis in entry.chosen else ""


def _label(settings: Mapping[str, Any], key: str) -> str:
    if key not in settings:
        return ""
    text = show(settings[key])
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def bound_last(collection: Collection) -> list[str]:
    """Return the keys that vary, those last that go with the method: it names them."""
    bound = bound_keys(collection.entries)
    return [*(key for key in collection.varied if key not in bound), *bound]


def naming_keys(groups: Sequence[Group], varied: Sequence[str]) -> list[str]:
    """Return the first keys that suffice to tell all groups apart, the method among them."""
    chosen = ["method"] if "method" in varied else []
    for key in varied:
        apart = [
            len({tuple(repr(g.settings.get(k)) for k in keys) for g in groups}) for keys in (chosen, [*chosen, key])
        ]
        if key not in chosen and apart[1] > apart[0]:
            chosen.append(key)
    return chosen
