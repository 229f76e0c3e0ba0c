"""The text data sets of the papers, from their real files through their YAML to the scores, on a small real model."""

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedlit.config import load_config
from fedlit.data.sources import load_rows, load_test_rows
from fedlit.models import Backbone, load_backbone
from fedlit.tasks.causal_lm.task import CausalLM
from fedlit.tasks.questions import evaluation_questions

FILES = {
    "medquad": ("medquad/medquad", None),
    "dolly": ("dolly15k/dolly15k", None),
    "e2e": ("e2e_nlg/dev", "e2e_nlg/test"),
    "gsm8k": ("gsm8k/train", "gsm8k/test"),
    "math": ("math_test/test", None),
    "commonsense": ("commonsense/test_7tasks", None),
}
TASKS = {"boolq", "piqa", "siqa", "winogrande", "arc_e", "arc_c", "obqa"}  # the file lacks hellaswag
MODEL: dict[str, Backbone] = {}


def configured(name: str, shared: Path, *changes: str) -> tuple[CausalLM, list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the task of a data set on stories260k, its rows and its test rows (or the rows again)."""
    path, test_path = FILES[name]
    arguments = [f"data={name}", f"data.path={shared}/data/{path}.jsonl.gz", "partition.name=iid", "model=hf"]
    if test_path is not None:
        arguments.append(f"data.test_path={shared}/data/{test_path}.jsonl.gz")
    arguments += [f"model.path={shared}/models/stories260k", "model.max_length_tokens=256", "eval.max_new_tokens=8"]
    config = load_config([*arguments, *changes])
    backbone = MODEL.get("stories260k") or MODEL.setdefault("stories260k", load_backbone(config.model))
    rows = load_rows(config.data, config.seed)
    return CausalLM.build(config, backbone), rows, load_test_rows(config.data) or rows


def scored(task: CausalLM, rows: list[dict[str, Any]]) -> dict[str, float]:
    model = MODEL["stories260k"].model.eval()
    metrics = task.metrics()
    for batch in task.evaluation_batches(task.evaluation_examples(rows), 8):
        task.evaluate(model, batch, metrics, torch.device("cpu"))
    scores: dict[str, float] = {}
    for name, metric in metrics.items():
        result = metric.compute()
        scores |= (
            {name: float(result)} if isinstance(result, torch.Tensor) else {k: float(v) for k, v in result.items()}
        )
    return scores


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("medquad", {"rouge_l", "bleu_4"}),
        ("dolly", {"rouge_l", "bleu_4"}),
        ("gsm8k", {"exact_match"}),
        ("math", {"exact_match"}),
    ],
)
def test_a_data_set_is_read_and_scored(name: str, expected: set[str], shared_folder: Path) -> None:
    task, rows, test_rows = configured(name, shared_folder)
    sizes = {"medquad": (16407, 16407), "dolly": (15011, 15011), "gsm8k": (7473, 1319), "math": (5000, 5000)}
    assert (len(rows), len(test_rows)) == sizes[name]
    examples = task.encode(rows[::500])
    assert any(example.truncated for example in examples) == (max(len(e.token_ids) for e in examples) == 256)
    model = MODEL["stories260k"].model
    assert 1 < float(task.loss(model, task.collate(examples[:4])).detach()) < 20
    scores = scored(task, test_rows[:: len(test_rows) // 8])
    assert set(scores) == {"loss", *expected}
    assert all(0 <= scores[score] <= 1 for score in expected)


def test_the_prompts_of_gsm8k(shared_folder: Path) -> None:
    """Alpaca's words, which the published evaluation follows up with a nudge."""
    task, rows, test_rows = configured("gsm8k", shared_folder)
    start = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    question = rows[0]["question"]
    assert task.encode(rows[:1])[0].prompt == f"{start}\n\n### Instruction:\n{question}\n\n### Response:"
    (example,) = task.evaluation_examples(test_rows[:1])
    assert example.prompt.endswith("\n\n### Response: Let's think step by step.")
    assert example.response.endswith("\n#### 18")
    metric = task.metrics()["exact_match"]
    metric.update(["So it is\n#### 18", "The answer is: $18.00.", "19"], [example.references] * 3)
    assert float(metric.compute()["exact_match"]) == pytest.approx(2 / 3)


def test_e2e_has_many_references_for_each_input(shared_folder: Path) -> None:
    task, _, test_rows = configured("e2e", shared_folder, "eval.num_beams=3", "eval.no_repeat_ngram_size=4")
    examples = task.evaluation_examples(test_rows)
    assert (len(test_rows), len(examples)) == (4693, 630)
    assert sum(len(example.references) for example in examples) == 4693
    groups = [list(rows) for _, rows in itertools.groupby(test_rows, key=lambda row: row["mr_id"])]
    assert [list(example.references) for example in examples] == [[row["ref"] for row in rows] for rows in groups]
    assert examples[0].prompt == "name : Blue Spice | Type : coffee shop | area : city centre -> "
    scores = scored(task, test_rows[:30])
    assert list(scores) == ["loss", "bleu", "nist", "meteor", "rouge_l", "cider"]
    rouge_l = task.metrics()["rouge_l"]
    rouge_l.update([example.references[-1] for example in examples], [example.references for example in examples])
    assert float(rouge_l.compute()) == 1.0


def test_commonsense_by_likelihood_and_by_generation(shared_folder: Path) -> None:
    task, _, test_rows = configured("commonsense", shared_folder, "eval.protocol=options")
    assert len(test_rows) == 12377
    questions = evaluation_questions(test_rows, task.data, by_options=True)
    assert [question.options[question.right_option] for question in questions] == [row["answer"] for row in test_rows]
    some = random.Random(0).sample(test_rows, 20)
    accuracy = scored(task, some)
    exact = scored(replace(task, eval=replace(task.eval, protocol="generate")), some)
    seen = {name.partition("/")[2] for name in accuracy} - {""}
    assert len(seen) > 3
    assert seen <= TASKS
    assert set(accuracy) == {"loss", "accuracy", "accuracy_macro", *(f"accuracy/{task}" for task in seen)}
    assert set(exact) == {"loss", "exact_match", "exact_match_macro", *(f"exact_match/{task}" for task in seen)}
    assert 0 < accuracy["accuracy"] < 1
    assert accuracy["loss"] == pytest.approx(exact["loss"], rel=1e-5)


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_metamath_is_tested_on_gsm8k_under_its_own_columns(tmp_path: Path) -> None:
    row = {"query": "What is 1 + 1?", "response": "It is 2.\nThe answer is: 2", "type": "GSM_Rephrased"}
    test_row = {"question": "What is 40 + 2?", "answer": "That makes\n#### 42"}
    files = [
        f"data.path={write(tmp_path / 'a.jsonl', [row])}",
        f"data.test_path={write(tmp_path / 'b.jsonl', [test_row])}",
    ]
    config = load_config(["data=metamath", "data.sample=null", *files])
    task = CausalLM.build(config, load_backbone(config.model, weights=False))
    assert task.encode(load_rows(config.data, 0))[0].prompt.endswith(
        "### Instruction:\nWhat is 1 + 1?\n\n### Response:"
    )
    (example,) = task.evaluation_examples(load_test_rows(config.data))
    assert example.prompt.endswith("### Response: Let's think step by step.")
    metric = task.metrics()["exact_match"]
    metric.update(["The answer is: 42", "41"], [example.references] * 2)
    assert float(metric.compute()["exact_match"]) == 0.5


def test_your_own_columns(tmp_path: Path) -> None:
    rows = [{"q": "What {is} it?", "a": "This.", "kind": "x"}]
    arguments = ["data=jsonl", f"data.path={write(tmp_path / 'rows.jsonl', rows)}"]
    config = load_config([*arguments, "data.prompt=q", "data.response=a", "data.label=kind"])
    task = CausalLM.build(config, load_backbone(config.model, weights=False))
    (example,) = task.encode(load_rows(config.data, 0))
    assert (example.prompt, example.response) == ("What {is} it?\n", "This.")
    assert list(task.metrics()) == ["loss", "rouge_l", "bleu_4"]
