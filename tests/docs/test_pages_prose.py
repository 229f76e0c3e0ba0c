"""The running text of every page: its keys, choices, commands and options are there, its links lead somewhere."""

import json

import pytest
from links import broken_links
from pages import REPOSITORY, all_pages
from prose import FOREIGN_KEYS, spans, wrong_names

from fedlit.config.keys import SCHEMA
from fedlit.outside.kinds import KINDS

NOTEBOOKS = [path.relative_to(REPOSITORY).as_posix() for path in sorted((REPOSITORY / "docs").rglob("*.ipynb"))]


@pytest.mark.parametrize("page", all_pages())
def test_what_the_text_names_is_there(page: str) -> None:
    assert wrong_names(page) == []


@pytest.mark.parametrize("page", all_pages())
def test_the_links_lead_somewhere(page: str) -> None:
    assert broken_links(page) == []


def test_the_allowed_names_are_no_keys() -> None:
    assert [key for key in FOREIGN_KEYS if key in SCHEMA] == []


def test_the_page_of_parts_knows_every_kind() -> None:
    named = {span for _, span in spans("docs/howto/plugins.md")}
    assert [kind for kind in KINDS if kind not in named] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_without_outputs_and_compiles(name: str) -> None:
    cells = json.loads((REPOSITORY / name).read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []
    for cell in code:
        text = "".join(cell["source"])
        compile("\n".join("pass" if line.startswith(("%", "!")) else line for line in text.splitlines()), name, "exec")
