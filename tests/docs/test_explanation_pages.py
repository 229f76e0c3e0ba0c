"""The pages of docs/explanation name what is there: scripts of findings/ with their versions, and tests."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = REPOSITORY / "docs" / "explanation"
SCRIPTS = sorted((REPOSITORY / "findings").glob("*.sh"))


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_finding_is_on_both_pages_with_the_versions_that_it_installs(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    rows = [line for line in page("findings").splitlines() if line.startswith(f"| `{script.stem}` |")]
    assert len(rows) == 1, "docs/explanation/findings.md has one row for each script"
    assert f"`findings/{script.name}`" in page("surprises"), "docs/explanation/surprises.md names it"
    pinned = re.findall(r"([a-z][a-z_-]*)(?:\[[a-z]+\])?==(\d[\d.]*)", text)
    missing = [f"{package} {version}" for package, version in pinned if f"{package} {version}" not in rows[0]]
    assert missing == []


def test_the_pages_name_no_finding_that_is_not_there() -> None:
    listed = re.findall(r"^\| `(\w+)` \| [a-z]", page("findings"), flags=re.MULTILINE)
    named = re.findall(r"`findings/(\w+)\.sh`", page("surprises"))
    assert listed == [script.stem for script in SCRIPTS]
    assert set(named) == set(listed)


@pytest.mark.parametrize("name", ["exactness", "bits", "surprises"])
def test_every_test_that_a_page_names_is_there(name: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page(name))
    assert named
    for file, function in named:
        path = REPOSITORY / file
        assert path.is_file(), file
        assert not function or f"def {function}(" in path.read_text(encoding="utf-8"), f"{file}::{function}"


def test_every_surprise_has_a_test_or_a_finding() -> None:
    cells = [line.strip("|").split(" | ") for line in page("surprises").splitlines() if line.startswith("| ")]
    rows = [row for row in cells if not row[0].strip().startswith("what really happens")]
    assert len(rows) >= 25
    for row in rows:
        assert len(row) == 5, row[0]
        assert "`tests/" in row[4] or "`findings/" in row[4], row[0]


def test_the_glossary_is_in_order_and_has_no_term_twice() -> None:
    body = page("glossary").split("```{glossary}\n")[1].split("```")[0]
    terms = [block.splitlines()[0] for block in body.strip().split("\n\n")]
    assert len(terms) >= 45
    assert terms == sorted(set(terms), key=str.casefold)
