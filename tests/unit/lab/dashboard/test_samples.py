"""Answers on the page: each example once, a few rounds of each run, and a bound on the whole."""

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import collection

from fedlit.lab.analysis.collection import Collection
from fedlit.lab.dashboard import samples
from fedlit.lab.dashboard.data import page_data
from fedlit.lab.dashboard.page import render
from fedlit.lab.dashboard.samples import MAX_ROUNDS, MAX_TEXT_CHARACTERS, middle_cut, samples_of, spread
from fedlit.lab.report.table import build_table
from fedlit.store.samples import NAME


def write(found: Collection, num_rounds: int = 10, size: int = 10, places: int = 3) -> None:
    for run in found.entries:
        run.folder.mkdir(parents=True, exist_ok=True)
        texts = [{"prompt": f"</script><b>{place}{'p' * size}", "references": ["right"]} for place in range(places)]
        lines: list[dict[str, Any]] = [
            {"round": number, "set": "global", "client": None, "example": f"e{place}", "position": place}
            | texts[place]
            | {"prediction": f"{run.name} {number}"}
            for number in range(num_rounds)
            for place in range(places)
        ]
        (run.folder / NAME).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def found(tmp_path: Path) -> Collection:
    made = collection(tmp_path)
    write(made)
    return made


def test_an_example_stands_once_and_every_run_has_its_answers(found: Collection) -> None:
    shown = samples_of(found.entries)
    assert len(shown.examples) == 3 and len(shown.runs) == len(found.entries)
    for run in shown.runs:
        assert run.rounds == [0, 1, 3, 5, 7, 9] and len(run.rounds) == MAX_ROUNDS
        assert [answer.text for answer in run.answers[-1]] == [f"{run.name} 9"] * 3


def test_a_page_has_the_section_where_there_is_something(found: Collection, tmp_path: Path) -> None:
    html = render(page_data(found), build_table(found), made_at=datetime(2026, 1, 2, tzinfo=UTC))
    assert 'id="samples"' in html and "fillSamples();" in html
    drawn = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert drawn is not None
    assert json.loads(drawn[1])["samples"] == json.loads(json.dumps(asdict(samples_of(found.entries))))
    assert "</script><b>" not in html
    empty = collection(tmp_path / "other")
    html = render(page_data(empty), build_table(empty), made_at=datetime(2026, 1, 2, tzinfo=UTC))
    assert 'id="samples"' not in html


def test_a_page_stays_small(found: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    write(found, size=5000)
    whole = samples_of(found.entries)
    assert all(len(each.prompt) <= MAX_TEXT_CHARACTERS + 10 for each in whole.examples)
    for limit, most in ((6000, 5), (3500, 1)):
        monkeypatch.setattr(samples, "MAX_CHARACTERS", limit)
        shown = samples_of(found.entries)
        assert max(len(run.rounds) for run in shown.runs) <= most
        assert shown.runs[0].rounds[-1] == 9
    monkeypatch.setattr(samples, "MAX_CHARACTERS", 2900)
    shown = samples_of(found.entries)
    assert 0 < len(shown.runs) < len(found.entries) == len(shown.runs) + shown.left_out


def test_rounds_are_spread() -> None:
    assert spread([0, 5, 10], 6) == [0, 5, 10]
    assert spread(list(range(100)), 3) == [0, 49, 99] and spread([3, 9], 1) == [9]


def test_a_long_text_keeps_both_ends() -> None:
    text = middle_cut("a" * 5000 + "?")
    assert text.startswith("aaa") and text.endswith("a?") and len(text) < MAX_TEXT_CHARACTERS + 10


def test_damaged_lines_do_not_keep_the_page_from_being_made(found: Collection) -> None:
    with (found.entries[0].folder / NAME).open("a", encoding="utf-8") as file:
        file.write('{"round": 9}\n{"round": 9, "references": 3, "client": "x", "prediction": null}\nno json\n')
    assert samples_of(found.entries).runs
