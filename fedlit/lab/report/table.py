"""The table of a collection: our cells, mean ± sample standard deviation over seeds, each beside the published number.

A published number has columns or rows of its own and never stands in the place of ours: a run that is missing is a
dash, one that is not done is marked. The best of ours among rows that are compared is marked; published numbers and
cells that are not complete take no part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlit.config import CONFIG_DIR
from fedlit.lab.analysis.collection import Collection
from fedlit.lab.report.cells import Cell, Footnotes, Measures, all_columns, measure_all, our_cells, published_cells
from fedlit.lab.report.contenders import contender_keys
from fedlit.lab.report.departures import departures
from fedlit.lab.report.layout import Layout, make_layout
from fedlit.lab.report.notes import caption_of, notes_of
from fedlit.lab.report.published import load_published
from fedlit.lab.report.versions import compare_versions
from fedlit.scores import is_lower_better

WIDEST = 3
"""Columns of scores beside which the published ones have columns of their own; beyond, they have rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table as plain texts.

    caption: what it shows, a sentence or several. heads: of all columns, the first `num_labels` of which name a row.
    cells: a tuple for each row. breaks: numbers of the rows, from 0, before which other conditions begin. notes: below
    it; those that begin with a mark and a colon are footnotes.
    """

    caption: str
    heads: tuple[str, ...]
    num_labels: int
    cells: tuple[tuple[Cell, ...], ...]
    breaks: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> list[list[str]]:
        """The cells as texts, footnote marks after them: `0.320 ± 0.011 [a]`."""
        return [[" ".join([cell.text, *(f"[{mark}]" for mark in cell.marks)]) for cell in row] for row in self.cells]


def build_table(
    collection: Collection, scores: Sequence[str] = (), which: str = "last", config_dir: Path = CONFIG_DIR
) -> Table:
    """Return the table of a collection, in the paper's layout if configs/published has one for a sweep of this name.

    scores: those to show; none for the paper's, or those of the data sets. which: after the `last` round, or in the
    `best` one.

    Raises:
        UserError: a score that no run has.
    """
    layout = make_layout(collection, load_published(collection.name, config_dir), scores)
    warnings = departures(collection, config_dir) if layout.published else []
    return table_of(collection, layout, measure_all(layout, which), which, warnings)


def table_of(
    collection: Collection, layout: Layout, measures: Measures, which: str, warnings: Sequence[str] = ()
) -> Table:
    """Return the table of places and of what their runs reached; `warnings` are the first of its notes."""
    footnotes = Footnotes()
    versions = compare_versions(layout, measures)
    ours = our_cells(layout, measures, footnotes, versions.comparable, versions.remarks)
    heads, rows = (_alone if layout.published is None else _beside)(layout, ours, footnotes)
    breaks = [i for i, line in enumerate(layout.lines) if i and line.conditions != layout.lines[i - 1].conditions]
    rows_per_line = len(rows) // len(layout.lines)
    return Table(
        caption=caption_of(collection, layout, measures, which),
        heads=heads,
        num_labels=len(layout.headings) + (rows_per_line > 1),
        cells=tuple(rows),
        breaks=tuple(rows_per_line * i for i in breaks),
        notes=(
            *warnings,
            *versions.warnings,
            *notes_of(collection, layout, measures, which, contender_keys(collection)),
            *versions.notes,
            *footnotes.lines(),
        ),
    )


Rows = tuple[tuple[str, ...], list[tuple[Cell, ...]]]
"""Heads and cells."""


def _alone(layout: Layout, ours: Sequence[Sequence[Cell]], _: Footnotes) -> Rows:
    """Return ours without published numbers."""
    arrows = [f"{column.heading} {'↓' if is_lower_better(column.scores[0]) else '↑'}" for column in layout.columns]
    rows = [(*_labels(layout, i), *cells) for i, cells in enumerate(ours)]
    return (*layout.headings, *arrows), rows


def _beside(layout: Layout, ours: Sequence[Sequence[Cell]], footnotes: Footnotes) -> Rows:
    """Return ours and the published numbers, in columns by turns if there is room for that, else in rows by turns."""
    headings = [column.heading for column in all_columns(layout)]
    theirs = [published_cells(line, layout, footnotes) for line in layout.lines]
    if len(headings) <= WIDEST:
        heads = [head for heading in headings for head in (heading, f"{heading}, published")]
        turns = [[c for pair in zip(*both, strict=True) for c in pair] for both in zip(ours, theirs, strict=True)]
        return (*layout.headings, *heads), [(*_labels(layout, i), *cells) for i, cells in enumerate(turns)]
    rows: list[tuple[Cell, ...]] = []
    for i, (mine, printed) in enumerate(zip(ours, theirs, strict=True)):
        rows.append((*_labels(layout, i), Cell("ours"), *mine))
        rows.append((*_labels(layout, i), Cell("published", published=True), *printed))
    return (*layout.headings, "", *headings), rows


def _labels(layout: Layout, i: int) -> list[Cell]:
    return [Cell(text) for text in layout.lines[i].labels]
