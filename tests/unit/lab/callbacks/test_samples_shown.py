"""Answers on the console: as many as asked for, on a few lines of its width, and nothing in them acts on a terminal."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from fedlit.lab.callbacks.samples_shown import MAX_TEXT_LINES, SamplesShown, fitted
from fedlit.store.samples import NAME

NASTY = "first \x1b[31m[bold]red[/bold]\r\nsecond \u202e line"


def line(number: int, place: int, **more: Any) -> dict[str, Any]:
    text = {"prompt": f"prompt {place}", "references": ["right", "also"], "prediction": f"answer {place} of {number}"}
    return {"round": number, "set": "global", "client": None, "example": str(place), "position": place, **text, **more}


def printed(folder: Path, lines: list[dict[str, Any]], num_shown: int, width: int = 60, number: int = 2) -> str:
    (folder / NAME).write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=False)
    SamplesShown(console, folder, num_shown).on_round_end({"round": number}, [])
    return stream.getvalue()


def test_those_of_the_round_are_shown(tmp_path: Path) -> None:
    lines = [line(number, place) for number in (1, 2) for place in range(3)]
    text = printed(tmp_path, lines, 2)
    assert "answer 0 of 2" in text and "answer 1 of 2" in text
    assert "answer 2" not in text and "of 1" not in text
    assert "right (and 1 more)" in text
    assert printed(tmp_path, lines, 2, number=3) == ""


def test_whose_model_and_how_sure(tmp_path: Path) -> None:
    text = printed(tmp_path, [line(2, 0, client=7, probability=0.75)], 1)
    assert "answer 0 of 2 (client 7, p = 0.750)" in text


@pytest.mark.parametrize("width", [30, 60, 200])
@pytest.mark.parametrize("text", [NASTY * 100, "長い文です。" * 300, "", "word " * 1000])
def test_nothing_acts_on_the_terminal_or_fills_it(tmp_path: Path, text: str, width: int) -> None:
    found = printed(tmp_path, [line(2, 0, prompt=text, references=[text], prediction=text)], 1, width)
    assert "\x1b" not in found and "\r" not in found and "\u202e" not in found
    rows = found.splitlines()
    assert len(rows) <= 3 * (MAX_TEXT_LINES + 1)
    assert all(Text(row).cell_len <= width for row in rows)
    if text == NASTY * 100 and width > 30:
        assert "\\x1b" in found and "[bold]" in found


def test_a_text_that_is_cut_keeps_both_ends() -> None:
    text = fitted("begin " + "x " * 500 + "end", 40)
    assert text.startswith("begin") and text.endswith("end") and Text(text).cell_len <= 40 * MAX_TEXT_LINES
