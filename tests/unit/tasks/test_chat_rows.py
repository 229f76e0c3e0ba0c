"""Conversations in the forms of people become one form; every mistake in one is a line that says where."""

from pathlib import Path
from typing import Any

import pytest

from fedlit.config import DataConfig
from fedlit.config.loading import load_config_from
from fedlit.data.chat_template import given_template
from fedlit.data.own_rows import own_rows
from fedlit.errors import UserError
from fedlit.tasks.registry import task_spec

PLACE = "rows.jsonl, line 12"
USER, ANSWER = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}
GOOD = [USER, ANSWER]
CHAT = DataConfig(messages="messages", label=None)
SPEC = task_spec("causal_lm")


def checked(messages: Any, config: DataConfig = CHAT, **more: Any) -> dict[str, Any] | None:
    return SPEC.check_row({"messages": messages, **more}, PLACE, config)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (GOOD, GOOD),
        ([{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}], GOOD),
        ([{"from": "user", "value": "2 + 2?", "role": None}, {"from": "assistant", "value": "4"}], GOOD),
        (
            [{"role": "user", "content": [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}]}, ANSWER],
            GOOD,
        ),
        ([{**USER, "tool_calls": None, "name": None}, {**ANSWER, "name": None}], GOOD),
        (
            [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "2 + 2?"},
                {"from": "gpt", "value": "", "tool_calls": [{"name": "add"}]},
                {"from": "observation", "value": "4"},
                {"from": "gpt", "value": "4"},
            ],
            [
                {"role": "system", "content": "Be brief."},
                USER,
                {"role": "assistant", "content": "", "tool_calls": [{"name": "add"}]},
                {"role": "tool", "content": "4"},
                ANSWER,
            ],
        ),
        (
            [USER, {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}], "weight": 0}],
            [USER, {"role": "assistant", "tool_calls": [{"name": "add"}], "weight": 0}],
        ),
    ],
)
def test_forms_of_messages(given: list[Any], expected: list[Any]) -> None:
    before = repr(given)
    row = checked(given)
    assert row == {"messages": expected}
    assert repr(given) == before
    assert SPEC.check_row(row, PLACE, CHAT) == row


@pytest.mark.parametrize(
    ("messages", "parts"),
    [
        ("text", ["holds 'text', not a list of messages", 'write [{"role"']),
        ({"role": ["user"]}, ["not a list of messages"]),
        ([], ["holds no message"]),
        (["text"], ["turn 1: 'text' is no message"]),
        ([USER, {"role": "bot", "content": "4"}], ["turn 2: role is 'bot'", "write one of system, developer, user,"]),
        ([USER, {"role": None, "content": "4"}], ["turn 2: role is None"]),
        ([{"from": "someone", "value": "4"}], ["turn 1: from is 'someone'", "human, gpt"]),
        ([{"content": "4"}], ["turn 1: role is None"]),
        ([USER], ["has no assistant turn", "data.drop_empty=true"]),
        ([*GOOD, USER], ["ends with turn 3 of role 'user'", "take the turns after turn 2 out"]),
        ([ANSWER], ["has one turn, the assistant's"]),
        ([{**USER, "content": " "}, ANSWER], ["turn 1 (user) is empty"]),
        ([*GOOD, USER, {**ANSWER, "content": ""}], ["the last turn, is empty", "data.drop_empty=true"]),
        ([USER, {**ANSWER, "content": ""}, USER, ANSWER], ["turn 2 (assistant) is empty"]),
        ([{"role": "user"}, ANSWER], ["turn 1 (user): content is missing or null"]),
        ([USER, {"role": "assistant", "content": None}], ["turn 2 (assistant): content is missing or null"]),
        ([{**USER, "content": 4}, ANSWER], ["turn 1 (user): content holds 4, not a text"]),
        (
            [{**USER, "content": [{"type": "image_url", "image_url": "x"}]}, ANSWER],
            ["turn 1 (user): content has a part of type 'image_url'", "take it out"],
        ),
        ([{**USER, "content": [{"type": "text", "text": 4}]}, ANSWER], ["has a part {'text': 4, 'type': 'text'}"]),
        ([{**USER, "content": "a\ud83d"}, ANSWER], ["turn 1: content holds half of a surrogate pair"]),
    ],
)
def test_mistakes_in_messages(messages: Any, parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        checked(messages)
    message = str(error.value)
    assert message.startswith(f"{PLACE}: column 'messages' (data.messages)")
    assert len(message) <= 400
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("messages", [[USER], [*GOOD, USER], [USER, {**ANSWER, "content": " "}]])
def test_rows_without_an_answer_are_left_out_where_that_is_asked_for(messages: list[Any]) -> None:
    assert checked(messages, DataConfig(messages="messages", label=None, drop_empty=True)) is None


def test_two_columns_and_tools() -> None:
    config = DataConfig(messages=["prompt", "completion"], label="topic")
    row = {"prompt": [USER], "completion": [ANSWER], "topic": "sums", "tools": '[{"name": "add"}]'}
    checked_row = SPEC.check_row(row, PLACE, config)
    assert checked_row == {**row, "tools": [{"name": "add"}]}
    assert SPEC.text(checked_row, config) == "2 + 2?\n4"
    with pytest.raises(UserError, match=r"column 'tools' holds 'add', not a list of tools"):
        SPEC.check_row({**row, "tools": "add"}, PLACE, config)
    with pytest.raises(UserError, match=r"column 'completion' \(data.messages\) has no assistant turn"):
        SPEC.check_row({**row, "completion": [USER]}, PLACE, config)
    with pytest.raises(UserError, match=r"data.messages=<column>, or \[prompt,response\]"):
        SPEC.check_row({"prompt": [USER], "response": [ANSWER], "label": 1}, PLACE, DataConfig())
    with pytest.raises(
        UserError, match=r"no column 'messages' \(asked for by data.messages\).*give data.messages=<col"
    ):
        SPEC.check_row(row, PLACE, CHAT)


def test_what_is_asked_is_all_before_the_last_answer() -> None:
    """It is the same whatever template writes it, so that no row for testing is trained on."""
    long: list[dict[str, Any]] = [*GOOD, {"role": "user", "content": "And 3?"}, {"role": "assistant", "content": "7"}]
    rows = [{"messages": messages} for messages in (long, [*long[:-1], ANSWER], [*GOOD, *long[-1:]], GOOD)]
    identities = [SPEC.identity(row, CHAT) for row in rows]
    assert [identities.index(identity) for identity in identities] == [0, 0, 2, 3]


def test_rows_from_python() -> None:
    parts, _ = own_rows({"a": [{"messages": GOOD}], "b": [{"messages": GOOD}]}, "rows").checked("rows", CHAT)
    assert parts == [[{"messages": GOOD}], [{"messages": GOOD}]]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"data.messages": "m", "data.text": "t"}, "data.text=t (mapping) is at odds with data.messages=m"),
        ({"data.messages": "m", "data.prompt": "p"}, "data.prompt=p (mapping) is at odds with data.messages=m"),
        ({"data.messages": "m", "data.template": "{q}"}, "does nothing beside data.messages=m"),
        ({"data.messages": "m", "data.response": "r"}, "data.response=r (mapping) does nothing beside"),
        ({"data.text": "t", "data.template": "{q}"}, "does nothing beside data.text=t"),
        ({"data.text": "t", "data.prompt": "p"}, "is at odds with data.text=t"),
        ({"data.messages": ["m"]}, "give one column, or two"),
        ({"data.text": ["m", "n"]}, "give one column"),
        ({"data.chat_template": "x"}, "is for conversations"),
        ({"data.text": "t", "data.scores": ["rouge_l"]}, "its score is the loss"),
        ({"data.text": "t", "eval.protocol": "teacher_forced"}, "its score is the loss"),
        ({"data.text": "t", "eval.score": "rouge_l"}, "give loss"),
        ({"data.messages": "m", "data.test_template": "{q}"}, "does nothing beside data.messages"),
    ],
)
def test_forms_at_odds(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        load_config_from(settings, origin="test")
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "is not there"),
        ("", "is empty"),
        ("{% for m in messages %}\n{{ m.content }", "line 2: unexpected '}'; mend the template"),
        ("{% for m in messages %}{% generation %}{{ m }}{% endfor %}", "line 1: "),
        ("{% for m in messages %}{{ m | nope }}{% endfor %}", "line 1: No filter named 'nope'; mend the template"),
        ("Hello {{ name }}", "has no `messages`"),
        (b"\xff\xfe", "it is not UTF-8"),
    ],
)
def test_a_bad_template_is_told_before_a_row_is_read(text: str | bytes | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as error:
        SPEC.columns(DataConfig(messages="messages", chat_template=str(path)))
    assert str(error.value).startswith(f"data.chat_template={path}")
    assert told in str(error.value)


def test_a_template_with_marks_and_loop_controls(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    text = "{% for m in messages %}{% if m.x %}{% continue %}{% endif %}{% generation %}{{ m }}{% endgeneration %}"
    text += "{% endfor %}"
    path.write_text(text)
    assert given_template(DataConfig(chat_template=str(path))) == text
