"""A sweep of parts from outside: its file, the experiment that it starts from, or the user names their module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedlit.config import Sweep, load_config, load_sweep
from fedlit.errors import UserError
from fedlit.registry import snapshot

PARTS = """
from dataclasses import dataclass

from fedlit.plugins import FRACTION, Recipe, option, register
from fedlit.plugins import FedAvg


@register("rule", "rule_of_{name}")
@dataclass(frozen=True, kw_only=True)
class Rule(FedAvg):
    pull_of_{name}: float = option(0.5, "share", range=FRACTION)


register("recipe", "method_of_{name}", Recipe(adapter="lora", rule="rule_of_{name}"))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the name of a module that nobody has imported, in the working folder."""
    name = f"swept_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(PARTS.format(name=name), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    restore = snapshot()
    yield name
    restore()


def written(text: str) -> Sweep:
    Path("grid.yaml").write_text(text, encoding="utf-8")
    return load_sweep("grid.yaml")


@pytest.mark.parametrize("place", ["overrides", "experiment", "axis", "extra"])
def test_a_sweep_varies_a_recipe_from_outside_and_its_options(here: str, place: str) -> None:
    Path("mine.yaml").write_text(f"plugins: [{here}]\n", encoding="utf-8")
    axes = f"axes: {{method: [method_of_{here}], method.pull_of_{here}: [0.1, 0.2]"
    text = {
        "overrides": f"overrides: {{plugins: [{here}]}}\n{axes}}}\n",
        "experiment": f"experiment: mine.yaml\n{axes}}}\n",
        "axis": f"{axes}, plugins: [[{here}]]}}\n",
        "extra": "extra:\n"
        + "".join(
            f"  - {{plugins: [{here}], method: method_of_{here}, method.pull_of_{here}: {x}}}\n" for x in (0.1, 0.2)
        ),
    }[place]
    configs = [load_config(cell.arguments) for cell in written(text).cells()]
    assert [config.method.options[f"pull_of_{here}"] for config in configs] == [0.1, 0.2]


def test_a_user_s_own_plugins_bring_their_options(here: str) -> None:
    whole = written("axes: {seed: [0, 1]}\n")
    (cell,) = whole.cells([f"plugins=[{here}]", f"method.rule=rule_of_{here}", f"method.pull_of_{here}=0.1", "seed=1"])
    assert load_config(cell.arguments).method.options[f"pull_of_{here}"] == 0.1


@pytest.mark.parametrize(
    ("plugins", "told"),
    [
        ("[nowhere_at_all]", "nowhere_at_all cannot be imported"),
        ("my_parts", r"plugins=my_parts \(grid.yaml\) has the wrong type"),
        ("{a: 1}", r"plugins=.* \(grid.yaml\) has the wrong type"),
    ],
)
def test_plugins_that_are_none_are_told(here: str, plugins: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        written(f"overrides: {{plugins: {plugins}}}\naxes: {{seed: [0, 1]}}\n")
