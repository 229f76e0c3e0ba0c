"""Readers, partitions, scores and loggers from outside: their options are checked, and so is what they return."""

from pathlib import Path

import pytest
import torch
from written_modules import WriteModule

from fedlit.config import DataConfig, PartitionConfig, RunConfig, load_config
from fedlit.data.sources import load_rows, load_test_rows
from fedlit.errors import UserError
from fedlit.inputs import gather_inputs
from fedlit.lab.callbacks.loggers import make_loggers
from fedlit.outside.loading import load_plugins
from fedlit.partition.shards import make_shards
from fedlit.scores import SCORES, described, headings, is_lower_better, remember
from fedlit.tasks.outside_scores import outside_metrics
from fedlit.tasks.registry import task_spec
from fedlit.tasks.text_scores import computed_scores

PARTS = """
from torchmetrics import Metric, MeanMetric

@register("reader", "lines")
@dataclass(frozen=True, kw_only=True)
class Lines(Reader):
    word: str = option(help="what is read")
    number: int = option(20, range=POSITIVE_COUNT)
    order: str = option("up", values=("up", "down"))
    returns: Any = None
    test: bool = False

    def rows(self, data):
        made = [{"prompt": f"{self.word} {i}", "response": "x", "label": str(i % 2)} for i in range(self.number)]
        return {None: made, "text": "rows", "numbers": [1, 2]}[self.returns]

@register("reader", "tested")
@dataclass(frozen=True, kw_only=True)
class Tested(Lines):
    has_test_rows: ClassVar[bool] = True
    def test_rows(self, data):
        return [{"prompt": f"test {i}", "response": "x"} for i in range(3)]

@register("partition", "by_rule")
@dataclass(frozen=True, kw_only=True)
class ByRule(Partition):
    wrong: str = "nothing"
    def deal(self, rows, labels, num_clients, generator):
        dealt = [list(range(c, len(rows), num_clients)) for c in range(num_clients)]
        if self.wrong == "one less":
            dealt = dealt[1:]
        if self.wrong == "twice":
            dealt[0].append(1)
        if self.wrong == "outside":
            dealt[1].append(len(rows))
        if self.wrong == "empty":
            dealt[1] = []
        return dealt

@register("score", "mine")
@dataclass(frozen=True)
class MyScore(TaskScore):
    tasks: ClassVar = ("causal_lm", "sequence_classification")
    heading: ClassVar = "my score"
    lower_is_better: ClassVar = True
    right: bool = True
    def metric(self):
        return MeanMetric() if self.right else "no metric"

@register("logger", "diary")
@dataclass
class Diary(Callback):
    name: str = "diary"
"""


@pytest.fixture(autouse=True)
def parts(write_module: WriteModule) -> None:
    write_module("kinds_of_mine", PARTS)
    load_plugins(["kinds_of_mine"])


BASE = ["plugins=[kinds_of_mine]", "logging.wandb=disabled", "data=jsonl", "data.source=lines", "num_clients=2"]
WORD = ["data.source_options={word: a}"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            [],
            "data.source_options={} (default) lacks word, which the reader lines needs; give data.source_options={",
        ),
        (
            ["data.source_options={word: a, numbr: 3}"],
            "has numbr, which no part takes; did you mean 'number'? Known are: number, order, returns, test, word",
        ),
        (["data.source_options={word: 3}"], "gives the reader lines word=3 of the wrong type; expected: text"),
        (["data.source_options={word: a, number: x}"], "number=x of the wrong type; expected: integer"),
        (
            ["data.source_options={word: a, number: 0}"],
            "number=0, which is out of range; give an integer of at least 1",
        ),
        (["data.source_options={word: a, order: upp}"], "order=upp; did you mean 'up'? Valid values: up, down"),
        ([*WORD, "partition.options={wrong: x}"], "has wrong, which no part takes. No chosen part has options"),
        ([*WORD, "partition.name=by_rul"], "is not valid; did you mean 'by_rule'? Valid values: dirichlet"),
        ([*WORD, "data.source=line"], "is not valid; did you mean 'lines'? Valid values: pydoc"),
        ([*WORD, "logging.loggers=[dairy]"], "names dairy; did you mean 'diary'? Valid loggers: wandb, tensorboard"),
        ([*WORD, "logging.loggers=[diary]", "logging.options={name: 1}"], "name=1 of the wrong type; expected: text"),
        ([*WORD, "data.scores=[rouge_l, min]"], "names min, no score of data.task=causal_lm"),
        ([*WORD, "eval.score=mine"], "is computed only where data.scores names it; give data.scores=[mine] as well"),
        ([*WORD, "cohort.availability=bernuli"], "is not valid; did you mean 'bernoulli'? Valid values: always, bern"),
        (
            [*WORD, "cohort.availability=bernoulli", "cohort.options={dropuot: 0.1}"],
            "has dropuot, which no part takes; did you mean 'dropout'? Known are: dropout",
        ),
        (
            [*WORD, "cohort.availability=deadline", "cohort.options={late: never}"],
            "gives the availability deadline late=never. Valid values: drop, use",
        ),
        (
            [*WORD, "cohort.availability=deadline", "cohort.options={spread: 1000}"],
            "gives the availability deadline spread=1000, which is out of range; give a number from 0 to 10",
        ),
        (
            [*WORD, "cohort.availability=buffered", "cohort.sampling=poisson", "cohort_size=1"],
            "draws a client whenever one is done; give cohort.sampling=fixed",
        ),
        ([*WORD, "cohort.options={dropout: 0.1}"], "has dropout, which no part takes. No chosen part has options"),
        ([*WORD, "cohort.sampling=poison"], "is not valid; did you mean 'poisson'? Valid values: fixed, poisson"),
    ],
)
def test_a_wrong_option_is_one_line(words: list[str], told: str) -> None:
    given = {word.split("=")[0] for word in words}
    with pytest.raises(UserError) as caught:
        load_config([*(word for word in BASE if word.split("=")[0] not in given), *words])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def config_of(*words: str) -> RunConfig:
    return load_config([*BASE, *WORD, *words])


def test_rows_are_read_checked_and_dealt_as_any_other() -> None:
    inputs = gather_inputs(config_of("partition.name=by_rule", "partition.min_test_rows=2"))
    assert len(inputs.rows) == 20
    assert sorted(row for shard in inputs.shards for row in shard.train + shard.test) == list(range(20))
    assert all(row % 2 == shard.client_id for shard in inputs.shards for row in shard.train)
    with pytest.raises(UserError, match=r"lines, row 0: no column 'answer'"):
        gather_inputs(config_of("data.response=answer"))


@pytest.mark.parametrize(
    ("returns", "told"),
    [
        ("text", "data.source=lines: Lines returns str, no rows; return a list"),
        ("numbers", "lines, row 0: int, not an"),
    ],
)
def test_what_is_no_row_is_told(returns: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_rows(DataConfig(source="lines", source_options={"word": "a", "returns": returns}), 0)
    assert told in str(caught.value)


def test_a_reader_may_have_a_test_set(folder: Path) -> None:
    config = load_config([*(word for word in BASE if "source" not in word), "data.source=tested", *WORD])
    assert [row["prompt"] for row in load_test_rows(config.data)] == ["test 0", "test 1", "test 2"]
    assert load_test_rows(config_of().data) == []
    inputs = gather_inputs(config)
    assert all(not shard.test for shard in inputs.shards)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("one less", "partition.name=by_rule returns the rows of 1 clients, and 2 are asked for; mend its deal()"),
        ("twice", "partition.name=by_rule returns row 1 for client 0 and client 1; mend its deal()"),
        ("outside", "partition.name=by_rule returns row 12 for client 1, of 12 rows; mend its deal()"),
        ("empty", "partition.name=by_rule returns no row for client 1; mend its deal(), or give fewer clients"),
    ],
)
def test_what_is_no_partition_is_told(wrong: str, told: str) -> None:
    rows = [{"prompt": f"p{i}", "response": "r", "label": "l"} for i in range(12)]
    partition = PartitionConfig(name="by_rule", options={"wrong": wrong}, min_test_rows=2)
    with pytest.raises(UserError) as caught:
        make_shards(rows, DataConfig(), partition, 2, 0)
    assert str(caught.value) == told


def test_a_score_is_known_wherever_scores_are() -> None:
    assert list(SCORES)[-1] == "mine"
    assert SCORES["mine"].heading == "my score"
    assert is_lower_better("global/mine")
    assert not is_lower_better("global/rouge_l")
    assert headings(["global/mine", "global/loss"]) == {"global/loss": "loss", "global/mine": "my score"}
    assert "mine" in task_spec("causal_lm").scores
    assert "mine" not in task_spec("image_classification").scores
    data = config_of("data.scores=[rouge_l, mine]").data
    assert computed_scores(data, "generate") == ("rouge_l", "mine")
    assert list(outside_metrics(data)) == ["mine"]
    assert outside_metrics(data, of_numbers=True) == {}


def test_a_score_can_be_kept_and_known_again() -> None:
    kept = described(["mine", "loss"])
    assert kept == {"mine": {"heading": "my score", "unit": "score", "lower_is_better": True}}
    remember({"yours": kept["mine"], "loss": kept["mine"], "damaged": {"heading": 1}, "no": None})
    assert SCORES["yours"] == SCORES["mine"]
    assert SCORES["loss"].heading == "loss"
    assert not {"damaged", "no"} & set(SCORES)
    remember(None)


def test_what_is_no_metric_is_told() -> None:
    with pytest.raises(UserError, match=r"names mine, whose metric\(\) returns str, no torchmetrics\.Metric"):
        outside_metrics(config_of("data.scores=[mine]", "data.score_options={right: false}").data)


def test_a_logger_gets_its_options(tmp_path: Path) -> None:
    config = config_of("logging.loggers=[csv, diary]", "logging.options={name: log}")
    made = make_loggers(config, tmp_path)
    assert [type(logger).__name__ for logger in made] == ["CsvLog", "Diary"]
    assert vars(made[1]) == {"name": "log"}


def test_classes_are_scored_too() -> None:
    data = DataConfig(task="sequence_classification", scores=["accuracy", "mine"])
    (metric,) = outside_metrics(data).values()
    metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]))
