"""The best value of an axis, a learning rate mostly, of runs that are equal in everything else.

Chosen by the mean over draws and seeds of the score by which a run's round is chosen too
(`fedlit.scores.choice_keys`): on the validation set, or on the test set where there is no other or
`eval.choose_on=test` asks for it. The runs of the chosen value are then read in that same round, so that choice and
test score belong together.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedlit.config.keys import DRAW, REPEATS, SEED, nearest, show
from fedlit.config.record import flat_values
from fedlit.errors import UserError
from fedlit.lab.analysis import draws
from fedlit.lab.analysis.collection import Collection, Entry, varied_keys
from fedlit.lab.analysis.draws import repeat_of
from fedlit.scores import CHOSEN_ON_TEST, choice_keys, goodness, number
from fedlit.store.records import Record, best_record, trained

TEST, VALIDATION = "test", "validation"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One value of the axes: the mean of its runs' scores, None unless every seed has one; remark: what is missing."""

    values: Mapping[str, Any]
    entries: tuple[Entry, ...]
    score: float | None
    remark: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """What is best for runs that differ in these axes, seed and draw alone.

    settings: what they have in common. values: the chosen one of every axis; empty where nothing can be chosen yet.
    score: its mean over seeds and draws, of `key` in the records. chosen_on: `validation`, or `test`. rounds: of the
    chosen runs in which the score was read, by seed. entries: the chosen runs; of a group without a choice all.
    candidates: in the order of the axis. remark: what could not take part and why; empty if nothing.
    """

    settings: Mapping[str, Any]
    values: Mapping[str, Any]
    score: float | None
    key: str | None
    chosen_on: str
    rounds: Mapping[Any, int]
    entries: tuple[Entry, ...]
    candidates: tuple[Candidate, ...]
    remark: str

    @property
    def value(self) -> Any:
        """Return the chosen value of a single axis; None where nothing could be chosen."""
        return next(iter(self.values.values()), None)


def best_over(entries: Sequence[Entry], axes: str | Sequence[str], which: str = "best") -> list[Best]:
    """Return the best values of axes, for each group of runs that are equal in everything else, in their order.

    A value takes part if its run of every seed of the group is done and has the score; of equals the first counts.

    Args:
        entries: runs, and cells without one.
        axes: keys of their settings, or one; of several a combination is chosen.
        which: the score is that of each run's `best` round, or of its `last`.

    Raises:
        UserError: an axis in which no two of them differ.
    """
    keys = (axes,) if isinstance(axes, str) else tuple(axes)
    _require_axes(entries, keys)
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(_word(entry.settings, (*keys, *REPEATS)), []).append(entry)
    order = _order(entries, keys)
    return [_best(group, keys, order, which) for group in groups.values()]


def at_best(collection: Collection, axes: Sequence[str], which: str = "best") -> tuple[Collection, list[Best]]:
    """Return a collection with the runs of the chosen values alone, which `Entry.chosen` tells and `settings` do not
    any more, and what was chosen. A group without a choice has its cells without their runs.

    Raises:
        UserError: as `best_over`.
    """
    found = best_over(collection.entries, axes, which)
    entries = [entry for best in found for entry in _shown(best, axes)]
    notes = [*collection.notes, *_told(found, axes)]
    kept = replace(collection, entries=tuple(entries), varied=varied_keys(entries), notes=tuple(notes))
    return kept, found


def chosen_score(entry: Entry, key: str, which: str = "best") -> tuple[int, float] | None:
    """Return the round of a run in which a score is read, and the score; None without a finite one."""
    records = trained(entry.records)
    scored: list[Record] = [record for record in records if key in record]
    record = best_record(scored, key) if which == "best" else next(iter(scored[::-1]), None)
    value = None if record is None else number(record[key])
    return None if record is None or value is None else (record["round"], value)


def _require_axes(entries: Sequence[Entry], axes: Sequence[str]) -> None:
    if not axes:
        raise UserError("best names no axis; give the key of one, such as local.lr")
    for axis in axes:
        values = {repr(entry.settings[axis]) for entry in entries if axis in entry.settings}
        if axis in REPEATS or len(values) < 2:
            known = [key for key in varied_keys(entries) if key not in axes]
            over = {SEED: "seeds", DRAW: "draws"}.get(axis)
            what = f"is the mean over {over} already" if over else "has not two values in these runs"
            near = nearest(axis, known) if known else "."
            raise UserError(f"--best={axis} {what}{near} Keys that vary: {', '.join(known) or 'none'}")


def _best(group: Sequence[Entry], axes: Sequence[str], order: Mapping[str, int], which: str) -> Best:
    by_value: dict[str, list[Entry]] = {}
    for entry in group:
        by_value.setdefault(_word(_values(entry, axes)), []).append(entry)
    key = _key(group)
    seeds = list(dict.fromkeys(repeat_of(entry) for entry in group))
    candidates = [
        _candidate(by_value[word], axes, seeds, key, which) for word in sorted(by_value, key=lambda word: order[word])
    ]
    scored = [candidate for candidate in candidates if candidate.score is not None]
    # The first of equals: max keeps it.
    chosen = max(scored, key=lambda candidate: goodness(key or "", candidate.score), default=None)
    missing = [f"{words(each.values)}: {each.remark}" for each in candidates if each.remark]
    common = {name: value for name, value in group[0].settings.items() if name not in (*axes, *REPEATS)}
    reached = {repeat_of(entry): chosen_score(entry, key, which) for entry in chosen.entries} if chosen and key else {}
    return Best(
        settings=common,
        values={} if chosen is None else chosen.values,
        score=None if chosen is None else chosen.score,
        key=key,
        chosen_on=VALIDATION if key is not None and "validation" in key.partition("/")[0] else TEST,
        rounds={seed: found[0] for seed, found in reached.items() if found is not None},
        entries=tuple(group) if chosen is None else chosen.entries,
        candidates=tuple(candidates),
        remark="; ".join(missing),
    )


def _candidate(
    entries: Sequence[Entry], axes: Sequence[str], seeds: Sequence[Any], key: str | None, which: str
) -> Candidate:
    scores: dict[Any, float] = {}
    missing: dict[Any, str] = dict.fromkeys(seeds, "no run")
    for entry in entries:
        seed, found = repeat_of(entry), None if key is None else chosen_score(entry, key, which)
        if entry.status.state != "done":
            missing[seed] = entry.status.state.replace("_", " ")
        elif found is None:
            missing[seed] = "no score to choose by" if key is None else f"no {key}"
        else:
            scores[seed] = found[1]
            missing.pop(seed, None)
    return Candidate(
        values=_values(entries[0], axes),
        entries=tuple(entries),
        score=statistics.fmean(scores.values()) if scores and not missing else None,
        remark=_missing(missing, len(seeds)),
    )


def _missing(missing: Mapping[Any, str], num_seeds: int) -> str:
    """Return `seed 1 failed`; what all seeds have in common once."""
    if len(missing) == num_seeds and len(set(missing.values())) == 1:
        return next(iter(missing.values()))
    return ", ".join(f"{draws.words(repeat)} {why}" for repeat, why in missing.items())


def _key(group: Sequence[Entry]) -> str | None:
    """Return the key of the score that decides: the first of those to choose by that a run which is done has."""
    done = [entry for entry in group if entry.status.state == "done" and entry.config is not None]
    recorded = {key for entry in done for record in trained(entry.records) for key in record}
    wanted = (
        key
        for entry in done[:1]
        if entry.config is not None
        for key in choice_keys(entry.config.data, entry.config.eval)
    )
    return next((key for key in wanted if key in recorded), None)


def _values(entry: Entry, axes: Sequence[str]) -> dict[str, Any]:
    """Return a run's values of the axes; where its cell names none, those of its configuration."""
    missing = [axis for axis in axes if axis not in entry.settings]
    others = flat_values(entry.config) if missing and entry.config is not None else {}
    return {axis: entry.settings.get(axis, others.get(axis)) for axis in axes}


def _order(entries: Sequence[Entry], axes: Sequence[str]) -> dict[str, int]:
    """Return the place of every value among the runs, in the order of the sweep."""
    words = dict.fromkeys(_word(_values(entry, axes)) for entry in entries)
    return {word: place for place, word in enumerate(words)}


def _word(settings: Mapping[str, Any], without: Sequence[str] = ()) -> str:
    return repr(sorted((key, repr(value)) for key, value in settings.items() if key not in without))


def words(values: Mapping[str, Any]) -> str:
    """Return chosen values as a person reads them: `lr 0.01, steps 4`."""
    return ", ".join(f"{axis.rsplit('.', maxsplit=1)[-1]} {show(value)}" for axis, value in values.items())


def _shown(best: Best, axes: Sequence[str]) -> list[Entry]:
    """Return the chosen runs of a group; without a choice a cell for each seed, of which nothing is known."""
    if best.values:
        note = "" if best.chosen_on == VALIDATION else "on the test set"
        return [_without(entry, axes, dict(best.values), note) for entry in best.entries]
    first = {repeat_of(entry): entry for entry in reversed(best.entries)}
    return [
        replace(_without(entry, axes, {}, ""), config=None, records=(), partition=None)
        for entry in [*first.values()][::-1]
    ]


def _without(entry: Entry, axes: Sequence[str], chosen: Mapping[str, Any], note: str) -> Entry:
    settings = {key: value for key, value in entry.settings.items() if key not in axes}
    return replace(entry, settings=settings, chosen=chosen, chosen_note=note)


def _told(found: Sequence[Best], axes: Sequence[str]) -> list[str]:
    """Return lines on how was chosen, and what did not take part."""
    names = " and ".join(axes)
    keys = dict.fromkeys(best.key for best in found if best.values and best.key)
    runs = max(([repeat_of(entry) for entry in best.entries] for best in found if best.values), key=len, default=[])
    over = f", mean over {draws.counted([runs])}" if len(runs) > 1 else ""
    lines = [f"{names}: the best of each row by {' and '.join(keys)}{over}"] if keys else []
    if any(best.values and best.chosen_on == TEST for best in found):
        fact = f"{names} is chosen on the test set ({CHOSEN_ON_TEST}), which flatters"
        lines.append(f"{fact}; give a validation set to choose on")
    missing = [best for best in found if best.remark]
    for best in missing[:3]:
        label = words(best.settings) or "all"
        what = "took no part" if best.values else "nothing is chosen"
        lines.append(f"{names}, {label}: {what} ({best.remark})")
    if len(missing) > 3:
        lines.append(f"{names}: values took no part in {len(missing) - 3} more rows")
    return lines
