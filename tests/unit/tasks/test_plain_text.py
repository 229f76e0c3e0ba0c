"""Plain texts: every token is learned but the first, and the loss is their score."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from fedlit.config import DataConfig, EvalConfig
from fedlit.data.collation import collate
from fedlit.errors import UserError
from fedlit.models import PACKAGED
from fedlit.tasks.causal_lm.task import CausalLM
from fedlit.tasks.registry import task_spec

DATA = DataConfig(text="body", label=None)
TEXTS = ["def read(file)\n\nReturn what is in it.", "é漢字", "x"]


def make_plain(tokenizer: Any, longest: int = 64) -> CausalLM:
    return CausalLM(
        tokenizer=tokenizer,
        data=DATA,
        eval=EvalConfig(),
        max_length_tokens=longest,
        loss_on="response",
        max_positions=512,
    )


def test_a_text_begins_as_the_tokenizer_does_and_has_an_end(tokenizer: Any) -> None:
    examples = make_plain(tokenizer).encode([{"body": text} for text in TEXTS])
    for text, example in zip(TEXTS, examples, strict=True):
        assert list(example.token_ids) == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        assert not example.truncated
    batch = collate(examples, 0, loss_on="response")
    assert batch.num_labels == tuple(len(example.token_ids) - 1 for example in examples)
    assert torch.equal(batch.label_ids, collate(examples, 0, loss_on="all").label_ids)
    (short,) = make_plain(tokenizer, 5).encode([{"body": TEXTS[0]}])
    assert (short.token_ids, short.truncated) == (examples[0].token_ids[:5], True)
    assert make_plain(tokenizer).encode([]) == []


@torch.no_grad()
def test_the_loss_is_that_of_the_library(tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(PACKAGED["tiny"], dtype=torch.float32).eval()
    task = make_plain(tokenizer)
    examples = task.evaluation_examples([{"body": TEXTS[0]}])
    metrics = task.metrics()
    assert list(metrics) == ["loss"]
    samples = task.evaluate(model, examples, metrics, torch.device("cpu"))
    ids = torch.tensor([examples[0].token_ids])
    expected = float(model(input_ids=ids, labels=ids).loss)
    assert float(metrics["loss"].compute()) == pytest.approx(expected, rel=1e-5)
    assert [(sample.reference, sample.prediction) for sample in samples] == [(TEXTS[0], "")]
    assert task.notes() == {}


def test_rows_of_text() -> None:
    spec = task_spec("causal_lm")
    assert spec.read_columns(DATA) == ["body"]
    assert spec.check_row({"body": "a"}, "row 1", DATA) == {"body": "a"}
    assert (spec.identity({"body": "a"}, DATA), spec.text({"body": "a"}, DATA)) == ("a", "a")
    assert spec.test_notices([{"body": "漢字"}], DATA) == []
    for row, told in (({"body": 1}, "not a string"), ({"body": None}, "is empty"), ({"x": ""}, "no column 'body'")):
        with pytest.raises(UserError, match=told):
            spec.check_row(row, "row 1", DATA)
    assert spec.check_row({"body": " "}, "row 1", DataConfig(text="body", label=None, drop_empty=True)) is None
