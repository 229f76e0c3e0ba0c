"""What is kept of single examples of an evaluation: every one's scores, and the answers to a few.

An example is known by its content, so that it is called the same in every round, in every run with the same rows and
however they were dealt. Which answers are kept depends on those names and the seed of the draw alone: the examples of
the lowest of some random numbers that belong to their names. A larger set or a smaller one has as many of them in
common as it can, and processes need not ask one another which they are to keep.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torchmetrics import Metric

from fedlit.config import RunConfig
from fedlit.metrics.noting import start_noting, take_notes
from fedlit.partition.shards import draw_seed
from fedlit.process import communication
from fedlit.seeding import stream_seed
from fedlit.tasks import ExampleT, Sample

NUM_ID_DIGITS = 16
SETS = ("global", "own", "validation")
"""In the order in which they stand in the files."""

Columns = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Known:
    """An example of a set that is scored. rank: a random number, of those alone that may be kept as samples."""

    name: str
    position: int
    rank: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What an evaluation leaves of single examples: the lines of samples.jsonl but for their round, and the columns of
    the table of scores.
    """

    samples: list[dict[str, Any]]
    scores: Columns


@dataclass(kw_only=True)
class KeptExamples:
    """Collects on every process, and gives it all to the first.

    num_samples: answers of each set that are kept. with_scores: every example's scores are. seed: of the draw.
    """

    num_samples: int
    with_scores: bool
    seed: int
    _known: dict[int, Known] = field(default_factory=dict)
    _examples: list[Any] = field(default_factory=list)
    _samples: list[tuple[int, int, dict[str, Any]]] = field(default_factory=list)
    _blocks: list[Columns] = field(default_factory=list)

    def know(
        self, examples: Sequence[ExampleT], chosen: Sequence[ExampleT], identity: Callable[[ExampleT], str | None]
    ) -> None:
        """Take up a set, of whose examples those that are `chosen` will be scored: the very same objects."""
        scored = {id(example) for example in chosen}
        names = example_names([identity(example) for example in examples])
        ranks = {
            place: stream_seed(self.seed, f"samples/{name}")
            for place, name in enumerate(names)
            if id(examples[place]) in scored
        }
        lowest = set(sorted(ranks, key=lambda place: (ranks[place], place))[: self.num_samples])
        for place, rank in ranks.items():
            self._known[id(examples[place])] = Known(names[place], place, rank if place in lowest else None)
        self._examples.extend(chosen)  # kept alive, since they are known by their identity

    def begin(
        self, set_name: str, client_id: int | None, metrics: Mapping[str, Metric]
    ) -> Callable[[Sequence[Any], Sequence[Sample]], None]:
        """Return what takes up each batch of a set and its answers, once `metrics` are updated with them.

        client_id: whose part or model it is, None of the one model on the set of nobody.
        """
        if self.with_scores:
            start_noting(metrics.items())

        def keep(batch: Sequence[Any], answered: Sequence[Sample]) -> None:
            notes = take_notes(metrics.values(), len(batch))
            known = [found for example in batch if (found := self._known.get(id(example))) is not None]
            if not len(batch) == len(answered) == len(known):  # a task from outside that answers otherwise
                return
            for each, sample in zip(known, answered, strict=True):
                if each.rank is not None:
                    line = _line(set_name, client_id, each, sample)
                    self._samples.append((each.rank, self._client_rank(each, client_id), line))
            if self.with_scores:
                self._blocks.append(_columns(set_name, client_id, known, answered) | notes)

        return keep

    def _client_rank(self, each: Known, client_id: int | None) -> int:
        """Return by what one of several models' answers to an example is chosen."""
        return 0 if client_id is None else stream_seed(self.seed, f"samples/{each.name}", client_id=client_id)

    def gathered(self) -> Kept | None:
        """Return what all processes have kept since the last time, the same on each; None if there is nothing."""
        mine = (_lowest(self._samples, self.num_samples), _joined(self._blocks))
        self._samples, self._blocks = [], []
        parts = communication.gather_objects(mine)
        samples = _lowest([line for lines, _ in parts for line in lines], self.num_samples)
        scores = _joined([columns for _, columns in parts if columns])
        if not samples and not scores:
            return None
        lines = sorted((line for _, _, line in samples), key=lambda line: _order(*_place(line)))
        return Kept(samples=lines, scores=_sorted(scores))


NUM_SAMPLES_KEPT = 8
"""Where `logging.samples_kept` is null."""


def hides_rows(config: RunConfig) -> bool:
    """Tell whether no text of a row is shown: the rows are what privacy hides, and nobody has asked for any."""
    return config.privacy.unit == "example" and config.logging.samples_kept is None


def num_samples_kept(config: RunConfig) -> int:
    """Return how many examples of an evaluation are kept with their texts."""
    if hides_rows(config):
        return 0
    return NUM_SAMPLES_KEPT if config.logging.samples_kept is None else config.logging.samples_kept


def kept_examples(config: RunConfig) -> KeptExamples | None:
    """Return what collects for a configuration; None if it asks for nothing of the kind."""
    num_samples, with_scores = num_samples_kept(config), config.run.example_scores and not hides_rows(config)
    if not num_samples and not with_scores:
        return None
    return KeptExamples(num_samples=num_samples, with_scores=with_scores, seed=draw_seed(config))


def example_names(identities: Sequence[str | None]) -> list[str]:
    """Return the names of a set's examples: of equal ones each has its own."""
    seen: Counter[str | None] = Counter()
    names = []
    for place, identity in enumerate(identities):
        seen[identity] += 1
        told = json.dumps([identity, place if identity is None else seen[identity]])
        names.append(hashlib.sha256(told.encode()).hexdigest()[:NUM_ID_DIGITS])
    return names


def _line(set_name: str, client_id: int | None, each: Known, sample: Sample) -> dict[str, Any]:
    line: dict[str, Any] = {
        "set": set_name,
        "client": client_id,
        "example": each.name,
        "position": each.position,
        "prompt": sample.prompt,
        "references": [sample.reference, *sample.other_references],
        "prediction": sample.prediction,
    }
    more = {"group": sample.group, "probability": sample.probability}
    return line | {key: value for key, value in more.items() if value is not None}


def _columns(set_name: str, client_id: int | None, known: Sequence[Known], answered: Sequence[Sample]) -> Columns:
    columns: Columns = {
        "set": [set_name] * len(known),
        "client": [client_id] * len(known),
        "position": [each.position for each in known],
        "example": [each.name for each in known],
        "group": [sample.group for sample in answered],
        "prediction": [sample.prediction for sample in answered],
    }
    if any(sample.probability is not None for sample in answered):
        columns["probability"] = [sample.probability for sample in answered]
    return columns


def _lowest(
    samples: Sequence[tuple[int, int, dict[str, Any]]], num_samples: int
) -> list[tuple[int, int, dict[str, Any]]]:
    """Return of each set the samples of lowest rank; of several models' answers to one example, one."""
    kept: list[tuple[int, int, dict[str, Any]]] = []
    seen: set[tuple[str, str, int]] = set()
    num_kept: Counter[str] = Counter()
    for sample in sorted(samples, key=lambda sample: (*sample[:2], _order(*_place(sample[2])))):
        line = sample[2]
        key = (line["set"], line["example"], line["position"])
        if key not in seen and num_kept[line["set"]] < num_samples:
            seen.add(key)
            num_kept[line["set"]] += 1
            kept.append(sample)
    return kept


def _joined(blocks: Sequence[Columns]) -> Columns:
    """Return the columns that all blocks have, one block below the other; none without any."""
    if not blocks:
        return {}
    names = [name for name in blocks[0] if all(name in block for block in blocks)]
    return {name: [value for block in blocks for value in block[name]] for name in names}


def _sorted(columns: Columns) -> Columns:
    """Return the rows in the order of set, client and position: that of no process."""
    if not columns:
        return {}
    places = list(zip(columns["set"], columns["client"], columns["position"], strict=True))
    order = sorted(range(len(places)), key=lambda row: _order(*places[row]))
    return {name: [values[row] for row in order] for name, values in columns.items()}


def _place(line: Mapping[str, Any]) -> tuple[str, int | None, int]:
    return line["set"], line["client"], line["position"]


def _order(set_name: str, client_id: int | None, position: int) -> tuple[int, int, int]:
    return SETS.index(set_name), -1 if client_id is None else client_id, position
