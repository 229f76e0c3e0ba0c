"""A reference without a word is told with its file and line, where a score of words would be blind to it."""

import json
from pathlib import Path

import pytest

from fedlit.config import DataConfig
from fedlit.data.sources import load_rows, load_test_rows
from fedlit.errors import UserError
from fedlit.tasks.questions import evaluation_questions
from fedlit.tasks.text_scores import TEXT_SCORES, signatures

ASCII_MARKS, OTHER_MARKS, EMOJI = "...", "。！", "👍"


def written(path: Path, *responses: str) -> str:
    path.write_text("".join(json.dumps({"q": f"{i}?", "a": text}) + "\n" for i, text in enumerate(responses)))
    return str(path)


def data(path: str, **given: object) -> DataConfig:
    return DataConfig(source="jsonl", path=path, prompt="q", response="a", label=None, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("response", [ASCII_MARKS, OTHER_MARKS, EMOJI])
@pytest.mark.parametrize("scores", [None, ["bleu", "cider"], ["meteor"]])
def test_a_reference_without_a_word_is_told_when_it_is_read(
    tmp_path: Path, response: str, scores: list[str] | None
) -> None:
    path = written(tmp_path / "rows.jsonl", "an answer", "好", response)
    with pytest.raises(UserError) as caught:
        load_rows(data(path, scores=scores), 0)
    message = str(caught.value)
    assert f"{path}, line 3: the reference {response!r} has no word" in message
    assert "data.scores" in message
    assert "\n" not in message
    assert len(message) <= 400 + len(path)


def test_scores_that_see_it_do_not_mind(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", ASCII_MARKS, EMOJI)
    for scores in (["bleu_4"], ["nist", "bleu"], ["exact_match"]):
        rows = load_rows(data(path, scores=scores, answer="text"), 0)
        assert len(rows) == len(evaluation_questions(rows, data(path, scores=scores, answer="text"))) == 2


def test_only_what_is_tested_is_a_reference(tmp_path: Path) -> None:
    train, test = written(tmp_path / "train.jsonl", ASCII_MARKS), written(tmp_path / "test.jsonl", "yes", EMOJI)
    config = data(train, test_path=test)
    rows = load_rows(config, 0)
    with pytest.raises(UserError, match=r"test\.jsonl, line 2: the reference '👍' has no word, so rouge_l is 0"):
        load_test_rows(config)
    with pytest.raises(UserError, match=r"test row 0: the reference '\.\.\.' has no word"):  # of a client's own part
        evaluation_questions(rows, config)


def test_the_first_record_names_the_tokens() -> None:
    config = DataConfig(scores=["exact_match", "rouge_l", "bleu_4"], answer="text")
    notes = signatures(config, "generate")
    assert list(notes) == ["eval/signature/rouge_l", "eval/signature/bleu_4"]
    assert "tok:words+nfc+unspaced-characters|stem:porter" in notes["eval/signature/rouge_l"]
    assert "tok:13a+nfc+unspaced-characters|smooth:exp|version:" in notes["eval/signature/bleu_4"]
    assert signatures(config, "teacher_forced") == notes
    assert signatures(DataConfig(scores=["accuracy"]), "options") == {}
    every = signatures(DataConfig(scores=list(TEXT_SCORES)), "generate")
    assert len(every) == len(set(every)) == len(TEXT_SCORES)
