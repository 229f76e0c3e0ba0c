"""Modules that cannot be imported, and installed plugins, which are imported when a configuration names their parts."""

import subprocess
import sys
from pathlib import Path

import pytest
from written_modules import RULE, WriteModule

from fedlit import plugins
from fedlit.config import load_config
from fedlit.errors import UserError
from fedlit.outside.loading import describe_installed, load_plugins, named_parts
from fedlit.outside.record import plugin_records, require_named
from fedlit.registry import registered


def refusal(modules: list[str]) -> str:
    with pytest.raises(UserError) as caught:
        load_plugins(modules)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = (\n", "(SyntaxError: '(' was never closed at bad.py:4); mend it, or leave it out of plugins"),
        ("import no_such_library\n", "(ModuleNotFoundError: No module named 'no_such_library' at bad.py:4); mend it"),
        ("from helper import f\nf()\n", "(ZeroDivisionError: division by zero at helper.py:5); mend it"),
        ("raise SystemExit('gone')\n", "(SystemExit: gone at bad.py:4); mend it"),
        ("from fedlit.plugins import NoSuchName\n", "ImportError: cannot import name 'NoSuchName'"),
        ("register('rule', 'x', 1)\n", "register: rule x (bad.py:4) is no dataclass"),
    ],
)
def test_a_module_that_fails_is_told_with_its_innermost_line(write_module: WriteModule, text: str, told: str) -> None:
    write_module("helper", "def f():\n    return 1 / 0\n")
    write_module("bad", text)
    assert told in refusal(["bad"])


def test_a_module_that_is_not_there(folder: Path) -> None:
    told = "plugins: the module no_such_module cannot be imported (there is no no_such_module); give the name of a "
    assert refusal(["no_such_module"]).startswith(told)
    assert "(there is no no_such_module)" in refusal(["no_such_module.parts"])


def test_a_folder_that_imports_nothing_is_told(write_module: WriteModule) -> None:
    write_module("my_folder/parts", RULE)
    assert "my_folder is a folder without __init__.py" in refusal(["my_folder"])
    assert "give plugins=[my_folder.parts]" in refusal(["my_folder"])
    load_plugins(["my_folder.parts"])
    assert "mine" in registered("rule")


def test_a_module_that_fails_half_way_leaves_no_part(write_module: WriteModule) -> None:
    write_module("bad", RULE + "1 / 0\n")
    refusal(["bad"])
    assert "mine" not in registered("rule")


# --- installed plugins


def install(folder: Path, distribution: str, module: str, version: str = "1.2") -> None:
    """Write what pip writes of a distribution with one entry point."""
    info = folder / f"{distribution}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[fedlit.plugins]\n{distribution} = {module}\n")


@pytest.fixture
def installed(folder: Path, write_module: WriteModule) -> Path:
    """Two distributions: one whose module fails, and one that has the rule and a reader."""
    write_module("broken_parts", "1 / 0\n")
    write_module("trimmed_parts", RULE + READER)
    install(folder, "a-broken-one", "broken_parts")
    install(folder, "trimmed", "trimmed_parts", "3.4")
    return folder


READER = """
@register("reader", "mine")
@dataclass
class MyReader(Reader):
    word: str = option(help="what is read")
    def rows(self, data):
        return [{"prompt": f"{self.word} {i}", "response": "x", "label": "y"} for i in range(20)]
"""


def test_installed_plugins_are_listed_without_an_import(installed: Path) -> None:
    assert describe_installed() == [
        "a-broken-one: broken_parts (a-broken-one 1.2)",
        "trimmed: trimmed_parts (trimmed 3.4)",
    ]
    assert not {"broken_parts", "trimmed_parts"} & set(sys.modules)


def test_nothing_is_imported_for_a_run_of_the_package_s_own_parts(installed: Path) -> None:
    config = load_config(["method=flora", "data=pydoc", "cohort.sampling=poisson", "logging.loggers=[csv]"])
    assert not {"broken_parts", "trimmed_parts"} & set(sys.modules)
    assert plugin_records(config) == []


def test_a_part_is_found_and_recorded_with_its_distribution(installed: Path) -> None:
    """The broken one, which is asked first, is no matter."""
    config = load_config(["method.rule=mine", "method.trim=2"])
    assert config.method.options["trim"] == 2
    require_named(config)
    (record,) = plugin_records(config)
    assert (record.module, record.distribution, record.version) == ("trimmed_parts", "trimmed", "3.4")


@pytest.mark.parametrize(
    "words", [["data.source=mine", "data.source_options={word: a}"], ["plugins=[trimmed_parts]", "method.rule=mine"]]
)
def test_every_key_that_names_a_part_is_looked_at(installed: Path, words: list[str]) -> None:
    load_config(words)
    assert "trimmed_parts" in sys.modules


def test_a_broken_one_is_told_where_the_part_may_be_its_own(installed: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_config(["method.rule=mime"])
    told = str(caught.value)
    assert told.startswith("method.rule=mime is not known, and the installed plugin a-broken-one (a-broken-one 1.2):")
    assert "ZeroDivisionError: division by zero at broken_parts.py:4" in told


def test_a_method_may_be_an_installed_recipe(folder: Path, write_module: WriteModule) -> None:
    write_module("recipes_of_mine", 'register("recipe", "mine", Recipe(adapter="lora", defaults={"lora_rank": 2}))\n')
    install(folder, "recipes", "recipes_of_mine")
    assert load_config(["method=mine"]).method.options["lora_rank"] == 2


def test_parts_are_found_nested_and_dotted_in_texts_and_lists() -> None:
    found = set(
        named_parts(
            {
                "method": {"name": "a", "transforms": ["b", "c"], "rule": None, "options": {"rule": "no"}},
                "data.scores": "[d, 'e']",
                "eval.score": "f/part",
                "partition.name": "g",
                "logging.loggers": ["h"],
            }
        )
    )
    assert found == {
        ("recipe", "a"),
        *(("transform", name) for name in "bc"),
        *(("score", name) for name in "def"),
        ("partition", "g"),
        ("logger", "h"),
    }


# --- one line of imports


@pytest.mark.parametrize("name", plugins.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(plugins, name) is not None
    assert name in dir(plugins)


def test_the_import_line_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from fedlit.plugins import Partition, Reader, Recipe, TaskScore, TaskSpec, UserError, option, register\n"
        "print([name for name in ('torch', 'transformers', 'lightning', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
