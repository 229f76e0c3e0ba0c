"""What a run's result answers to a row is what the run's last evaluation made of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from finished_runs import Finished, finish, write_rows
from PIL import Image

from fedlit.data.images import pixels
from fedlit.data.prompts import render
from fedlit.errors import UserError
from fedlit.exported.answers import load_answers
from fedlit.exported.columns import asked_columns
from fedlit.exported.found import find_result

VERBS = ("close", "read", "write", "merge", "sort", "open", "compare", "send", "parse", "split")
QUESTIONS = [
    {
        "context": f"File {number}." if number % 3 else "",
        "question": f"How do I {verb} it?",
        "answer": f"Just {verb} it.",
    }
    for number in range(4)
    for verb in VERBS
]
REVIEWS = [
    {"text": f"{word} {thing} number {number}", "label": label}
    for label, word in (("praise", "good"), ("blame", "bad"), ("neither", "some"))
    for thing in ("book", "film", "song")
    for number in range(8)
]


def asked(run: Finished, row: Mapping[str, Any]) -> dict[str, str]:
    """Return what a person would fill in of a row."""
    columns, _ = asked_columns(run.inputs.config)
    return {name: row[name] for name in columns}


def rows_by_prompt(run: Finished) -> dict[str, dict[str, Any]]:
    return {render(row, run.inputs.config.data, test=True)[0]: row for row in run.inputs.test_rows}


@pytest.mark.parametrize(
    "words",
    [
        ["method=fedit"],
        ["method=fedit", "method.use_rslora=true", "eval.stop=[e]"],
        ["method=fedit", "eval.num_beams=2", "eval.no_repeat_ngram_size=2"],
        ["method=fedex_lora"],
        ["method=fedftg"],
        ["method=fedit", "run.export=merged"],
        # In bfloat16 padding may turn a row's answer: two tokens are often equally likely to its eight bits.
        ["method=fedit", "model.dtype=bfloat16", "compute.precision=bf16-mixed", "eval.batch_size=1"],
    ],
    ids=" ".join,
)
def test_a_row_is_answered_as_it_was_evaluated(words: list[str], tmp_path: Path) -> None:
    run = finish(tmp_path, *words)
    answers = load_answers(find_result(run.folder))
    rows = rows_by_prompt(run)
    assert len(run.samples) == 6
    given = [answers.answer(asked(run, rows[sample.prompt])).text for sample in run.samples]
    assert given == [sample.prediction for sample in run.samples]
    assert len(set(given)) > 1
    if "eval.stop=[e]" in words:
        assert not any("e" in text for text in given)


def test_several_columns_of_which_one_may_be_blank(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", QUESTIONS)
    template = "data.template='{context}\\n\\n{question}\\n'"
    columns = ["data=jsonl", f"data.path={path}", template, "data.required=[question]", "data.response=answer"]
    run = finish(tmp_path, *columns, "data.label=null")
    assert asked_columns(run.inputs.config) == (("context", "question"), ("question",))
    answers = load_answers(find_result(run.folder))
    rows = rows_by_prompt(run)
    for sample in run.samples:
        assert answers.answer(asked(run, rows[sample.prompt])).text == sample.prediction


def test_every_client_answers_with_its_own_model(tmp_path: Path) -> None:
    run = finish(tmp_path, "method=local_only", "local.steps=12", "eval.on=clients", "partition.test_fraction=0.1")
    with pytest.raises(UserError, match="a result for each client"):
        find_result(run.folder)
    with pytest.raises(UserError, match="no result of client 7: it has client-00000 to client-00001"):
        find_result(run.folder, client_id=7)
    rows = rows_by_prompt(run)
    answers = load_answers(find_result(run.folder, client_id=1))
    run.federation.load_client(1)
    _, samples = run.federation.evaluator.together_on_own()
    own = {render(run.inputs.rows[row], run.inputs.config.data)[0] for row in run.inputs.shards[1].test}
    mine = [sample for sample in samples if sample.prompt in own]
    assert len(mine) == 6
    for sample in mine:
        assert answers.answer(asked(run, rows[sample.prompt])).text == sample.prediction


def test_an_answer_may_be_longer_and_a_prompt_too_long(tmp_path: Path) -> None:
    run = finish(tmp_path, "model.max_length_tokens=48")
    result = find_result(run.folder)
    short, long = load_answers(result, max_new_tokens=2), load_answers(result, max_new_tokens=40)
    assert len(short.answer({"prompt": "def f(x)"}).text) < len(long.answer({"prompt": "def f(x)"}).text)
    assert short.answer({"prompt": "def f(x)"}).notice == ""
    assert "its start was cut off" in short.answer({"prompt": "def f(x)" * 40}).notice


def test_a_text_gets_its_class(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", REVIEWS)
    run = finish(tmp_path, "data=texts", f"data.path={path}", "model=roberta-small")
    answers = load_answers(find_result(run.folder))
    for sample in run.samples:
        name, _, probability = answers.answer({"text": sample.prompt}).text.partition(" ")
        assert name == sample.prediction
        assert 1 / 3 <= float(probability.strip("()")) <= 1


def test_a_text_gets_its_number(tmp_path: Path) -> None:
    rows = [{"text": f"{word} book", "label": number / 3} for number, word in enumerate(VERBS * 4)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    words = ["data=texts", f"data.path={path}", "data.regression=true", "data.label=null", "data.scores=[pearson]"]
    run = finish(tmp_path, *words, "model=roberta-small")
    answers = load_answers(find_result(run.folder))
    for sample in run.samples:
        assert float(answers.answer({"text": sample.prompt}).text) == pytest.approx(float(sample.prediction), rel=1e-2)


def test_an_image_gets_its_class(tmp_path: Path) -> None:
    run = finish(tmp_path, "data=digits", "model=vit-small", "data.sample=120")
    answers = load_answers(find_result(run.folder))
    by_name = {f"image {example_digest(row)}": row for row in run.inputs.test_rows}
    for number, sample in enumerate(run.samples):
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels(by_name[sample.prompt]["image"])).save(path)
        assert answers.answer({"image": f"{path} "}).text.split(" ")[0] == sample.prediction
    with pytest.raises(UserError):
        answers.answer({"image": str(tmp_path / "none.png")})


def example_digest(row: Mapping[str, Any]) -> str:
    from fedlit.data.images import digest  # noqa: PLC0415

    return digest(row["image"])[:8]
