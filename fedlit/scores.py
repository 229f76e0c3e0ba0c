"""The scores a record may hold: how they are called, in which unit they are and which direction is better."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Score:
    """How a score is shown.

    heading: in tables and over pictures. unit: of its axis. lower_is_better: only a loss.
    """

    heading: str
    unit: str
    lower_is_better: bool = False


SCORES: Mapping[str, Score] = {
    "loss": Score("loss", "nats per token or example", lower_is_better=True),
    "rouge_l": Score("ROUGE-L", "F1"),
    "bleu_4": Score("BLEU-4", "score"),
    "bleu": Score("BLEU", "score"),
    "nist": Score("NIST", "score"),
    "meteor": Score("METEOR", "score"),
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
"""By name in the record, in the order in which tables show them. A name with a slash, `accuracy/boolq`, is a part of
the score before the slash."""

TASK_SCORES: Mapping[str, tuple[str, ...]] = {
    "causal_lm": ("rouge_l", "bleu_4", "bleu", "nist", "meteor", "cider", "exact_match", "accuracy"),
    "sequence_classification": (
        "accuracy",
        "f1_macro",
        "f1_weighted",
        "f1_micro",
        "f1",
        "mcc",
        "pearson",
        "spearman",
    ),
    "image_classification": ("f1_macro", "f1_weighted", "f1_micro", "accuracy", "mcc"),
}
"""The scores that `data.scores` may name, by task."""

DEFAULT_SCORES: Mapping[str, tuple[str, ...]] = {
    "causal_lm": ("rouge_l", "bleu_4"),
    "sequence_classification": ("accuracy", "f1_macro"),
    "image_classification": ("f1_macro", "accuracy"),
}
"""The scores of a data set that names none, the main one first; of a regression `pearson` and `spearman`."""

_SUFFIXES = ("_std", "_worst")


def is_lower_better(key: str) -> bool:
    """Tell which direction of a score is better, by its name or its key in a record (`global/loss`)."""
    parts = [part.removesuffix("_worst") for part in key.split("/")]
    name = next((part for part in parts if part in SCORES), "")
    return name in SCORES and SCORES[name].lower_is_better


class Scored(Protocol):
    """What of a data set's configuration decides on its scores."""

    task: str
    scores: list[str] | None
    regression: bool


def chosen_scores(data: Scored) -> tuple[str, ...]:
    """Return the scores of a data set, the main one first: `data.scores`, or its task's own."""
    if data.scores is not None:
        return tuple(data.scores)
    return ("pearson", "spearman") if data.regression else DEFAULT_SCORES[data.task]


def headings(keys: Iterable[str]) -> dict[str, str]:
    """Return those keys of a record that are scores of all clients together, and what to call them, in order.

    `global/<score>` is called by its name, a part of it (`global/accuracy/boolq`) by both; `own/<score>`, the mean of
    the clients' scores on their own test parts, gets `own` before it, and its `_worst` one `worst`.
    """
    found = set(keys)
    result: dict[str, str] = {}
    for place, before in (("global", ""), ("own", "own ")):
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
