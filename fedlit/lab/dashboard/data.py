"""What the page shows, as plain values: read off a collection of runs once, drawn by the page's own script."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedlit.lab.analysis.collection import Collection, Entry, Group, bound_keys, by_seed
from fedlit.lab.analysis.costs import COSTS
from fedlit.lab.analysis.draws import counted, repeat_of, several_draws
from fedlit.lab.analysis.slots import slots
from fedlit.lab.dashboard.claims import Drawn, drawn_claims
from fedlit.lab.dashboard.clients import RunClients, client_curves
from fedlit.lab.dashboard.colours import shades
from fedlit.lab.dashboard.options import Options, differing_options
from fedlit.lab.dashboard.rates import Rate, best_rates
from fedlit.lab.dashboard.samples import Samples, samples_of
from fedlit.lab.dashboard.series import (
    Column,
    Curve,
    Outcome,
    Points,
    costs,
    curve,
    outcome,
    points_of,
    score_name,
    scored_rounds,
)
from fedlit.lab.dashboard.shards import LabelledData, label_distributions
from fedlit.lab.report.layout import bound_last
from fedlit.lab.report.over_draws.claims import Claims
from fedlit.lab.report.published import load_published, scales_of
from fedlit.lab.sweeps.cells import STALE
from fedlit.scores import CHOSEN_LEGEND, SCORES, choice_key, chosen_mark, headings, is_lower_better, main_key
from fedlit.store.status import STATES

GROUPS_OF_OPTIONS = ("method", "data", "model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Factor:
    """What tells groups apart: one key, or the method together with options that not every method has.

    slots: of each value, the look of its line (`fedlit.lab.analysis.slots`).
    """

    name: str
    values: list[str]
    slots: list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A score or a cost: how it is called and its unit."""

    key: str
    heading: str
    unit: str
    lower_is_better: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupData:
    """Runs that differ in seed and draw alone.

    values: the index of its value of every factor. scale: its data set; panels of one data set share their scales.
    main: index of its main score; None before its first record. mark: beside what is best where it was chosen on the
    test set. costs, curves: by key, at `rounds`. last, best:
    by key, of the seeds that are done, or of all if none is.
    """

    values: list[int]
    scale: str
    main: int | None
    mark: str
    num_seeds: int
    num_done: int
    rounds: list[int]
    costs: dict[str, Column]
    curves: dict[str, Curve]
    last: dict[str, Outcome]
    best: dict[str, Outcome]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLine:
    """One run or missing cell in the list. rounds: `3 of 50`, blank if nothing tells."""

    name: str
    folder: str
    state: str
    reason: str
    rounds: str
    job: str
    log: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PageData:
    """All of the page but its tables.

    states: how many runs are in each, none left out that has any. facts: pairs of a name and its values, for the head.
    legend: what the mark of some groups says, '' where none has it. repeat: what repeats a setting, `seed`, or `run`
    where draws are an axis too. claims: charts of the statistics over draws.
    """

    name: str
    states: list[tuple[str, int]]
    facts: list[tuple[str, str]]
    warnings: list[str]
    runs: list[RunLine]
    factors: list[Factor]
    scores: list[Axis]
    costs: list[Axis]
    groups: list[GroupData]
    labels: list[LabelledData]
    clients: list[RunClients]
    options: Options
    rates: list[Rate]
    shades: list[dict[str, str]]
    samples: Samples
    legend: str
    repeat: str
    claims: Drawn


def page_data(collection: Collection, claims: Claims | None = None) -> PageData:
    """Return what the page shows of a collection and its statistics; cells without a run and runs without a record
    included.
    """
    groups, scales = by_seed(collection), scales_of(load_published(collection.name))
    points = {entry.folder: points_of(entry, scales) for entry in collection.entries}
    keys = headings({key for rounds in points.values() for values in rounds.values() for key in values})
    mains = [_main_score(group, keys) for group in groups]
    # The main scores first; the others in the order of the tables.
    ordered = [*dict.fromkeys(main for main in mains if main), *(key for key in keys if key not in mains)]
    runs = [run_line(entry) for entry in collection.entries]
    states = Counter(run.state for run in runs)
    factors, values = _factors(groups, collection)
    told = [name for name in COSTS if any(f"cost/{name}" in v for rounds in points.values() for v in rounds.values())]
    records = (record for entry in collection.entries for record in entry.records)
    group_data = [
        _group_data(group, [points[entry.folder] for entry in group.entries], own_values, ordered, main)
        for group, own_values, main in zip(groups, values, mains, strict=True)
    ]
    protocols = _distinct(str(record["eval/protocol"]) for record in records if "eval/protocol" in record)
    return PageData(
        name=collection.name,
        states=[(state, states[state]) for state in ("done", STALE, *STATES[:-1], "unknown") if states[state]],
        facts=_facts(collection, groups, protocols),
        warnings=_warnings(collection, protocols),
        runs=runs,
        factors=factors,
        scores=[_score_axis(key, keys[key], scales) for key in ordered],
        costs=[Axis(key=name, heading=COSTS[name].heading, unit=COSTS[name].unit) for name in told],
        groups=group_data,
        labels=label_distributions(collection.entries),
        clients=client_curves(collection.entries, scales),
        options=differing_options(collection.entries),
        rates=best_rates(collection.entries),
        shades=shades(),
        samples=samples_of(collection.entries),
        legend=CHOSEN_LEGEND if any(group.mark for group in group_data) else "",
        repeat="run" if several_draws(collection.entries) else "seed",
        claims=drawn_claims(claims),
    )


def run_line(entry: Entry) -> RunLine:
    """Return how a run stands; one without a status.json is judged by its record."""
    status = entry.status
    finished = max((int(record["round"]) for record in entry.records), default=status.num_finished_rounds)
    total = status.num_rounds or (entry.config.num_rounds if entry.config else None)
    state, reason = status.state, status.reason
    if state == "pending" and entry.records:
        state = "done" if finished == total else "unknown"
        reason = reason or ("" if state == "done" else "its folder has no status.json")
    rounds = f"{finished} of {total}" if total is not None else ""
    return RunLine(
        name=entry.name,
        folder=str(entry.folder),
        state=state,
        reason=reason,
        rounds=rounds,
        job=" on ".join(part for part in (status.job, status.host) if part),
        log=status.log or "",
    )


def _group_data(
    group: Group, seeds: Sequence[Points], values: list[int], keys: Sequence[str], main: str | None
) -> GroupData:
    rounds = scored_rounds(seeds, keys)
    curves = {key: found for key in keys if (found := curve(seeds, rounds, key))}
    is_done = [run_line(entry).state == "done" for entry in group.entries]
    # A run on its way is no result, unless there is no other: as in the table.
    compared = [points for points, done in zip(seeds, is_done, strict=True) if done] or seeds
    chooser = _choice_key(group)
    by_validation = chooser if chooser is not None and not chosen_mark(chooser) else None
    best = {key: outcome(compared, key, best=True, chosen_by=by_validation) for key in keys}
    last = {key: outcome(compared, key) for key in keys}
    configs = [entry.config for entry in group.entries if entry.config]
    data = group.settings.get("data", group.settings.get("data.name"))
    return GroupData(
        values=values,
        scale=str(data or (configs[0].data.name if configs else "")),
        main=keys.index(main) if main else None,
        mark=chosen_mark(chooser),
        num_seeds=len(group.entries),
        num_done=sum(is_done),
        rounds=rounds,
        costs=costs(seeds, rounds),
        curves=curves,
        last={key: found for key, found in last.items() if found},
        best={key: found for key, found in best.items() if found},
    )


def _choice_key(group: Group) -> str | None:
    """Return the key of the score that chooses the rounds of a group; None without any."""
    config = next((entry.config for entry in group.entries if entry.config), None)
    recorded = {key for entry in group.entries for record in entry.records for key in record}
    return choice_key(config.data, config.eval, recorded) if config else None


def _main_score(group: Group, keys: Mapping[str, str]) -> str | None:
    """Return the key of the score that counts in a group, or of the first that its records have; None without any."""
    recorded = {key for entry in group.entries for record in entry.records for key in record} & keys.keys()
    config = next((entry.config for entry in group.entries if entry.config), None)
    counts = main_key(config.data, config.eval, recorded) if config else None
    return counts or next((key for key in keys if key in recorded), None)


def _score_axis(key: str, heading: str, scales: Mapping[str, float]) -> Axis:
    """Return the axis of a score; a `_worst` one and one of a part have the unit of their score."""
    name = key.split("/")[1].removesuffix("_worst")
    score = SCORES.get(name) or SCORES[name.removesuffix("_macro")]
    scale = scales.get(score_name(key), 1.0)
    unit = score.unit if scale == 1.0 else f"{score.unit} × {scale:g}"
    return Axis(key=key, heading=heading, unit=unit, lower_is_better=is_lower_better(key))


def _factors(groups: Sequence[Group], collection: Collection) -> tuple[list[Factor], list[list[int]]]:
    """Return what the groups differ in, the factor of the lines' colours first, and each group's values.

    Keys that say nothing new, such as the number of rounds that goes with a model, are left out. Options that some
    methods do not have belong to the method: a panel of their values would hold nothing to compare with.
    """
    first = [key for key in GROUPS_OF_OPTIONS if key in collection.varied]
    kept: list[str] = []
    num_told_apart = 1
    bound = bound_keys(collection.entries)
    for key in [*first, *(key for key in bound_last(collection) if key not in first)]:
        num = len({repr([group.settings.get(name) for name in (*kept, key)]) for group in groups})
        if num > num_told_apart:
            kept.append(key)
            num_told_apart = num
    own = [key for key in kept if key.startswith("method.") and any(key not in group.settings for group in groups)]
    lines = [key for key in kept if key == "method" or key in (*own, *bound)]
    others = [[key] for key in kept if key not in lines]
    # Without methods to compare, what is neither data nor model makes the lines.
    bundles = [lines, *others] if lines else sorted(others, key=lambda keys: keys[0] in GROUPS_OF_OPTIONS)
    if not bundles:
        return [_factor("method", [_only_label(groups, collection)])], [[0] for _ in groups]
    labels = [[_label(group, keys) for group in groups] for keys in bundles]
    factors = [
        _factor(keys[0].rsplit(".", maxsplit=1)[-1], _distinct(texts))
        for keys, texts in zip(bundles, labels, strict=True)
    ]
    values = [
        [factor.values.index(texts[i]) for factor, texts in zip(factors, labels, strict=True)]
        for i in range(len(groups))
    ]
    return factors, values


def _factor(name: str, values: list[str]) -> Factor:
    return Factor(name=name, values=values, slots=slots(values))


def _label(group: Group, keys: Sequence[str]) -> str:
    """Return a group's value of a factor, a dash if it has none of the keys."""
    if list(keys) == ["num_clients"] and "num_clients" in group.settings:
        return f"{group.settings['num_clients']} clients"
    return group.label(keys) or "–"


def _only_label(groups: Sequence[Group], collection: Collection) -> str:
    """Return what to call the one group there is: its method, if anything tells it."""
    configs = [entry.config for group in groups for entry in group.entries if entry.config]
    return str(groups[0].settings.get("method", configs[0].method.name if configs else collection.name))


def _facts(collection: Collection, groups: Sequence[Group], protocols: Sequence[str]) -> list[tuple[str, str]]:
    configs = [entry.config for entry in collection.entries if entry.config]
    repeats = [[repeat_of(entry) for entry in group.entries] for group in groups]
    is_drawn = several_draws(collection.entries)
    pairs = [
        ("data", ", ".join(_distinct(config.data.name for config in configs))),
        ("model", ", ".join(_distinct(config.model.name for config in configs))),
        ("clients", ", ".join(_distinct(str(config.num_clients) for config in configs))),
        ("repeated", counted(repeats)) if is_drawn else ("seeds", str(max(map(len, repeats)))),
        ("evaluated by", ", ".join(protocols)),
    ]
    return [(name, text) for name, text in pairs if text]


def _warnings(collection: Collection, protocols: Sequence[str]) -> list[str]:
    """Return what a reader must know before comparing."""
    found = []
    if len(protocols) > 1:
        found.append(
            f"The runs are evaluated by different protocols ({', '.join(protocols)}): their scores do not compare."
        )
    if not any(entry.records for entry in collection.entries):
        found.append("No run has finished a round yet: there is nothing to draw.")
    return found


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
