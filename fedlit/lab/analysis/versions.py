"""Which runs a score may be compared between: those whose task versions are equal in all that matters for the score.

How much a part of the protocol matters depends on the score. Under another tokenizer a loss per token is another
quantity, and ROUGE of a generated answer is not: two models may stand in one column of ROUGE. A method is compared with
another one on one model, and there the tokenizer is the same, or something is wrong.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from fedlit.scores import SCORES
from fedlit.store.task_version import TaskVersion, shown

UNKNOWN, KNOWN = "unknown", "known, unlike most"
"""What departs where one version is known and the other is not."""
ROWS = {"global": "test rows", "own": "test rows", "validation": "validation rows"}
"""What the rows of a set are called."""
WARNING = "Warning: task versions differ"
MOST_SHOWN = 3
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


def other_rows(judged: Sequence[Judged]) -> list[tuple[str, ...]]:
    """Return for each of several scores of one draw what its rows are called if they are others than most have; nothing
    where they are the same or not known.
    """
    found = [None if each.version is None else each.version.rows.get(each.key.split("/")[0]) for each in judged]
    counts = Counter(rows for rows in found if rows is not None)
    usual = max(counts, key=lambda rows: counts[rows], default=None)
    return [
        (ROWS[each.key.split("/")[0]],) if rows is not None and rows != usual else ()
        for each, rows in zip(judged, found, strict=True)
    ]


def words_of(parts: Collection[str]) -> str:
    """Return what a footnote says of a score that departs in these parts; nothing for none."""
    rows = [name for name in parts if name in ROWS.values()]
    others = [name for name in parts if name not in (*rows, UNKNOWN, KNOWN)]
    told = [f"another task version ({', '.join(others)})"] if others else []
    told += [f"task version {name}" for name in (UNKNOWN, KNOWN) if name in parts]
    return ", ".join([*told, *(f"other {name}" for name in rows)])


def warning_of(headings: Sequence[str], parts: Collection[str]) -> str:
    """Return the line above a table in which cells of these columns depart."""
    return (
        f"{WARNING} in {', '.join(headings)} ({', '.join(parts)}): cells that depart are marked, and neither bold nor "
        "a test goes across versions."
    )


def told_versions(versions: Sequence[TaskVersion | None]) -> list[str]:
    """Return lines about the versions of a table's runs; none without runs."""
    known = [version for version in versions if version is not None]
    lines = [_told(known)] if known else []
    if num_unknown := len(versions) - len(known):
        which = f"{num_unknown} of {len(versions)} runs" if known else "all runs"
        lines.append(f"Task version unknown: {which}, begun by an older fedlit.")
    return lines


def _told(known: Sequence[TaskVersion]) -> str:
    protocols = Counter(shown(version.protocol) for version in known)
    text = f"Task version {next(iter(protocols))}"
    if len(protocols) > 1:
        first = [f"{name} ({num} runs)" for name, num in protocols.most_common(MOST_SHOWN)]
        text = f"Task versions {', '.join(first)}{' and others' if len(protocols) > MOST_SHOWN else ''}"
    rows = list(dict.fromkeys(shown(version.all_rows) for version in known))
    return f"{text}; test rows {', '.join(rows) if len(rows) <= MOST_SHOWN else f'{len(rows)} sets'}."


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
