"""References without a word are told before training, where a score of words would be blind to it."""

import json
from pathlib import Path

import pytest

from fedlit.config import DataConfig, load_config
from fedlit.data.sources import load_rows
from fedlit.inputs import gather_inputs
from fedlit.tasks.registry import task_spec
from fedlit.tasks.text_scores import TEXT_SCORES, signatures

ASCII_MARKS, OTHER_MARKS, EMOJI = "...", "。！", "👍"


def written(path: Path, *responses: str) -> str:
    path.write_text("".join(json.dumps({"q": f"{i}?", "a": text}) + "\n" for i, text in enumerate(responses)))
    return str(path)


def data(path: str, **given: object) -> DataConfig:
    return DataConfig(source="jsonl", path=path, prompt="q", response="a", label=None, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("response", [ASCII_MARKS, OTHER_MARKS, EMOJI])
@pytest.mark.parametrize("scores", [None, ["bleu", "cider"], ["meteor"]])
def test_references_without_a_word_are_told(tmp_path: Path, response: str, scores: list[str] | None) -> None:
    config = data(written(tmp_path / "rows.jsonl", "an answer", "好", response, response), scores=scores)
    spec = task_spec("causal_lm")
    (line,) = spec.test_notices(load_rows(config, 0), config)
    assert line.startswith(f"2 of 4 references have no word, such as {response!r}: ")
    assert "data.scores" in line
    assert "\n" not in line
    assert not spec.test_notices(load_rows(config, 0)[:2], config)


def test_scores_that_see_it_do_not_mind(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", ASCII_MARKS, EMOJI)
    for scores in (["bleu_4"], ["nist", "bleu"], ["exact_match"]):
        config = data(path, scores=scores, answer="text")
        assert not task_spec("causal_lm").test_notices(load_rows(config, 0), config)


def test_only_what_is_tested_is_a_reference(tmp_path: Path) -> None:
    train, test = written(tmp_path / "train.jsonl", *[ASCII_MARKS] * 8), written(tmp_path / "test.jsonl", "yes", EMOJI)
    words = [
        f"data.path={train}",
        "data=jsonl",
        "data.prompt=q",
        "data.response=a",
        "data.label=null",
        "partition.name=iid",
        "partition.min_test_rows=2",
        "num_clients=2",
    ]
    words += ["model=tiny", f"run.dir={tmp_path}"]
    told = gather_inputs(load_config([*words, f"data.test_path={test}"])).notices
    assert [line for line in told if "no word" in line] == [
        "1 of 2 references have no word, such as '👍': rouge_l is 0 there whatever a model says; leave them out, or "
        "give other data.scores, such as bleu_4"
    ]
    (line,) = gather_inputs(load_config(words)).notices
    assert "references have no word, such as '...'" in line


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
