"""Which runs a score may be compared between: those whose task versions are equal in all that matters for the score.

How much a part of the protocol matters depends on the score. Under another tokenizer a loss per token is another
quantity, and ROUGE of a generated answer is not: two models may stand in one column of ROUGE. A method is compared with
another one on one model, and there the tokenizer is the same, or something is wrong.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from fedlit.scores import SCORES
from fedlit.store.task_version import TaskVersion

UNKNOWN, KNOWN = "unknown", "known, unlike most"
"""What departs where one version is known and the other is not."""
ROWS = {"global": "test rows", "own": "test rows", "validation": "validation rows"}
"""What the rows of a set are called."""
_OF_ANSWERS = ("max_new_tokens", "decoding")
_OF_A_MODEL = ("tokenizer", "image")


class Matters(IntEnum):
    """How much a part of the protocol matters for a score: not at all, between methods on one model, or everywhere."""

    NEVER = 0
    ON_ONE_MODEL = 1
    ALWAYS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One score of a run. key: in the record, `global/loss`. protocol: `eval/protocol` of its record; None for classes.
    version: None where it is not known.
    """

    key: str
    protocol: str | None
    version: TaskVersion | None


def matters(part: str, key: str, protocol: str | None) -> Matters:
    """Return how much a part matters for the score of a record's key; of parts that nobody here knows, everywhere."""
    score = key.split("/")[1] if "/" in key else key
    score = score if score in SCORES else score.removesuffix("_macro")
    of_answer = protocol is not None and score != "loss"
    if part.startswith("metrics/"):
        return Matters.ALWAYS if part == f"metrics/{score}" else Matters.NEVER
    if part == "protocol":
        return Matters.ALWAYS if of_answer else Matters.NEVER
    if part in _OF_ANSWERS:
        return Matters.ALWAYS if of_answer and protocol == "generate" else Matters.NEVER
    if part in _OF_A_MODEL:
        by_tokens = part == "tokenizer" and protocol is not None and (score == "loss" or protocol == "teacher_forced")
        return Matters.ALWAYS if by_tokens else Matters.ON_ONE_MODEL
    return Matters.ALWAYS


def departures(judged: Sequence[Judged], *, across_models: bool) -> list[tuple[str, ...]]:
    """Return for each of several scores of one kind the parts in which it departs from most of them; none for most.

    across_models: a part that belongs to a model may differ. A version that is not known departs where most are known,
    and the other way round; of two equally frequent ones the first counts, and a known one before.
    """
    least = Matters.ALWAYS if across_models else Matters.ON_ONE_MODEL
    told = [_relevant(each, least) for each in judged]
    counts = Counter(None if parts is None else tuple(sorted(parts.items())) for parts in told)
    most = max(counts, key=lambda found: (counts[found], found is not None), default=None)
    usual = None if most is None else dict(most)
    return [_differing(parts, usual) for parts in told]


def other_rows(judged: Sequence[Judged]) -> list[bool]:
    """Tell of each of several scores of one draw whether it is of other rows than most; what is not known is not."""
    found = [None if each.version is None else each.version.rows.get(each.key.split("/")[0]) for each in judged]
    counts = Counter(rows for rows in found if rows is not None)
    usual = max(counts, key=lambda rows: counts[rows], default=None)
    return [rows is not None and rows != usual for rows in found]


def _relevant(judged: Judged, least: Matters) -> Mapping[str, str] | None:
    if judged.version is None:
        return None
    parts = judged.version.parts
    return {part: parts[part] for part in parts if matters(part, judged.key, judged.protocol) >= least}


def _differing(parts: Mapping[str, str] | None, usual: Mapping[str, str] | None) -> tuple[str, ...]:
    if parts is None or usual is None:
        return () if parts is usual else (UNKNOWN,) if parts is None else (KNOWN,)
    names = [name for name in sorted({**usual, **parts}) if parts.get(name) != usual.get(name)]
    both = [name for name in names if name in parts and name in usual]
    return tuple(both or names)  # what one protocol alone has goes without saying
