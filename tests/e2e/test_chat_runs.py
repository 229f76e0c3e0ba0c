"""Conversations and plain texts from a file to an answer: what a run, `fedlit chat` and transformers make of them."""

import contextlib
import io
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_templates import TURN_ENDS, chat_tokenizer, template
from conftest import SMALL, merge
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from fedlit.cli import main
from fedlit.exported.answers import load_answers
from fedlit.exported.found import find_result
from fedlit.exported.loading import load_model
from fedlit.tasks.causal_lm.task import CausalLM

NAME = "llama"
WORDS = ("close", "read", "write", "merge", "sort", "open", "compare", "send")
TESTED = [
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "read 2"},
        {"role": "assistant", "content": "Return read."},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "Return it again."},
    ],
    [{"role": "user", "content": "sort 9"}, {"role": "assistant", "content": "Return sort."}],
]


def fedlit(*words: str, folder: Path, asks: str = "") -> subprocess.CompletedProcess[str]:
    """Do it in this process; test_results_commands asks a process of its own."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr("sys.stdin", io.StringIO(asks))
        code = main(words)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def federate(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a small federation called `name` in a folder."""
    given = [*merge(SMALL, words), f"run.dir={folder}", f"run.name={name}"]
    return fedlit("run", *given, folder=folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(runs: Path) -> Path:
    """The folder of a finished run, whose model says something and stops, on a template that is gone since."""
    folder = runs
    chat_tokenizer(NAME, given="{{ raise_exception('the file counts') }}").save_pretrained(folder / "reader")
    (folder / "chat.jinja").write_text(template(NAME))
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{word} {i}"},
                {"role": "assistant", "content": f"Return {word}."},
                {"role": "user", "content": "again"},
                {"role": "assistant", "content": "Return it again."},
            ]
        }
        for i in range(6)
        for word in WORDS
    ]
    train, test = write(folder / "chat.jsonl", rows), write(folder / "test.jsonl", [{"messages": m} for m in TESTED])
    done = federate(
        runs,
        "chat",
        "data=chat",
        f"data.path={train}",
        f"data.test_path={test}",
        f"data.chat_template={folder / 'chat.jinja'}",
        f"model.tokenizer={folder / 'reader'}",
        "method.target_modules=all",
        "num_rounds=2",
        "local.steps=30",
        "local.lr=0.02",
        "eval.max_new_tokens=12",
    )
    assert done.returncode == 0, done.stderr
    changed = federate(runs, "chat", "data=chat", f"data.path={train}")
    assert (changed.returncode, "belongs to another configuration" in changed.stderr) == (2, True)
    (folder / "chat.jinja").unlink()
    return folder / "chat"


def test_evaluation_chat_and_pipeline_say_the_same(run: Path) -> None:
    """Greedy texts of one conversation: as the run scored them, as `fedlit chat` says them, as transformers does."""
    result = find_result(run)
    answers: Any = load_answers(result)
    task: CausalLM = answers._model.task
    model = load_model(result).model.eval()
    examples = task.evaluation_examples([{"messages": messages} for messages in TESTED])
    evaluated = task.evaluate(model, examples, task.metrics(), torch.device("cpu"))
    predictions = [sample.prediction for sample in evaluated]
    assert all(predictions)

    merged = fedlit("merge", str(run), folder=run.parent)
    assert merged.returncode == 0, merged.stderr
    reader = AutoTokenizer.from_pretrained(run / "merged")
    reader.chat_template = (run / "chat_template.jinja").read_text()
    ends = [reader.eos_token_id, reader.convert_tokens_to_ids(TURN_ENDS[NAME])]
    assert list(task.encoder.end_ids) == sorted(ends)
    talks = pipeline(
        "text-generation", model=AutoModelForCausalLM.from_pretrained(run / "merged"), tokenizer=reader, device="cpu"
    )
    said = [
        talks(messages[:-1], max_new_tokens=12, do_sample=False, eos_token_id=ends)[0]["generated_text"][-1]
        for messages in TESTED
    ]
    assert [message["content"].strip() for message in said] == predictions

    assert answers.obeyed({"message": "/system Be brief."}) == "a new conversation; system: Be brief."
    answers._said = TESTED[0][1:3]
    assert answers.answer({"message": "again"}).text == predictions[0]
    # And by the command, without a system turn.
    once = fedlit("chat", str(run), "--prompt", "sort 9", folder=run.parent.parent)
    assert (once.returncode, once.stdout, once.stderr) == (0, f"{predictions[1]}\n", "")


def test_a_conversation_remembers(run: Path) -> None:
    lines = fedlit("chat", str(run), folder=run.parent, asks="sort 9\nagain\n/new\nagain\n/system Be brief.\nsort 9\n")
    assert lines.returncode == 0
    assert lines.stderr.splitlines() == ["a new conversation", "a new conversation; system: Be brief."]
    turns = fedlit("chat", str(run), "--prompt", "sort 9", "--prompt", "again", folder=run.parent)
    assert turns.returncode == 0
    assert lines.stdout.startswith(turns.stdout)
    answers: Any = load_answers(find_result(run))
    answers.answer({"message": "sort 9"})
    answers.answer({"message": "again"})
    asked = [message["content"] for message in answers._said[::2]]
    assert asked == ["sort 9", "again"]
    assert answers._said[1]["content"] == turns.stdout.splitlines()[0]


def test_a_template_that_was_edited_is_another_run(run: Path) -> None:
    path = run.parent / "chat.jinja"
    words = [line for line in (run / "config.yaml").read_text().splitlines() if "chat.jinja" in line]
    assert len(words) == 1
    path.write_text(template(NAME) + " ")
    try:
        done = fedlit("run", str(run / "config.yaml"), f"run.dir={run.parent}", "run.name=chat", folder=run.parent)
    finally:
        path.unlink()
    assert done.returncode == 2
    assert f"began with another text of data.chat_template={path}" in done.stderr


def test_what_is_missing_is_told_in_one_line(run: Path) -> None:
    """A tokenizer without a template; turns that the template refuses, before a weight is loaded."""
    data = ["data=chat", f"data.path={run.parent / 'chat.jsonl'}"]
    done = federate(run.parent, "none", *data)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: the tokenizer of ")
    assert "give data.chat_template=<file>" in done.stderr
    (run.parent / "gemma.jinja").write_text(template("gemma"))
    rows = [json.loads(line) for line in (run.parent / "chat.jsonl").read_text().splitlines()]
    rows[7]["messages"].insert(0, {"role": "system", "content": "No."})
    words = [f"data.path={write(run.parent / 'odd.jsonl', rows)}", f"model.tokenizer={run.parent / 'reader'}"]
    words = ["data=chat", *words, f"data.chat_template={run.parent / 'gemma.jinja'}"]
    for more in ([], ["dry_run=true"]):
        done = federate(run.parent, "odd", *words, *more)
        told = done.stderr.splitlines()[-1]
        assert done.returncode == 2
        assert told.startswith("error: row 7: the chat template refuses the conversation 'No.")
        assert "System role not supported" in told


def test_plain_texts_are_gone_on_with(runs: Path) -> None:
    folder = runs
    rows = [{"text": f"def {word}{i}(file)\nReturn {word}."} for i in range(6) for word in WORDS]
    path = write(folder / "plain.jsonl", rows)
    done = federate(runs, "plain", "data=plain", f"data.path={path}", "num_rounds=1")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (folder / "plain" / "metrics.jsonl").read_text().splitlines()]
    scores = {key for key in records[-1] if key.startswith("global/")}
    assert scores == {"global/loss"}
    said = fedlit("chat", str(folder / "plain"), "--prompt", "def read1(file)", folder=folder)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.strip()
