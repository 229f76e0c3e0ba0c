"""Test rows with one prompt become one question; options come from the prompt, candidates from the response."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.config import DataConfig
from fedlit.errors import UserError
from fedlit.tasks.questions import evaluation_questions, exchange_option

PATTERN = r"Answer format: (\S+)"
BOOLQ = {
    "task": "boolq",
    "instruction": "Is it true?\n\nAnswer format: true/false",
    "output": "the correct answer is false",
}


def commonsense(**changes: Any) -> DataConfig:
    return DataConfig(
        **{
            "template": "{instruction}\n",
            "required": ["instruction"],
            "response": "output",
            "options": PATTERN,
            "score_by": "task",
            **changes,
        }
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=12))
def test_rows_with_one_prompt_are_one_question(pairs: list[tuple[str, int]]) -> None:
    rows = [{"prompt": prompt, "response": f"r{number}"} for prompt, number in pairs]
    questions = evaluation_questions(rows, DataConfig(multiple_references=True))
    assert [question.prompt for question in questions] == [f"{p}\n" for p in dict.fromkeys(p for p, _ in pairs)]
    for question in questions:
        assert list(question.references) == [f"r{n}" for p, n in pairs if f"{p}\n" == question.prompt]
    apart = evaluation_questions(rows, DataConfig())
    assert [(question.prompt, *question.references) for question in apart] == [(f"{p}\n", f"r{n}") for p, n in pairs]


def test_prompts_are_those_of_evaluation() -> None:
    """Rows that training tells apart may be one question, and the other way round."""
    data = DataConfig(template="{prompt} {style}\n", test_template="{prompt}?", multiple_references=True)
    rows = [{"prompt": "p", "style": style, "response": style} for style in "xy"]
    (question,) = evaluation_questions(rows, data)
    assert (question.prompt, question.references) == ("p?", ("x", "y"))


@pytest.mark.parametrize("multiple", [True, False])
def test_a_missing_reference_is_an_error(multiple: bool) -> None:
    rows = [{"prompt": "a", "response": "x"}, {"prompt": "a", "response": " \n"}]
    with pytest.raises(UserError, match=r"^test row 1: no reference, column 'response' .*fill it in"):
        evaluation_questions(rows, DataConfig(multiple_references=multiple))


def test_options_group_and_candidates() -> None:
    (question,) = evaluation_questions([BOOLQ], commonsense(), by_options=True)
    assert question.group == "boolq"
    assert question.options == ("true", "false")
    assert question.candidates == ("the correct answer is true", "the correct answer is false")
    assert (question.right_option, question.references) == (1, ("the correct answer is false",))
    (plain,) = evaluation_questions([BOOLQ], commonsense())
    assert (plain.options, plain.candidates) == (("true", "false"), ())


@pytest.mark.parametrize(
    ("response", "options", "expected"),
    [
        ("It is B.", ["A", "B"], (("It is A.", "It is B."), 1)),
        ("true", ["false", "true"], (("false", "true"), 1)),
        ("the answer is answer1", ["answer1", "answer10"], (("the answer is answer1", "the answer is answer10"), 0)),
        ("answer10!", ["answer1", "answer10"], (("answer1!", "answer10!"), 1)),
        ("True, I say", ["true", "false"], (("True, I say", "false, I say"), 0)),  # a row's own response stays
        ("new york", ["new", "new york"], (("new", "new york"), 1)),
        ("a+b", ["a+b", "a.b"], (("a+b", "a.b"), 0)),
        ("one, not two", ["two", "one"], (("two, not two", "one, not two"), 1)),  # the first named
        ("untrue, so false", ["true", "false"], (("untrue, so true", "untrue, so false"), 1)),  # whole words
    ],
)
def test_an_option_is_exchanged(response: str, options: list[str], expected: tuple[tuple[str, ...], int]) -> None:
    assert exchange_option(response, options, "row") == expected


@pytest.mark.parametrize(
    ("row", "changes", "parts"),
    [
        ({"output": "maybe"}, {}, ["test row 1", "'maybe' names none of the options true, false", "generate"]),
        ({"instruction": "Is it?"}, {}, ["test row 1", "data.options", "Is it?", "slashes"]),
        ({}, {"options": "Answer format: .*"}, ["data.options", "group"]),
        ({}, {"options": "("}, ["data.options='('", "regular expression"]),
        ({"task": None}, {}, ["test row 1", "'task' (data.score_by)", "data.score_by=null"]),
        ({}, {"score_by": "topic"}, ["'topic' (data.score_by)", "'output'"]),
    ],
)
def test_rows_that_cannot_be_asked(row: dict[str, Any], changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        evaluation_questions([BOOLQ, BOOLQ | row], commonsense(**changes), by_options=True)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_reference_without_an_answer_is_told_before_anything_is_scored() -> None:
    data = DataConfig(prompt="q", response="a", answer="number", scores=["exact_match"])
    rows = [{"q": "1 + 1?", "a": "#### 2"}, {"q": "2 + 2?", "a": "four"}]
    with pytest.raises(UserError, match=r"test row 1: the reference 'four' gives no answer of data\.answer=number"):
        evaluation_questions(rows, data)
    assert len(evaluation_questions(rows, replace(data, answer="boxed"))) == 2
    assert len(evaluation_questions(rows, replace(data, scores=["rouge_l"]))) == 2
