"""An analysis: from runs to tables, pictures and a few sentences, or to one line that says what it misses."""

import re
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fedlit.config import RunConfig
from fedlit.lab.analysis.collection import Collection, Entry, by_seed
from fedlit.lab.analysis.column import Line, Picture
from fedlit.lab.report.layout import bound_last, naming_keys
from fedlit.scores import number
from fedlit.store.records import Record, trained

Points = Mapping[Any, float]
"""Values by their place on the horizontal axis, a number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run that is looked at.

    label: its method, and what else tells it from the others but for seed and draw: runs with one label are repeats of
    one setting. name: of its folder. partition: as in partition.json; None where the folder has none.
    """

    label: str
    name: str
    folder: Path
    config: RunConfig
    records: tuple[Record, ...]
    partition: Mapping[str, Any] | None = None

    @property
    def method(self) -> str:
        """The recipe's name."""
        return self.config.method.name

    @property
    def rounds(self) -> list[Record]:
        """The records of its rounds of training."""
        return trained(self.records)

    def has(self, prefix: str) -> bool:
        """Tell whether any record has a key that begins so."""
        return any(key.startswith(prefix) for record in self.records for key in record)

    def points(self, key: str) -> dict[int, float]:
        """Return the finite values of a key by round."""
        values = ((int(record["round"]), number(record.get(key))) for record in self.records)
        return {round_number: value for round_number, value in values if value is not None}

    def below(self, prefix: str) -> dict[str, dict[int, float]]:
        """Return the finite values by round of all keys that begin with a prefix, by what follows it."""
        found: dict[str, dict[int, float]] = {}
        for record in self.records:
            for key, value in record.items():
                if key.startswith(prefix) and (finite := number(value)) is not None:
                    found.setdefault(key.removeprefix(prefix), {})[int(record["round"])] = finite
        return found

    def train_loss(self) -> dict[int, float]:
        """Return the mean of the clients' training losses by round, weighted by their local steps, in nats; of a run
        with many clients their mean.
        """
        found: dict[int, float] = {}
        for record in self.rounds:
            losses, steps = [], []
            for key, value in record.items():
                if (match := _TRAIN_LOSS.fullmatch(key)) and (finite := number(value)) is not None:
                    losses.append(finite)
                    steps.append(number(record.get(f"client/{match[1]}/num_steps")) or 1.0)
            if losses:
                found[int(record["round"])] = sum(a * b for a, b in zip(losses, steps, strict=True)) / sum(steps)
            elif (mean := number(record.get("clients/train_loss"))) is not None:
                found[int(record["round"])] = mean
        return found

    def shard_sizes(self) -> list[int]:
        """Return the training rows of every client; none without partition.json."""
        clients = (self.partition or {}).get("clients", [])
        return [int(client["num_train"]) for client in clients if "num_train" in client]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Numbers: a CSV file, and in the text as many of its first lines as a reader wants to see.

    name: of the file, without ending. caption: what it holds, with units. only_in_file: columns that the
    text leaves out.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]
    only_in_file: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What an analysis made of the runs. notes: sentences; what is estimated or left out is said here."""

    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()


ON_BY_DEFAULT = "(on by default, and left out where clients are hidden or come late)"


class Analysis(ABC):
    """One analysis; an instance has no state.

    name: on the command line and in files' names. title: its heading. source: paper with arXiv number, and equation,
    figure or table. needs: beginnings of the record's keys of which a run must have one; none where all runs will do.
    remedy: how a run gets them, in words that end a sentence.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    remedy: ClassVar[str] = ""

    def fits(self, run: Run) -> bool:
        """Tell whether a run has what is needed."""
        return not self.needs or any(run.has(prefix) for prefix in self.needs)

    def missing(self, runs: Sequence[Run]) -> str:
        """Return one line on why nothing can be made of any of these runs, and the remedy; empty if something can."""
        if any(self.fits(run) for run in runs):
            return ""
        keys = " or ".join(f"{prefix}..." if prefix.endswith("/") else prefix for prefix in self.needs)
        return f"no run has {keys} in its record; {self.remedy}"

    @abstractmethod
    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return tables, pictures and notes of runs that fit, at least one."""


def runs_of(collection: Collection) -> list[Run]:
    """Return the runs of a collection that have begun, in its order."""
    groups = by_seed(collection)
    keys = naming_keys(groups, bound_last(collection))
    found = {}
    for group in groups:
        for entry in group.entries:
            if entry.config is not None and entry.records:
                found[id(entry)] = _run(entry, group.label(keys) or entry.config.method.name)
    runs = [found[id(entry)] for entry in collection.entries if id(entry) in found]
    names = [run.name for run in runs]
    # The order of folders' names is that of text: 16 before 2.
    return sorted(runs, key=lambda run: _natural(run.name)) if names == sorted(names) else runs


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts the numbers in a name by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _run(entry: Entry, label: str) -> Run:
    assert entry.config is not None
    return Run(
        label=label,
        name=entry.name,
        folder=entry.folder,
        config=entry.config,
        records=entry.records,
        partition=entry.partition,
    )


def by_label(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each label: repeats of one setting."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.label, []).append(run)
    return found


def mean_of(repeats: Sequence[Points]) -> dict[Any, float]:
    """Return the mean over repeats at the places that all of them have."""
    shared = set.intersection(*map(set, repeats)) if repeats else set()
    return {place: statistics.fmean(points[place] for points in repeats) for place in sorted(shared)}


def lines_of(runs: Sequence[Run], points: Callable[[Run], Points]) -> Iterator[Line]:
    """Yield a line for each label: the mean over its repeats, with a band of one sample standard deviation."""
    for label, repeats in by_label(runs).items():
        known = [found for run in repeats if (found := points(run))]
        if not (mean := mean_of(known)):
            continue
        low = high = None
        if len(known) > 1:
            spread = {place: statistics.stdev(found[place] for found in known) for place in mean}
            low = [mean[place] - spread[place] for place in mean]
            high = [mean[place] + spread[place] for place in mean]
        yield Line(name=label, x=list(mean), y=list(mean.values()), low=low, high=high)


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """Where a layer is in the model: the number of its block, from 0, and the name of its projection in the block."""

    block: int
    projection: str


def place_of(layer: str) -> Place:
    """Return the place of a layer by its module's path; block -1 outside of all blocks.

    >>> place_of("model.layers.3.self_attn.q_proj")
    Place(block=3, projection='q_proj')
    >>> place_of("roberta.encoder.layer.0.attention.self.query")
    Place(block=0, projection='query')
    >>> place_of("roberta.encoder.layer.0.attention.output.dense")
    Place(block=0, projection='attention.output.dense')
    """
    parts = layer.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    if not numbers:
        return Place(-1, layer)
    rest = parts[numbers[0] + 1 :]
    short = rest[-1] if rest else layer
    return Place(int(parts[numbers[0]]), ".".join(rest) if short == "dense" or short.isdigit() else short)


_TRAIN_LOSS = re.compile(r"client/([0-9]+)/train_loss", re.ASCII)
