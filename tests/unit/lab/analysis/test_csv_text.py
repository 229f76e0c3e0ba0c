"""A spreadsheet that opens what fedlit writes computes nothing, and numbers are numbers."""

import csv
import io

import pytest

from fedlit.lab.analysis.csv_text import csv_text
from fedlit.lab.callbacks.csv_log import to_csv


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize(
    "text", ["=1+1", "+A1", "-A1", "@SUM(A1)", " =1", "\u3000=1", "＝1", "-1-1", "=", "-", "+1e", "-0x1"]
)
def test_a_text_that_would_be_computed_begins_with_an_apostrophe(text: str) -> None:
    assert cells(csv_text([{text: text}], [text])) == [[f"'{text}"], [f"'{text}"]]


@pytest.mark.parametrize("text", ["\t=1", "\r=1", "\n=1", "a\rb", "\x1b[2J", "a\nb"])
def test_control_characters_are_escapes(text: str) -> None:
    assert cells(csv_text([{text: text}], [text])) == [[repr(text)[1:-1]], [repr(text)[1:-1]]]


@pytest.mark.parametrize("number", [-0.25, 0, 3, -1e-05, "-0.25", "+2", "-1e-05", ".5"])
def test_numbers_are_numbers(number: object) -> None:
    assert cells(csv_text([{"a": number}], ["a"])) == [["a"], [str(number)]]


@pytest.mark.parametrize("text", ["fedit", "a=b", "0=0.5 1=-0.25", "–", "'=1", "名前", ""])
def test_other_texts_are_as_they_are(text: str) -> None:
    assert cells(csv_text([{"a": text, "b": 1}, {}], ["a", "b"])) == [["a", "b"], [text, "1"], ["", ""]]


def test_names_from_the_data_in_a_runs_table_are_inert() -> None:
    records = [{"round": 0, "global/loss": 1.5, "=cmd": "=1+1", "time/round_s": 1.0}]
    heads, row = cells(to_csv(records))
    assert "'=cmd" in heads and row[heads.index("'=cmd")] == "'=1+1"
