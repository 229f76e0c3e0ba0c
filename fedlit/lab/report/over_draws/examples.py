"""How far a score lies by the test examples it was taken on, beside how far it lies by the draw.

Of one draw: the standard error over its test examples, each the mean over the draw's seeds; two methods are paired
example by example. That of a loss by tokens, a ratio of two sums, is of its linear form (W. Cochran, "Sampling
Techniques", 1977, ch. 6): with L the loss, an example with the sum s over n tokens stands for L + (s - L n) / mean(n),
whose mean is L. Scores that are no mean over examples (BLEU,
macro F1) and means over clients on rows of their own have no such error.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlit.lab.report.over_draws.scores import Run, Scores, in_order
from fedlit.statistics.examples import ExampleError, over_examples, paired_over_examples
from fedlit.store import example_scores

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped]

TOLERANCE = 1e-6
"""By how much the mean of the examples may differ from the score of the record, as a part of it."""

ByExample = Mapping[str, float]
"""Scores of one run, or means over the seeds of one draw, by the name of the example, in the unit of the table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Error:
    """One method, or `first - second` of two, in one score under one condition.

    second: empty of one method. num_draws: those whose examples are known. num_examples: of a draw, the fewest.
    mean: over draws. std_error: over the examples of one draw, the root mean square over draws; None with one example.
    std_draws: the sample deviation of the same numbers over draws; None with one draw.
    """

    score: str
    condition: str
    first: str
    second: str
    num_draws: int
    num_examples: int
    mean: float
    std_error: float | None
    std_draws: float | None


def example_errors(all_scores: Sequence[Scores]) -> list[Error]:
    """Return the errors of every method and of every two, of those whose scores of single examples are kept."""
    frames: dict[Path, DataFrame | None] = {}
    errors: list[Error] = []
    for scores in all_scores:
        known = {name: _by_draw(draws, scores.scale, frames) for name, draws in scores.runs.items()}
        for name, draws in known.items():
            if draws:
                found = [over_examples(list(examples.values())) for _, examples in draws.items()]
                errors.append(error_of(scores, name, "", found))
        for first, second in itertools.combinations((name for name, draws in known.items() if draws), 2):
            both = [draw for draw in known[first] if draw in known[second]]
            pairs = [paired_over_examples(known[first][draw], known[second][draw]) for draw in both]
            if paired := [pair for pair in pairs if pair is not None]:
                errors.append(error_of(scores, first, second, paired))
    return errors


def error_of(scores: Scores, first: str, second: str, found: Sequence[ExampleError]) -> Error:
    """Return the error of a method, or of two with `second`, from that of each draw."""
    means, errors = [each.mean for each in found], [each.std_error for each in found if each.std_error is not None]
    return Error(
        score=scores.score,
        condition=scores.condition,
        first=first,
        second=second,
        num_draws=len(found),
        num_examples=min(each.num_examples for each in found),
        mean=statistics.fmean(means),
        std_error=math.sqrt(statistics.fmean(error**2 for error in errors)) if errors else None,
        std_draws=statistics.stdev(means) if len(means) > 1 else None,
    )


def _by_draw(
    draws: Mapping[Any, Mapping[Any, Run]], scale: float, frames: "dict[Path, DataFrame | None]"
) -> dict[Any, ByExample]:
    """Return of every draw the means over its seeds, of the examples that all its seeds have."""
    found: dict[Any, ByExample] = {}
    for draw in in_order(draws):
        runs = [by_example(run, scale, frames) for run in draws[draw].values()]
        names = set.intersection(*(set(run) for run in runs))
        if names:
            found[draw] = {name: statistics.fmean(run[name] for run in runs) for name in sorted(names)}
    return found


def by_example(run: Run, scale: float, frames: "dict[Path, DataFrame | None]") -> ByExample:
    """Return a run's scores by example; empty where none are kept or the score is no mean of them."""
    place, _, score = run.value.key.partition("/")
    frame = _frame(run.entry.folder, run.value.number, frames)
    if frame is None:
        return {}
    rows = frame[frame["set"] == place]
    values = _column(rows, score)
    if values is None or values.isna().any() or not len(values):
        return {}
    means = values.groupby(rows["example"]).mean()
    if not math.isclose(float(means.mean()), run.value.value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        return {}
    return {str(name): scale * float(value) for name, value in means.items()}


def _column(rows: "DataFrame", score: str) -> Any:
    """Return what each row stands for in the mean that is the score; None if it is no such mean."""
    if score in rows:
        return rows[score].astype("float64")
    if not {f"{score}_sum", f"{score}_count"} <= set(rows):
        return None
    models = rows["client"].fillna(-1)  # the one model, or those of the clients, each with a loss of its own
    sums, counts = rows[f"{score}_sum"].astype("float64"), rows[f"{score}_count"].astype("float64")
    totals, sizes = sums.groupby(models).transform("sum"), counts.groupby(models).transform("sum")
    loss = totals / sizes
    return loss + (sums - loss * counts) / counts.groupby(models).transform("mean")


def _frame(folder: Path, number: int, frames: "dict[Path, DataFrame | None]") -> "DataFrame | None":
    path = example_scores.path_of(folder, number)
    if path not in frames:
        known = number in example_scores.rounds(folder)
        frames[path] = example_scores.read(folder, number) if known else None
    return frames[path]
