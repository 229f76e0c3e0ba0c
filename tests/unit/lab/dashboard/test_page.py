"""The page as a file: whole, escaped, shut off from the network, and of a size that opens."""

import base64
import hashlib
import json
import re
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_runs import collection

from fedlit.lab.analysis.collection import Collection
from fedlit.lab.dashboard.data import PageData, page_data
from fedlit.lab.dashboard.page import KINDS, render, write_page
from fedlit.lab.report.table import build_table
from fedlit.lab.sweeps.cells import STALE
from fedlit.store.status import STATES
from fedlit.store.task_version import TaskVersion

MADE_AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = (
    "</script><script>document.documentElement.dataset.errors = 99</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    '"><b>&amp;',
    "{{ 7 * 7 }}\u2028\u0000x",
)


class Reader(HTMLParser):
    """Reads a page as a browser does: elements with their attributes, and the text of scripts and of all else."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and self.lasttag == "script" and self.cdata_elem:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        else:
            self.text += data


def page_of(found: Collection) -> tuple[str, PageData]:
    page = page_data(found)
    return render(page, build_table(found), made_at=MADE_AT), page


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


@pytest.fixture(scope="module")
def plain() -> tuple[str, PageData]:
    return page_of(collection(Path("runs/demo"), states={1: "running", 2: "pending"}))


def hostile_collection() -> Collection:
    found = collection(Path("runs") / HOSTILE[0], methods=HOSTILE, num_seeds=1, states={0: "failed"})
    entries = []
    for i, run in enumerate(found.entries):
        assert run.config is not None
        assert run.partition is not None
        run.config.model.name = HOSTILE[1]
        partition = {**run.partition, "data": HOSTILE[2], "label": HOSTILE[i]}
        partition["clients"][0]["train_labels"] = dict.fromkeys(HOSTILE, 7)
        status = replace(run.status, reason=HOSTILE[0], log=HOSTILE[3], job=HOSTILE[1])
        entries.append(replace(run, name=HOSTILE[i], partition=partition, status=status))
    return replace(found, entries=tuple(entries), name=HOSTILE[3])


def test_what_files_say_makes_no_element_and_no_script(plain: tuple[str, PageData]) -> None:
    html, page = page_of(hostile_collection())
    reader, calm = read(html), read(plain[0])
    assert len(reader.scripts) == len(calm.scripts) == 4
    assert {tag for tag, _ in reader.elements} <= {tag for tag, _ in calm.elements} | {"br"}
    assert HOSTILE[0] in reader.text
    drawn = next(json.loads(text) for attributes, text in reader.scripts if attributes.get("id") == "data")
    assert drawn["factors"][0]["values"] == page.factors[0].values == list(HOSTILE)


def test_the_script_reads_what_was_computed(plain: tuple[str, PageData]) -> None:
    html, page = plain
    drawn = next(json.loads(text) for attributes, text in read(html).scripts if attributes.get("id") == "data")
    expected = json.loads(json.dumps(asdict(page)))
    assert drawn == {key: expected[key] for key in drawn}
    assert {"groups", "labels", "scores"} <= drawn.keys()


def test_the_policy_lets_only_the_pages_own_scripts_run(plain: tuple[str, PageData]) -> None:
    reader = read(plain[0])
    policies = [a["content"] for tag, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0] is not None
    allowed = set(re.findall(r"'sha256-([^']+)'", policies[0]))
    code = [text for attributes, text in reader.scripts if "type" not in attributes]
    assert {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code} == allowed
    assert policies[0].startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policies[0]
    directives = dict(part.strip().split(" ", 1) for part in policies[0].split(";"))
    assert {name: directives[name] for name in ("base-uri", "form-action")} == dict.fromkeys(
        ("base-uri", "form-action"), "'none'"
    )  # neither falls back to default-src


def test_nothing_is_loaded_from_elsewhere(plain: tuple[str, PageData]) -> None:
    reader = read(plain[0])
    assert not {tag for tag, _ in reader.elements} & {"link", "img", "iframe", "object", "embed", "base", "form"}
    assert not [a for _, a in reader.elements if "src" in a]
    assert all(href is not None and href.startswith("#") for _, a in reader.elements if (href := a.get("href")))
    style = plain[0].partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_controls_have_names_and_tables_have_heads(plain: tuple[str, PageData]) -> None:
    reader = read(plain[0])
    heads = [a for tag, a in reader.elements if tag == "th"]
    assert heads
    assert all(a.get("scope") in ("col", "row") for a in heads)
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"]).removeprefix("#") for tag, a in reader.elements if tag == "a"}
    assert targets <= set(ids)


def test_every_state_has_a_mark() -> None:
    assert KINDS.keys() == {*STATES, "unknown", STALE}


def test_a_page_about_nothing_says_so() -> None:
    html, _ = page_of(collection(Path("runs/demo"), states=dict.fromkeys(range(6), "pending")))
    assert "No run has finished a round yet" in html
    assert read(html).text.count("missing") >= 6


def test_200_runs_make_a_page_of_reasonable_size(tmp_path: Path) -> None:
    datas, methods = [f"data{i}" for i in range(5)], [f"method{i}" for i in range(10)]
    found = collection(tmp_path, datas=datas, methods=methods, num_clients=(4, 16), num_rounds=50)
    assert len(found.entries) == 200
    began_s = time.process_time()
    write_page(found, tmp_path / "new" / "page.html")
    assert time.process_time() - began_s < 10  # a second or two; machines differ
    html = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    drawn = next(text for attributes, text in read(html).scripts if attributes.get("id") == "data")
    assert len(drawn) < 1_000_000
    assert len(html) < 7_000_000
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_equal_runs_make_equal_pages(plain: tuple[str, PageData]) -> None:
    again, _ = page_of(collection(Path("runs/demo"), states={1: "running", 2: "pending"}))
    assert again == plain[0]


def test_task_versions_that_differ_are_told_at_the_head(tmp_path: Path) -> None:
    found = collection(tmp_path)
    usual, other = (TaskVersion(parts={"template": text}, rows={"global": "r"}) for text in ("x", "y"))
    entries = [replace(run, version=usual) for run in found.entries]
    write_page(replace(found, entries=tuple(entries)), tmp_path / "page.html")
    same = read((tmp_path / "page.html").read_text()).text
    assert "ask versions differ" not in same
    assert f"Task version {usual.protocol[:8]}" in same
    write_page(replace(found, entries=(*entries[:-1], replace(entries[-1], version=other))), tmp_path / "page.html")
    text = read((tmp_path / "page.html").read_text()).text
    assert "Task versions differ in" in text
    assert "another task version (template)" in text
