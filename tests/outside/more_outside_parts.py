"""One part of each further kind, from outside: a recipe, a reader, a partition, a score and a logger; and an adapter
that the recipe names. `plugins=[outside_parts, more_outside_parts]`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from fedlit.plugins import (
    FRACTION,
    Callback,
    DataConfig,
    Lora,
    Partition,
    Reader,
    Recipe,
    Row,
    RunSummary,
    Sample,
    TaskScore,
    UserError,
    option,
    register,
)


@register("adapter", "wide_lora")
@dataclass(frozen=True, kw_only=True)
class WideLora(Lora):
    """LoRA whose scaling is multiplied by `widen`."""

    widen: float = option(1.0, "factor of the scaling")

    def __post_init__(self) -> None:
        object.__setattr__(self, "lora_alpha", self.lora_alpha * self.widen)


register(
    "recipe",
    "trimmed_lora",
    Recipe(
        adapter="wide_lora", rule="trimmed_mean", transforms=("clip_norm",), defaults={"widen": 2.0, "lora_rank": 4}
    ),
)


@register("reader", "glossary")
@dataclass(frozen=True, kw_only=True)
class Glossary(Reader):
    """Reads lines of a text file, each with a term, a sign and its meaning; the test set lies beside it."""

    file: str = option(help="the text file")
    sign: str = option(":", "what stands between a term and its meaning")

    has_test_rows: ClassVar[bool] = True

    def rows(self, data: DataConfig) -> Iterator[Mapping[str, Any]]:
        return self._read(Path(self.file))

    def test_rows(self, data: DataConfig) -> Iterator[Mapping[str, Any]]:
        return self._read(Path(f"{self.file}.test"))

    def _read(self, path: Path) -> Iterator[Mapping[str, Any]]:
        if not path.is_file():
            raise UserError(f"data.source_options: file={path} is not there; give the text file of the glossary")
        for line in path.read_text(encoding="utf-8").splitlines():
            term, _, meaning = line.partition(self.sign)
            yield {"prompt": term.strip(), "response": meaning.strip(), "label": term[0]}


@register("partition", "every_nth")
@dataclass(frozen=True, kw_only=True)
class EveryNth(Partition):
    """Client c holds rows c, c + n, c + 2n, ..., without the share `left_over` of them."""

    left_over: float = option(0.0, "share of every client's rows that nobody holds", range=FRACTION)

    def deal(
        self, rows: Sequence[Row], labels: Sequence[str] | None, num_clients: int, generator: np.random.Generator
    ) -> list[list[int]]:
        dealt = [list(range(client, len(rows), num_clients)) for client in range(num_clients)]
        return [part[: len(part) - int(self.left_over * len(part))] for part in dealt]


class ShareOfShort(Metric):
    """The share of predictions of less than `length` characters."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.short: Tensor
        self.total: Tensor
        self.add_state("short", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        self.short += sum(len(text) < self.length for text in predictions)
        self.total += len(predictions)

    def compute(self) -> Tensor:
        return self.short / self.total


@register("score", "brevity")
@dataclass(frozen=True, kw_only=True)
class Brevity(TaskScore):
    """How many answers are short."""

    length: int = option(5, "characters from which on an answer is no longer short")

    tasks: ClassVar[tuple[str, ...]] = ("causal_lm",)
    heading: ClassVar[str] = "brevity"
    unit: ClassVar[str] = "share"
    lower_is_better: ClassVar[bool] = True

    def metric(self) -> Metric:
        return ShareOfShort(self.length)


@register("logger", "diary")
@dataclass(kw_only=True)
class Diary(Callback):
    """Writes a line a round into the run folder."""

    name: str = option("diary.jsonl", "name of the file in the run folder")
    _path: Path = field(default=Path(), init=False)

    def on_start(self, summary: RunSummary, records: Sequence[dict[str, Any]], notices: Sequence[str]) -> None:
        self._path = summary.folder / self.name

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"round": record["round"], "brevity": record["global/brevity"]}) + "\n")
