"""The scores a record may hold: how they are called, in which unit they are and which direction is better."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from fedlit.registry import registered
from fedlit.tasks.registry import task_spec

if TYPE_CHECKING:
    from torchmetrics import Metric


@dataclass(frozen=True, slots=True)
class Score:
    """How a score is shown.

    heading: in tables and over pictures. unit: of its axis. lower_is_better: only a loss.
    """

    heading: str
    unit: str
    lower_is_better: bool = False


class TaskScore(ABC):
    """A score from outside; a dataclass below it, whose fields are the options in `data.score_options`.

    tasks: the values of `data.task` that it is a score of. heading, unit: see Score; the name where heading is empty.
    of_numbers: it compares numbers (`data.regression`), not classes.
    """

    tasks: ClassVar[tuple[str, ...]]
    heading: ClassVar[str] = ""
    unit: ClassVar[str] = "score"
    lower_is_better: ClassVar[bool] = False
    of_numbers: ClassVar[bool] = False

    @abstractmethod
    def metric(self) -> Metric:
        """Return a fresh torchmetrics metric, whose `compute` returns one number.

        Its `update(predictions, references)` gets of n texts the predictions as a list of n texts and the references as
        n lists of texts; of n classes or numbers two tensors (n,). No number of processes changes a bit if its states
        are integers that are added up.
        """


class _Outside(Mapping[str, Score]):
    """The scores that were registered, as they are at the moment."""

    def __getitem__(self, name: str) -> Score:
        part = registered("score")[name]
        return Score(part.heading or name, part.unit, part.lower_is_better)

    def __iter__(self) -> Iterator[str]:
        return iter(registered("score"))

    def __len__(self) -> int:
        return len(registered("score"))


_OWN: dict[str, Score] = {
    "loss": Score("loss", "nats per token or example", lower_is_better=True),
    "rouge_l": Score("ROUGE-L", "F1"),
    "bleu_4": Score("BLEU-4", "score"),
    "rouge_l_forced": Score("ROUGE-L, teacher-forced", "F1"),
    "bleu_4_forced": Score("BLEU-4, teacher-forced", "score"),
    "bleu": Score("BLEU", "score"),
    "nist": Score("NIST", "score"),
    "meteor": Score("METEOR", "score"),
    "meteor_15": Score("METEOR 1.5", "score"),
    "cider": Score("CIDEr", "score"),
    "exact_match": Score("exact match", "share"),
    "accuracy": Score("accuracy", "share"),
    "f1_macro": Score("macro F1", "F1"),
    "f1_weighted": Score("weighted F1", "F1"),
    "f1_micro": Score("micro F1", "F1"),
    "f1": Score("F1", "F1"),
    "mcc": Score("MCC", "correlation"),
    "pearson": Score("Pearson", "correlation"),
    "spearman": Score("Spearman", "correlation"),
}
_remembered: dict[str, Score] = {}

SCORES: Mapping[str, Score] = ChainMap(_Outside(), _remembered, _OWN)  # type: ignore[arg-type]  # nobody writes to it
"""By name in the record, those from outside last, in the order in which tables show them. A name with a slash,
`accuracy/boolq`, is a part of the score before the slash."""


def described(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what a run keeps of those scores that come from outside, for readers who do not have their plugin."""
    return {name: asdict(SCORES[name]) for name in names if name in registered("score")}


def remember(content: Any) -> None:
    """Make scores known that a run kept; what is no description of a score is left out."""
    for name, entry in content.items() if isinstance(content, dict) else ():
        kinds = {"heading": str, "unit": str, "lower_is_better": bool}
        if name not in _OWN and isinstance(entry, dict) and {key: type(entry[key]) for key in entry} == kinds:
            _remembered[name] = Score(**entry)


_SUFFIXES = ("_std", "_worst")


def is_lower_better(key: str) -> bool:
    """Tell which direction of a score is better, by its name or its key in a record (`global/loss`)."""
    parts = [part.removesuffix("_worst") for part in key.split("/")]
    name = next((part for part in parts if part in SCORES), "")
    return name in SCORES and SCORES[name].lower_is_better


def number(value: Any) -> float | None:
    """Return a value of a record as a score; None if it is no finite number."""
    is_score = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_score else None


def goodness(key: str, value: Any) -> float:
    """Return a number that is greater the better a score is; what is no finite number is below all that are."""
    score = number(value)
    if score is None:
        return -math.inf
    return -score if is_lower_better(key) else score


def best_round(key: str, values: Mapping[int, Any]) -> int | None:
    """Return the best round by a score, of its values by round: the earliest of equals.

    Round 0, the untrained model, does not count, nor does what is no finite number. None if nothing is left.
    """
    counted = [round_number for round_number, value in values.items() if round_number > 0 and number(value) is not None]
    return max(counted, key=lambda round_number: (goodness(key, values[round_number]), -round_number), default=None)


class Scored(Protocol):
    """What of a data set's configuration decides on its scores."""

    task: str
    scores: list[str] | None
    regression: bool


def chosen_scores(data: Scored) -> tuple[str, ...]:
    """Return the scores of a data set, the main one first: `data.scores`, or its task's own."""
    if data.scores is not None:
        return tuple(data.scores)
    spec = task_spec(data.task)
    return spec.number_scores if data.regression else spec.default_scores


class Judged(Protocol):
    """What of an evaluation's configuration decides on the score that counts."""

    on: str
    score: str | None
    choose_on: str


def main_keys(data: Scored, evaluation: Judged) -> tuple[str, ...]:
    """Return the keys of the score that counts, which decides on a run's best round: of them the first that the run's
    records have.

    `eval.score`, or the data set's scores, of which the first may need another protocol, and then the loss; on the
    global test set or, where that is not scored, the mean over clients on their own.
    """
    place = "own" if evaluation.on == "clients" else "global"
    names = (evaluation.score,) if evaluation.score else (*chosen_scores(data), "loss")
    return tuple(f"{place}/{name}" for name in names)


def choice_keys(data: Scored, evaluation: Judged) -> tuple[str, ...]:
    """Return the keys of the score by which a round, a rate or a cell is chosen: of them the first that the run's
    records have. That on the validation set comes before that on the test set, which `eval.choose_on=test` asks for.
    """
    on_test = main_keys(data, evaluation)
    if evaluation.choose_on == "test":
        return on_test
    return (*(f"validation/{key.partition('/')[2]}" for key in on_test), *on_test)


def choice_key(data: Scored, evaluation: Judged, recorded: Container[str]) -> str | None:
    """Return the key of the score by which is chosen among those that a run's records have; None if they have none."""
    return next((key for key in choice_keys(data, evaluation) if key in recorded), None)


CHOSEN_ON_TEST = "†"
"""Stands after every round, rate and score that was chosen on the set which it is reported on."""
CHOSEN_LEGEND = f"{CHOSEN_ON_TEST}: chosen on the test set, which flatters"
"""The line below a table in which the mark stands."""


def chosen_on(key: str) -> str:
    """Return on which set a score chooses, by its key: `validation` or `test`."""
    return "validation" if key.startswith("validation/") else "test"


def chosen_mark(key: str | None) -> str:
    """Return the mark after what was chosen by the score of this key; '' where it was chosen on a validation set, or
    where nothing was chosen.
    """
    return CHOSEN_ON_TEST if key is not None and chosen_on(key) == "test" else ""


def main_key(data: Scored, evaluation: Judged, recorded: Container[str]) -> str | None:
    """Return the key of the score that counts among those that a run's records have; None if they have none."""
    return next((key for key in main_keys(data, evaluation) if key in recorded), None)


def headings(keys: Iterable[str]) -> dict[str, str]:
    """Return those keys of a record that are scores of all clients together, and what to call them, in order.

    `global/<score>` is called by its name, a part of it (`global/accuracy/boolq`) by both; `own/<score>`, the mean of
    the clients' scores on their own test parts, gets `own` before it, and its `_worst` one `worst`. What is before that
    of `validation/<score>` says so.
    """
    found = set(keys)
    result: dict[str, str] = {}
    for place, before in (("global", ""), ("own", "own "), ("validation", "validation ")):
        for name, score in SCORES.items():
            key = f"{place}/{name}"
            parts = sorted(part for part in found if part.startswith(f"{key}/") and not part.endswith(_SUFFIXES))
            candidates = {key: f"{before}{score.heading}"}
            if f"{name}_macro" not in SCORES:  # as macro F1 is
                candidates[f"{key}_macro"] = f"{before}{score.heading}, mean of groups"
            candidates |= {part: f"{before}{score.heading} {part.removeprefix(f'{key}/')}" for part in parts}
            candidates[f"{key}_worst"] = f"worst {score.heading}"
            result.update({candidate: heading for candidate, heading in candidates.items() if candidate in found})
    return result
