"""A task that a third party registers is accepted by every room, from the check of the configuration to the model."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric import Fabric

from fedlit.assembly import assemble
from fedlit.config import DataConfig, RunConfig, load_config, no_effect_warnings
from fedlit.data.columns import require_column
from fedlit.data.prompts import Row
from fedlit.errors import UserError
from fedlit.inputs import Inputs, gather_inputs
from fedlit.lab.callbacks import numbers
from fedlit.lab.callbacks.console import describe
from fedlit.models import Purpose, load_backbone
from fedlit.models.quantization import require_quantization_fits
from fedlit.partition.topics import topic_text
from fedlit.planning import make_plan, make_task, purpose
from fedlit.registry import snapshot
from fedlit.scores import chosen_scores
from fedlit.sizing import measure
from fedlit.tasks import task_class
from fedlit.tasks.registry import register_task, task_names, task_spec
from fedlit.tasks.sequence_classification.task import SequenceClassification
from fedlit.tasks.spec import TaskSpec


class Triage(SequenceClassification):
    """A note is read and given its urgency."""


@dataclass(frozen=True, kw_only=True)
class TriageSpec(TaskSpec):
    """Differs from the house's tasks in whatever a task may differ in."""

    name: str = "triage"
    task_class: str = f"{__name__}:Triage"
    auto_class: str = "AutoModelForSequenceClassification"
    scores: tuple[str, ...] = ("mcc", "accuracy")
    default_scores: tuple[str, ...] = ("mcc",)
    protocols: tuple[str, ...] = ("blind", "open")
    has_head: bool = True
    reads_text: bool = True
    counts_tokens: bool = False

    def columns(self, data: DataConfig) -> dict[str, str]:
        if data.template != "{note}":
            raise UserError(f"data.template={data.template} is not a note; give {{note}}")
        return {"note": "data.task", data.target: "data.target"}

    def check(self, row: Row, place: str, data: DataConfig) -> bool:
        require_column(row, "note", place, "data.task")
        return row["note"] != "void"

    def identity(self, row: Row, data: DataConfig) -> str:
        return str(row["note"]).casefold()

    def text(self, row: Row, data: DataConfig) -> str:
        return f"triage {row['note']}"


@pytest.fixture
def registered() -> Iterator[None]:
    restore = snapshot()
    register_task(TriageSpec())
    yield
    restore()


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Forty notes, each twice in letters of another size, and two that are left out."""
    notes = [f"{letters} {number // 2}" for number in range(40) for letters in (("Bed", "bed")[number % 2],)]
    rows: list[Mapping[str, Any]] = [{"note": note, "label": f"l{i // 2 % 2}"} for i, note in enumerate(notes)]
    lines = [json.dumps(row) for row in (*rows, {"note": "void"}, {"note": "void"})]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return [
        *("data=jsonl", "data.task=triage", f"data.path={tmp_path / 'rows.jsonl'}", "data.template={note}"),
        *("data.text=[note]", "eval.protocol=blind", "partition.name=iid", "partition.test_fraction=0.5"),
        *("model=tiny", "method=fedit", f"run.dir={tmp_path / 'runs'}"),
    ]


def but(words: list[str], *others: str) -> list[str]:
    """Return the words with others in place of those of the same keys."""
    keys = {other.split("=")[0] for other in others}
    return [*(word for word in words if word.split("=")[0] not in keys), *others]


def inputs_of(words: list[str]) -> Inputs:
    return gather_inputs(load_config(words))


def test_the_names_are_those_of_the_specs() -> None:
    assert task_names() == ("causal_lm", "sequence_classification", "image_classification")
    assert [task_spec(name).name for name in task_names()] == list(task_names())


@pytest.mark.parametrize("name", task_names())
def test_a_spec_names_the_class_that_trains(name: str) -> None:
    assert task_class(task_spec(name)).__module__ == f"fedlit.tasks.{name}.task"


def test_an_unknown_task_is_told_with_the_known_ones(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"data\.task=triage \(command line\) is not valid.*causal_lm, sequence_"):
        load_config(words)
    with pytest.raises(UserError, match=r"data\.task=triage is no task; choose one of causal_lm, .*register_task"):
        task_spec("triage")


def test_a_name_is_taken_once(registered: None) -> None:
    with pytest.raises(UserError, match=r"data\.task=triage is registered already"):
        register_task(TriageSpec())
    with pytest.raises(UserError, match=r"default_scores names bleu; give some of its scores: mcc, accuracy"):
        register_task(TriageSpec(name="other", default_scores=("bleu",)))
    with pytest.raises(UserError, match=r"default_scores is empty"):
        register_task(TriageSpec(name="other", default_scores=()))


@pytest.mark.parametrize("name", ["check", "columns", "identity", "text"])
def test_half_a_spec_is_none(name: str) -> None:
    half = type("Half", (TriageSpec,), {name: getattr(TaskSpec, name)})
    with pytest.raises(TypeError, match=rf"abstract method '?{name}'?"):
        half()


def test_the_configuration_is_checked_by_the_spec(registered: None, words: list[str]) -> None:
    config = load_config(words)
    assert chosen_scores(config.data) == ("mcc",)
    idle = no_effect_warnings(load_config([*words, "eval.num_beams=2"]))
    assert "eval.num_beams=2 has no effect with data.task=triage" in idle
    assert not any("eval.protocol" in line for line in idle)
    for word, message in (
        ("eval.protocol=generate", r"eval\.protocol=generate .* Valid values: blind, open"),
        ("data.scores=[bleu]", r"names bleu, no score of data\.task=triage\. Valid scores: mcc, accuracy"),
        ("data.regression=true", r"data\.regression=true .* has no meaning for data\.task=triage"),
        ("data.path=none.jsonl", r"give the path of a \.jsonl, \.csv or \.parquet file"),
    ):
        with pytest.raises(UserError, match=message):
            load_config(but(words, word))
    load_config(but(words, "partition.name=topics"))
    monochrome = replace(TriageSpec(), name="scan", reads_text=False, local_source="images")
    register_task(monochrome)
    with pytest.raises(UserError, match=r"clusters texts, and data\.task=scan has none"):
        load_config(but(words, "data.task=scan", "partition.name=topics"))


def test_rows_are_loaded_checked_and_dealt_by_the_spec(registered: None, words: list[str]) -> None:
    inputs = inputs_of(words)
    assert len(inputs.rows) == 40
    assert inputs.classes == ("l0", "l1")
    notes = {
        part: {inputs.rows[i]["note"].casefold() for s in inputs.shards for i in getattr(s, part)}
        for part in ("train", "test")
    }
    assert notes["test"]
    assert not notes["train"] & notes["test"]
    assert topic_text(inputs.rows[0], inputs.config.data) == "triage Bed 0"
    with pytest.raises(UserError, match=r"is not a note; give \{note\}"):
        inputs_of(but(words, "data.template={label}"))


def test_the_backbone_is_loaded_as_the_spec_says(registered: None, words: list[str]) -> None:
    inputs = inputs_of(words)
    plan = make_plan(inputs)
    backbone = load_backbone(inputs.config.model, purpose(plan))
    assert type(backbone.model).__name__ == "LlamaForSequenceClassification"
    assert backbone.tokenizer is not None
    assert backbone.model.config.num_labels == 2  # type: ignore[union-attr]
    assert type(make_task(plan, backbone)) is Triage
    head = measure(plan).num_trainable
    register_task(TriageSpec(name="headless", has_head=False, auto_class="AutoModelForCausalLM"))
    bare = load_backbone(inputs.config.model, Purpose(task="headless"), weights=False)
    assert type(bare.model).__name__ == "LlamaForCausalLM"
    plan.inputs.config.data.task = "headless"
    assert measure(plan).num_trainable < head
    with pytest.raises(UserError, match=r"the result of data\.task=triage is a whole model"):
        quantized = RunConfig(data=DataConfig(task="triage"))
        quantized.model.quantization = "nf4"
        require_quantization_fits(quantized, keeps_weights=True)


def test_a_federation_is_assembled(registered: None, words: list[str]) -> None:
    federation, summary = assemble(make_plan(inputs_of(words)), Fabric(accelerator="cpu", devices=1))
    record, samples = federation._evaluate()
    assert record["eval/protocol"] == "blind"
    assert "global/mcc" in record
    assert {sample.prompt for sample in samples} <= {row["note"] for row in inputs_of(words).rows}
    assert "evaluated (blind)" in "\n".join(describe(summary))
    records = [{"round": 0, "client/0/tokens": 5, "client/0/uplink_bytes": 1}]
    assert "cost/tokens" in numbers(records, DataConfig.task)
    assert "cost/tokens" not in numbers(records, "triage")
