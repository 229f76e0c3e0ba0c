"""Each method has a page of one shape, and no page is of anything else."""

import re
from pathlib import Path

import pytest

from fedlit.config.loading import CONFIG_DIR, list_choices
from fedlit.recipes import RECIPES, TABLES

PAGES = Path(__file__).parents[2] / "docs" / "methods"
OTHERS = ("index", "server-side")
"""Pages that are of no method."""

RECIPES_OF_CONFIG = list(list_choices(CONFIG_DIR, "method"))
SECTIONS = ("In short", "Equations", "Run it", "Published numbers", "Differences", "Cost")
IN_SHORT = (
    *("adapter", "local optimizer", "rule", "a client trains", "travels up", "travels down"),
    *("stays with the client", "equal ranks needed?", "exact for what"),
)
LONGEST = 160
"""Lines of a page."""


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def test_every_method_has_a_page_and_every_page_a_method() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {*RECIPES_OF_CONFIG, *OTHERS}


def test_every_page_is_in_the_toctree_once() -> None:
    block = page("index").split("```{toctree}")[1].split("```")[0]
    listed = [line for line in block.split("\n") if line and not line.startswith(":")]
    assert sorted(listed) == sorted([*RECIPES_OF_CONFIG, "server-side"])


def test_every_method_has_its_row_with_a_link_and_its_parts() -> None:
    text = page("index")
    linked = re.findall(r"^\| \[`(\w+)`\]\(\1\.md\)", text, re.MULTILINE)
    assert sorted(linked) == sorted(RECIPES_OF_CONFIG)
    rows = {row.split("|")[1].strip(" `"): row for row in text.splitlines() if row.startswith("| `")}
    for name in RECIPES_OF_CONFIG:
        recipe = RECIPES[name]
        cells = [cell.strip() for cell in re.findall(rf"^\| `{name}` \|(.+)\|$", text, re.MULTILINE)[0].split("|")]
        assert cells[0] == f"`{recipe.adapter}`" and cells[1] == f"`{recipe.optimizer}`"
        assert cells[2].startswith(f"`{recipe.rule}`")
        assert re.findall(r"`(\w+)`", cells[3]) == list(recipe.transforms)
    for kind, parts in TABLES.items():
        row = rows[f"method.{kind}=" if kind != "transform" else "method.transforms=[...]"]
        assert set(re.findall(r"`(\w+)`", row)) == set(parts)


@pytest.mark.parametrize("name", RECIPES_OF_CONFIG)
class TestPage:
    def test_it_has_the_sections_in_their_order(self, name: str) -> None:
        assert tuple(re.findall(r"^## (.+)$", page(name), re.MULTILINE)) == SECTIONS
        assert len(page(name).splitlines()) <= LONGEST

    def test_the_table_in_short_names_its_parts(self, name: str) -> None:
        section = page(name).split("\n## In short\n")[1].split("\n## ")[0].replace("travels up, down", "travels up")
        rows = dict(re.findall(r"^\| ([\w ?]+) \| (.+) \|$", section, re.MULTILINE))
        assert tuple(rows) in (IN_SHORT, tuple(row for row in IN_SHORT if row != "travels down"))
        recipe = RECIPES[name]
        assert f"`{recipe.adapter}`" in rows["adapter"] and f"`{recipe.optimizer}`" in rows["local optimizer"]
        assert f"`{recipe.rule}`" in rows["rule"]
        assert all(f"`{transform}`" in rows["rule"] for transform in recipe.transforms)

    def test_its_command_and_its_options_are_its_own(self, name: str) -> None:
        section = page(name).split("\n## Run it\n")[1].split("\n## ")[0]
        command = re.search(r"<!-- run: short -->\n```bash\n(fedlit run [^`]+)```", section)
        assert command is not None and f" method={name} " in command[1]
        assert "num_clients=2 " in command[1]
        assert re.findall(r"^<!-- table: (.+) -->$", section, re.MULTILINE) == [f"method {name}"]

    def test_it_leads_to_what_is_known_of_published_numbers(self, name: str) -> None:
        section = page(name).split("\n## Published numbers\n")[1].split("\n## ")[0]
        assert "](../explanation/published-numbers.md" in section
