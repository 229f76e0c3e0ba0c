"""The scores of a table by contender, draw and seed: what all statistics are computed from."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlit.lab.analysis.collection import Entry
from fedlit.lab.analysis.draws import draw_of, repeat_of
from fedlit.lab.report.cells import Measures
from fedlit.lab.report.layout import Layout, Line
from fedlit.lab.report.measures import Value
from fedlit.lab.report.published import Column
from fedlit.scores import goodness, is_lower_better


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run that is done: its score in the unit of the table, and where that was read."""

    score: float
    entry: Entry
    value: Value


Draws = Mapping[Any, Mapping[Any, Run]]
"""Runs of one contender by draw, then by seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """One score under one condition: what is compared.

    score: as its column is called. key: the score's name in the records. condition: what the rows of the table have in
    common, in words; empty where there is one. scale: what the table has for a score of 1. runs: by contender, in the
    order of the table. own_seeds: every draw has a seed of its own, so that the two cannot be told apart.
    """

    score: str
    key: str
    condition: str
    scale: float
    runs: Mapping[str, Draws]
    own_seeds: bool

    @property
    def draws(self) -> list[Any]:
        """All draws that a contender has, sorted."""
        return in_order({draw for draws in self.runs.values() for draw in draws})

    @property
    def lower_is_better(self) -> bool:
        """Which direction is better."""
        return is_lower_better(self.key)

    def mean(self, contender: str) -> float:
        """Return a contender's mean over its draws, each the mean over its seeds."""
        return statistics.fmean(self.by_draw(contender).values())

    def by_draw(self, contender: str) -> dict[Any, float]:
        """Return a contender's mean over seeds on each of its draws."""
        draws = self.runs[contender]
        return {draw: statistics.fmean(run.score for run in draws[draw].values()) for draw in in_order(draws)}

    def ranking(self) -> list[str]:
        """Return the contenders from the best mean to the worst; equals in the order of the table."""
        return sorted(self.runs, key=lambda contender: -goodness(self.key, self.mean(contender)))

    def best(self) -> str:
        """Return the contender with the best mean; of equals the first."""
        return self.ranking()[0]

    def common_seeds(self, draw: Any) -> list[Any]:
        """Return the seeds that every contender has on a draw, sorted."""
        return in_order(set.intersection(*(set(draws.get(draw, {})) for draws in self.runs.values())))

    def pairs(self, first: str, second: str) -> dict[Any, tuple[float, float]]:
        """Return by draw the means of two contenders over the seeds that both have on it."""
        one, other = self.runs[first], self.runs[second]
        found = {}
        for draw in in_order(one.keys() & other.keys()):
            if seeds := one[draw].keys() & other[draw].keys():
                means = [statistics.fmean(runs[seed].score for seed in seeds) for runs in (one[draw], other[draw])]
                found[draw] = (means[0], means[1])
        return found

    def differences(self, first: str, second: str) -> dict[Any, float]:
        """Return `first - second` by draw, of those that both have."""
        return {draw: one - other for draw, (one, other) in self.pairs(first, second).items()}


def in_order(keys: Any) -> list[Any]:
    """Return draws or seeds by number, others after them by their text."""
    return sorted(keys, key=lambda key: (not isinstance(key, int), key if isinstance(key, int) else 0, str(key)))


def scores_of(layout: Layout, measures: Measures) -> list[Scores]:
    """Return every score of a table under every condition that two contenders or more meet under."""
    shared = _shared_conditions(layout.lines)
    found = []
    for j, column in enumerate(layout.columns):
        for conditions in dict.fromkeys(line.conditions for line in layout.lines):
            rows = [i for i, line in enumerate(layout.lines) if line.conditions == conditions and line.contender]
            runs = {}
            for i in rows:
                draws = _runs(layout.lines[i].places[j].entries, measures[i][j].values, column)
                if measures[i][j].final and draws:
                    runs[layout.lines[i].contender] = draws
            if len(runs) > 1:
                words = ", ".join(_words(text) for text in conditions if text not in shared)
                found.append(_scores(column, words, runs))
    return found


def _scores(column: Column, condition: str, runs: Mapping[str, Draws]) -> Scores:
    all_draws = [draws for each in runs.values() for draws in each.items()]
    own = all(set(seeds) == {draw} for draw, seeds in all_draws)
    return Scores(
        score=column.heading, key=column.scores[0], condition=condition, scale=column.scale, runs=runs, own_seeds=own
    )


def _runs(entries: Sequence[Entry], values: Mapping[Any, Value], column: Column) -> Draws:
    draws: dict[Any, dict[Any, Run]] = {}
    for entry in entries:
        value = values.get(repeat_of(entry))
        if value is not None:
            run = Run(score=column.scale * value.value, entry=entry, value=value)
            draws.setdefault(draw_of(entry), {})[entry.settings.get("seed")] = run
    return draws


def _shared_conditions(lines: Sequence[Line]) -> set[str]:
    """Return the conditions that all rows have, which tell nothing apart."""
    every = [set(line.conditions) for line in lines]
    return set.intersection(*every) if every else set()


def _words(condition: str) -> str:
    """Return `data medquad` of `data='medquad'`."""
    key, _, value = condition.partition("=")
    return f"{key.rsplit('.', maxsplit=1)[-1]} {value.strip(chr(39))}"
