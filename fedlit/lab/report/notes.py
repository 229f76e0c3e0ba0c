"""What a reader must know beside the table: round, protocol, unit, seeds, what is bold, what is missing."""

from collections import Counter
from collections.abc import Sequence

from fedlit.lab.analysis.collection import Collection
from fedlit.lab.analysis.draws import counted
from fedlit.lab.report.cells import Measures, all_columns, protocols
from fedlit.lab.report.layout import Layout
from fedlit.lab.report.measures import Measure, Value, deciding_key, is_done

_PROTOCOLS = {
    "generate": "generated answers (generate)",
    "teacher_forced": "argmax over the reference itself (teacher_forced), which says little about generated answers",
    "options": "the likeliest of the valid answers (options)",
}


def caption_of(collection: Collection, layout: Layout, measures: Measures, which: str) -> str:
    """Return what the table shows, in a few sentences."""
    parts = [f"{collection.name}: {_round_words(collection, which)}"]
    if protocol := ", and ".join(_PROTOCOLS.get(name, name) for name in sorted(_all_protocols(measures))):
        parts.append(f"Scores of {protocol}")
    parts.append(_seed_words([found for row in measures for found in row]))
    if layout.published is not None:
        parts.append(f"Published: {layout.published.paper}, {layout.published.table}")
    return ". ".join(part for part in parts if part) + "."


def notes_of(
    collection: Collection, layout: Layout, measures: Measures, which: str, contenders: Sequence[str]
) -> list[str]:
    """Return the notes below the table, without the footnotes."""
    values = [value for row in measures for found in row for value in found.values.values()]
    notes = [*_warnings(layout, measures, which)]
    if contenders and len(layout.lines) > 1:
        what = " and ".join(dict.fromkeys(key.split(".")[0] for key in contenders))
        notes.append(
            f"Bold: the best of ours of each column, of those that are done, among rows that differ in {what} only."
        )
    notes += _unit_notes(layout)
    notes += _place_notes(values)
    if layout.published is not None:
        notes += layout.published.notes
    if any(found.mean is None for row in measures for found in row):
        notes.append("–: no value of ours yet, or no published one.")
    return [*notes, *_state_notes(collection), *collection.notes]


def _round_words(collection: Collection, which: str) -> str:
    if which == "last":
        return "after the last round"
    keys = Counter(key for entry in collection.entries if (key := deciding_key(entry)))
    return f"in each run's best round by {', '.join(keys) or 'its main score'}"


def _all_protocols(measures: Measures) -> set[str]:
    return protocols([found for row in measures for found in row])


def _seed_words(found: Sequence[Measure]) -> str:
    most = max((len(measured.values) for measured in found), default=0)
    if most <= 1:
        return "One seed" if most else ""
    repeats = [list(measured.values) for measured in found]
    return f"Ours: mean ± sample standard deviation over {counted(repeats)}"


def _warnings(layout: Layout, measures: Measures, which: str) -> list[str]:
    """Return what makes numbers that stand beside one another not comparable."""
    lines = []
    for j, column in enumerate(all_columns(layout)):
        if len(found := protocols([row[j] for row in measures])) > 1:
            lines.append(f"Warning: {column.heading} mixes scores of {' and '.join(sorted(found))}.")
    published = layout.published
    if published is None:
        return lines
    found = _all_protocols(measures) - {published.protocol}
    if published.protocol and found:
        lines.append(f"Warning: ours are of {' and '.join(sorted(found))}, the published ones {published.protocol}.")
    if which not in published.rounds:
        rounds = " or ".join(published.rounds)
        lines.append(f"Warning: ours are of the {which} round, the published ones of the {rounds} (--round={rounds}).")
    return lines


def _unit_notes(layout: Layout) -> list[str]:
    by_scale: dict[float, list[str]] = {}
    for column in layout.columns:
        by_scale.setdefault(column.scale, []).append(column.heading)
    if set(by_scale) == {1.0}:
        return []
    if len(by_scale) == 1:
        return [f"Ours are given in the paper's unit: times {next(iter(by_scale)):g}."]
    parts = [f"{', '.join(names)} times {scale:g}" for scale, names in by_scale.items() if scale != 1.0]
    return [f"Ours are given in the paper's units: {'; '.join(parts)}; the others as they are."]


def _place_notes(values: Sequence[Value]) -> list[str]:
    notes = []
    own = sorted({value.key.partition("/")[2] for value in values if value.key.startswith("own/")})
    if own and all(value.key.startswith("own/") for value in values):
        notes.append("Means over clients, each on its own test rows.")
    elif own:
        notes.append(f"Where the global test set was not scored, means over clients on their own test rows: {own}.")
    if any(value.of_models for value in values):
        notes.append("Of methods whose clients keep tensors: the mean over the clients' models on the global test set.")
    return notes


def _state_notes(collection: Collection) -> list[str]:
    """Return how many runs are not done."""
    undone = [entry for entry in collection.entries if not is_done(entry)]
    if not undone:
        return []
    states = Counter(entry.status.state for entry in undone)
    words = ", ".join(f"{num} {state.replace('_', ' ')}" for state, num in states.items())
    return [f"{len(undone)} of {len(collection.entries)} runs are not done: {words}."]
