"""What others wrote fits on one line of a console, its beginning and its end, and does nothing there."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlit.commands.endings import tell, without_traceback
from fedlit.errors import UserError
from fedlit.lines import cut, one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("名前 नाम\u3000ا\u200db", "名前 नाम\u3000ا\u200db"),
        ("a\nb", "a\\nb"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eabc\u2028", "\\u202eabc\\u2028"),
        ("\udcff", "\\udcff"),
    ],
)
def test_control_characters_are_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(max_size=900), st.integers(60, 400))
def test_a_line_has_a_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit and "\n" not in line and printable(line) == line
    assert len(cut(text, limit)) <= limit


def test_of_a_long_message_fact_and_remedy_are_left() -> None:
    line = one_line("the fact " + "x" * 1_000_000 + "; the remedy")
    assert len(line) == 400 and line.startswith("the fact x") and line.endswith("x; the remedy")


def test_every_mistake_is_told_in_400_characters_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    mistake = UserError("data.path=" + "\x1b[2Jé\n" * 500_000 + " is not there; give another")

    def action() -> int:
        raise pickle.loads(pickle.dumps(mistake))

    assert without_traceback(action) == 2
    tell("warning: \x1b]0;title\x07\r")
    error, warning = capsys.readouterr().err.splitlines()
    assert error.startswith("error: data.path=\\x1b[2Jé\\n") and error.endswith("; give another") and len(error) <= 400
    assert warning == "warning: \\x1b]0;title\\x07\\r"


def test_no_word_is_cut_where_the_middle_is_left_out() -> None:
    words = [f"name_{number}" for number in range(200)]
    line = one_line(f"unknown key. Valid names: {', '.join(words)}")
    head, tail = line.split(" ... ")
    assert {*head.partition(": ")[2].strip(",").split(", "), *tail.split(", ")} <= set(words) and len(line) > 350
