"""What stands in the places of a table: ours with deviation and best, the published as printed, and the footnotes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fedlit.lab.analysis.best_axis import words as chosen_words
from fedlit.lab.report.layout import Layout, Line
from fedlit.lab.report.measures import Measure, measure
from fedlit.lab.report.published import Column
from fedlit.scores import CHOSEN_LEGEND, CHOSEN_ON_TEST, chosen_mark, goodness

MISSING = "–"
_DAGGERS = "‡§¶‖"

Measures = Sequence[Sequence[Measure]]
"""Of every line of a layout, those of its columns; the last is the mean of the others if the layout has one."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in one place: plain text, the marks of its footnotes, whether it is the best, whether published."""

    text: str
    marks: tuple[str, ...] = ()
    best: bool = False
    published: bool = False


@dataclass(slots=True)
class Footnotes:
    """Notes and the marks that refer to them: letters for ours, daggers for the published, and one mark for what was
    chosen on the test set.
    """

    on_test: bool = False
    letters: dict[str, str] = field(default_factory=dict)
    daggers: dict[str, str] = field(default_factory=dict)

    def ours(self, note: str) -> str:
        """Return the mark of a note about one of our cells: a to z, aa, ab, ..."""
        i = len(self.letters)
        return self.letters.setdefault(note, f"{chr(96 + i // 26) if i >= 26 else ''}{chr(97 + i % 26)}")

    def published(self, note: str) -> str:
        """Return the mark of a note about a published number."""
        i = len(self.daggers)
        return self.daggers.setdefault(note, _DAGGERS[i % len(_DAGGERS)] * (1 + i // len(_DAGGERS)))

    def chosen(self, found: Measure) -> tuple[str, ...]:
        """Return the mark of a value in a round that was chosen on the test set, nothing for others."""
        marks = {mark for value in found.values.values() if (mark := chosen_mark(value.chosen_by))}
        self.on_test = self.on_test or bool(marks)
        return tuple(marks)

    def lines(self) -> list[str]:
        """Return all of them, each after its mark."""
        chosen = [CHOSEN_LEGEND] if self.on_test else []
        return chosen + [f"{mark}: {note}" for note, mark in [*self.daggers.items(), *self.letters.items()]]


def all_columns(layout: Layout) -> tuple[Column, ...]:
    """Return the columns of numbers, the mean of the others last if there is one."""
    if not layout.has_average:
        return layout.columns
    decimals = layout.columns[0].decimals
    return (*layout.columns, Column(heading="mean", scores=("mean",), settings={}, scale=1.0, decimals=decimals))


def measure_all(layout: Layout, which: str) -> Measures:
    """Return what the runs of every place reached after the `last` round or in the `best`."""
    rows = []
    for line in layout.lines:
        row = [measure(p.entries, c.scores, which) for p, c in zip(line.places, layout.columns, strict=True)]
        rows.append([*row, mean_of(row, layout.columns)] if layout.has_average else row)
    return rows


def mean_of(row: Sequence[Measure], columns: Sequence[Column]) -> Measure:
    """Return the mean over a row's columns by seed and draw, in the table's unit, of those that every column has.

    Without a value as long as a column has none: a mean of fewer columns is another quantity.
    """
    seeds = [seed for seed in row[0].values if all(seed in found.values for found in row)]
    values = {}
    for seed in seeds:
        parts = [found.values[seed].value * column.scale for found, column in zip(row, columns, strict=True)]
        values[seed] = replace(row[0].values[seed], value=sum(parts) / len(parts))
    remarks = dict.fromkeys(found.remark for found in row if found.remark)
    return Measure(
        values=values,
        num_expected=max(found.num_expected for found in row),
        final=all(found.final for found in row),
        remark="of cells that are not complete" if remarks and values else "",
    )


def our_cells(
    layout: Layout, measures: Measures, footnotes: Footnotes, compared: Measures, remarks: Sequence[Sequence[str]]
) -> list[list[Cell]]:
    """Return our cells of every line; the best are found among the values that are `compared`, and a remark on a cell
    is a footnote.
    """
    columns = all_columns(layout)
    usual = [usual_protocol([row[j] for row in measures]) for j in range(len(columns))]
    best = [best_means(layout.lines, [row[j] for row in compared], column) for j, column in enumerate(columns)]
    cells: list[list[Cell]] = []
    for i, (line, row) in enumerate(zip(layout.lines, measures, strict=True)):
        cells.append([])
        for j, (found, column) in enumerate(zip(row, columns, strict=True)):
            text = printed(found, column)
            others = protocols([found]) - {usual[j]}
            notes = [found.remark, f"answers by {', '.join(sorted(others))}" if others else "", remarks[i][j]]
            marks = (*footnotes.chosen(found), *(footnotes.ours(note) for note in notes if note))
            is_best = compared[i][j].complete and best[j].get(line.conditions) == mean_text(found, column)
            cells[-1].append(Cell(text, (*marks, *_choice(line, j, layout, footnotes)), best=is_best))
    return cells


def _choice(line: Line, j: int, layout: Layout, footnotes: Footnotes) -> tuple[str, ...]:
    """Return the mark of what was chosen for a cell, in the paper's layout, where a row has no place for it."""
    if layout.published is None or j >= len(line.places):
        return ()
    entries = [entry for entry in line.places[j].entries if entry.chosen][:1]
    marks = [f" {CHOSEN_ON_TEST}" if entry.chosen_note else "" for entry in entries]
    return tuple(footnotes.ours(chosen_words(e.chosen) + mark) for e, mark in zip(entries, marks, strict=True))


def published_cells(line: Line, layout: Layout, footnotes: Footnotes) -> list[Cell]:
    """Return the published numbers of a line as printed, a dash for none."""
    places = [*line.places, line.average] if layout.has_average else line.places
    cells = []
    for place in places:
        if place is None or place.published is None:
            cells.append(Cell(MISSING, published=True))
        else:
            marks = tuple(footnotes.published(note) for note in place.doubts)
            cells.append(Cell(place.published, marks, published=True))
    return cells


def printed(found: Measure, column: Column) -> str:
    """Return `mean ± std` in the table's unit, without the deviation where there is one run only."""
    if found.std is None:
        return mean_text(found, column)
    return f"{mean_text(found, column)} ± {_number(found.std, column)}"


def mean_text(found: Measure, column: Column) -> str:
    """Return the mean over seeds and draws in the table's unit, a dash without any."""
    return MISSING if found.mean is None else _number(found.mean, column)


def _number(value: float, column: Column) -> str:
    text = f"{column.scale * value:.{column.decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def best_means(lines: Sequence[Line], found: Sequence[Measure], column: Column) -> dict[tuple[str, ...], str]:
    """Return by conditions the best mean of a column as it is printed; none where all that are complete look alike."""
    texts: dict[tuple[str, ...], set[str]] = {}
    for line, measured in zip(lines, found, strict=True):
        if measured.complete:
            texts.setdefault(line.conditions, set()).add(mean_text(measured, column))
    return {
        conditions: max(several, key=lambda text: goodness(column.scores[0], float(text)))
        for conditions, several in texts.items()
        if len(several) > 1
    }


def protocols(found: Sequence[Measure]) -> set[str]:
    """Return how the answers of some measures came about."""
    return {value.protocol for measured in found for value in measured.values.values() if value.protocol}


def usual_protocol(found: Sequence[Measure]) -> str | None:
    """Return the protocol of most runs of a column, None if it has none."""
    counts = Counter(value.protocol for measured in found for value in measured.values.values() if value.protocol)
    return counts.most_common(1)[0][0] if counts else None
