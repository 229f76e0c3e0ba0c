"""What one run, or the runs of one setting, reached in one score: after the last round, or the best.

The best round is the run's own, by `eval.score` or the data set's main score, on its validation set where it has one:
every score is then read in that one round, rather than each at its own maximum.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlit.lab.analysis.collection import Entry
from fedlit.lab.analysis.draws import Repeat, of_draws, repeat_of, words
from fedlit.scores import choice_key, chosen_mark, chosen_scores, number
from fedlit.store.records import best_record, trained
from fedlit.store.task_version import TaskVersion

ROUNDS = ("last", "best")
PLACES = ("global", "own")
"""The global test set, or the mean over clients on their own test parts: the first that a record has is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """One score of one run.

    key: in the record, `global/rouge_l`. number: of the round, from 1. protocol: of generated answers and the like;
    None for a classification. of_models: whether it is the mean over clients' own models. chosen_by: key of the score
    that chose the round; None of the last round. version: None where it is not known. run: its folder.
    """

    value: float
    key: str
    number: int
    protocol: str | None
    of_models: bool
    chosen_by: str | None = None
    version: TaskVersion | None = None
    run: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One score of the runs that differ in seed and draw alone.

    values: by seed, or by `Repeat` where draws are an axis, of the runs that are done; of the unfinished ones where
    none is. num_expected: runs that there
    should be. final: whether `values` are of runs that are done. remark: what is missing and why, in words; empty if
    nothing is, or if no run has begun.
    """

    values: Mapping[Any, Value]
    num_expected: int
    final: bool
    remark: str

    @property
    def of_draws(self) -> list[float]:
        """The mean over seeds of every draw; the seeds where there is one draw."""
        return of_draws({repeat: value.value for repeat, value in self.values.items()})

    @property
    def mean(self) -> float | None:
        """Over the draws, each the mean over its seeds; None without any."""
        return statistics.fmean(self.of_draws) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the draws, over the seeds of a single one; None with fewer than two."""
        return statistics.stdev(self.of_draws) if len(self.of_draws) > 1 else None

    @property
    def complete(self) -> bool:
        """Whether every run that should be there is done and has a value."""
        return self.final and len(self.values) == self.num_expected


def is_done(entry: Entry) -> bool:
    """Tell whether a run has ended as it should."""
    return entry.status.state == "done"


def progress(entry: Entry) -> str:
    """Return how a run stands, in words: `running, round 3 of 8`."""
    state = entry.status.state.replace("_", " ")
    if is_done(entry) or not entry.records:
        return state
    total = "" if entry.config is None else f" of {entry.config.num_rounds}"
    return f"{state}, round {entry.records[-1]['round']}{total}"


def deciding_key(entry: Entry) -> str | None:
    """Return the key of the score that decides on the run's best round; None if no round has one."""
    if entry.config is None:
        return None
    recorded = {key for record in trained(entry.records) for key in record}
    return choice_key(entry.config.data, entry.config.eval, recorded)


def value_of(entry: Entry, scores: Sequence[str], which: str) -> Value | None:
    """Return the first of alternative scores that a run has, after its last or in its best round.

    None if it has none of them after training, or if the value is not a finite number.
    """
    records, decider = trained(entry.records), None
    for key in (f"{place}/{score}" for score in scores for place in PLACES):
        found = [record for record in records if key in record]
        if which == "best" and found:
            decider = deciding_key(entry)
            # With a validation set the test set need not be scored in every round; it is in the one that was chosen.
            judged = found if chosen_mark(decider) else records
            best = best_record(judged, decider) if decider else None
            found = [] if best is None or key not in best else [best]
        if found:
            record = found[-1]
            score_value = number(record[key])
            if score_value is None:
                return None
            return Value(
                value=score_value,
                key=key,
                number=record["round"],
                protocol=record.get("eval/protocol"),
                of_models=key.startswith("global/") and f"{key}_std" in record,
                chosen_by=decider,
                version=entry.version,
                run=str(entry.folder),
            )
    return None


def measure(entries: Sequence[Entry], scores: Sequence[str], which: str) -> Measure:
    """Return what runs that differ in seed and draw alone reached in the first of alternative scores that they have."""
    values = {repeat_of(entry): value_of(entry, scores, which) for entry in entries}
    done = {repeat_of(entry) for entry in entries if is_done(entry)}
    final = {seed: value for seed, value in values.items() if value is not None and seed in done}
    shown = final or {seed: value for seed, value in values.items() if value is not None}
    missing = [entry for entry in entries if repeat_of(entry) not in final]
    return Measure(
        values=shown,
        num_expected=len(entries),
        final=bool(final),
        remark=_remark(missing, scores, len(entries)) if _is_told(missing, scores, len(entries)) else "",
    )


def _is_told(missing: Sequence[Entry], scores: Sequence[str], num_expected: int) -> bool:
    """Tell whether missing runs need a word: not if none of them has begun, nor if their data set has no such score."""
    begun = [
        entry for entry in missing if (entry.records or entry.status.state != "pending") and _is_expected(entry, scores)
    ]
    return bool(missing) and (bool(begun) or len(missing) < num_expected)


def _is_expected(entry: Entry, scores: Sequence[str]) -> bool:
    if entry.config is None:
        return True
    return bool({score.split("/")[0] for score in scores} & {*chosen_scores(entry.config.data), "loss"})


def _remark(missing: Sequence[Entry], scores: Sequence[str], num_expected: int) -> str:
    states = {repeat_of(entry): _why_missing(entry, scores) for entry in missing}
    if len(missing) == num_expected and len(set(states.values())) == 1:
        return next(iter(states.values()))
    parts = [f"{words(repeat)}: {state}" for repeat, state in states.items()]
    what = "runs" if any(isinstance(repeat, Repeat) for repeat in states) else "seeds"
    return "; ".join([f"{num_expected - len(missing)} of {num_expected} {what}", *parts])


def _why_missing(entry: Entry, scores: Sequence[str]) -> str:
    if not is_done(entry):
        return progress(entry)
    keys = {f"{place}/{score}" for place in PLACES for score in scores}
    return (
        "not a finite number" if any(keys & record.keys() for record in trained(entry.records)) else "not in the record"
    )
