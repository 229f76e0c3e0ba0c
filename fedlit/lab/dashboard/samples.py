"""Answers to single examples for the page: runs side by side, a few rounds of each, so that a page stays small."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fedlit.lab.analysis.collection import Entry
from fedlit.store.samples import read_samples

MAX_ROUNDS = 6
"""Rounds of a run on the page: the first, the last and some between."""
MAX_CHARACTERS = 3_000_000
"""Of all texts on the page; runs have fewer rounds, and the last ones none, where there would be more."""
MAX_TEXT_CHARACTERS = 800


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownExample:
    """One example of a set, with its right answers."""

    set_name: str
    prompt: str
    references: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a run's model answered; `client` is whose model it was or whose part the example is of."""

    example: int
    text: str
    client: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledRun:
    """A run's answers, a list for each of its rounds."""

    name: str
    rounds: list[int]
    answers: list[list[Answer]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Examples, each once, and the runs that answered them. left_out: runs for which there is no room."""

    examples: list[ShownExample]
    runs: list[SampledRun]
    left_out: int = 0


def samples_of(entries: Iterable[Entry]) -> Samples:
    """Return what the page shows of the samples that runs have kept; no runs where none has any."""
    lines = {entry.name: found for entry in entries if (found := read_samples(entry.folder))}
    for num_rounds in range(MAX_ROUNDS, 0, -1):
        shown = _shown(lines, num_rounds)
        if _size(shown) <= MAX_CHARACTERS:
            return shown
    kept = dict(lines)
    while kept and _size(shown := _shown(kept, 1)) > MAX_CHARACTERS:
        kept.popitem()
    return Samples(examples=shown.examples, runs=shown.runs, left_out=len(lines) - len(kept))


def _shown(lines: dict[str, list[dict[str, Any]]], num_rounds: int) -> Samples:
    places: dict[tuple[str, str], int] = {}
    examples: list[ShownExample] = []
    runs = []
    for name, found in lines.items():
        rounds = spread(sorted({line["round"] for line in found}), num_rounds)
        answers: list[list[Answer]] = []
        for number in rounds:
            answers.append([])
            for line in found:
                if line["round"] != number:
                    continue
                key = (str(line.get("set")), str(line.get("example")))
                if key not in places:
                    places[key] = len(examples)
                    examples.append(_example(line))
                client = line.get("client")
                text = middle_cut(str(line.get("prediction", "")))
                answers[-1].append(
                    Answer(example=places[key], text=text, client=client if isinstance(client, int) else None)
                )
        runs.append(SampledRun(name=name, rounds=rounds, answers=answers))
    return Samples(examples=examples, runs=runs)


def _example(line: dict[str, Any]) -> ShownExample:
    references = line.get("references")
    return ShownExample(
        set_name=str(line.get("set")),
        prompt=middle_cut(str(line.get("prompt", ""))),
        references=[middle_cut(str(text)) for text in references[:5]] if isinstance(references, list) else [],
    )


def spread(rounds: Sequence[int], num: int) -> list[int]:
    """Return at most `num` of some rounds, evenly spread, the last and, of several, the first among them."""
    if len(rounds) <= num:
        return list(rounds)
    if num == 1:
        return [rounds[-1]]
    return [rounds[place * (len(rounds) - 1) // (num - 1)] for place in range(num)]


def middle_cut(text: str) -> str:
    """Return a text without its middle where it is long: a question stands at its end."""
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    head = MAX_TEXT_CHARACTERS // 3
    return f"{text[:head]} [...] {text[head - MAX_TEXT_CHARACTERS :]}"


def _size(shown: Samples) -> int:
    examples = sum(len(each.prompt) + sum(map(len, each.references)) for each in shown.examples)
    return examples + sum(len(answer.text) + 40 for run in shown.runs for part in run.answers for answer in part)
