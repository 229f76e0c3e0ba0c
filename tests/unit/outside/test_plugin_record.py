"""A run keeps the code of the parts that it has from outside, and goes on with no other."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from written_modules import HEAD, RULE, WriteModule

from fedlit.commands.endings import without_traceback
from fedlit.config import RunConfig, load_config, to_yaml
from fedlit.errors import UserError
from fedlit.outside import record
from fedlit.outside.faults import note_plugin, plugin_fault
from fedlit.outside.record import PluginRecord, from_json, plugin_records, to_json, why_another_run
from fedlit.registry import build_part
from fedlit.store.environment import environment
from fedlit.store.folder import RunFolder


def of(write_module: WriteModule, text: str, name: str = "mine") -> PluginRecord:
    """Return the record of a module with this text, imported anew."""
    rewrite(write_module, name, text)
    (found,) = plugin_records(load_config([f"plugins=[{name}]"]))
    return found


def rewrite(write_module: WriteModule, name: str, text: str) -> None:
    """Write a module and forget the one that was imported, as a new process would."""
    write_module(name, text)
    for known in [known for known in sys.modules if known.split(".")[0] == name.split("/", maxsplit=1)[0]]:
        del sys.modules[known]


SAME = {
    "comment": RULE + "# more\n",
    "docstring": RULE.replace("    trim: int", '    """New."""\n    trim: int'),
    "layout": RULE.replace("option(1, ", "option(\n        1,\n        "),
}
OTHER = {
    "default": RULE.replace("option(1", "option(2"),
    "code": RULE.replace("return server", "return cohort"),
    "a text that is no docstring": RULE.replace("return server", "x = 'a'\n        return server"),
}


@pytest.mark.parametrize("change", [*SAME, *OTHER])
def test_code_counts_and_comments_do_not(write_module: WriteModule, change: str) -> None:
    before, now = of(write_module, RULE), of(write_module, {**SAME, **OTHER}[change])
    assert before.sha256 != now.sha256
    assert before.differs(now) == (change in OTHER)


def test_trees_of_another_python_are_not_compared(write_module: WriteModule) -> None:
    before, now = of(write_module, RULE), of(write_module, SAME["comment"])
    elsewhere = replace(before, python="3.99")
    assert elsewhere.differs(now)
    assert not elsewhere.differs(before), "the bytes are the same"


def test_all_files_of_a_package_count(write_module: WriteModule) -> None:
    write_module("whole/inner/parts", RULE)
    write_module("whole/__init__", "from whole.inner import parts\n")
    (first,) = plugin_records(load_config(["plugins=[whole]", "method.rule=mine"]))
    assert (first.module, first.files) == ("whole", 2)
    rewrite(write_module, "whole/inner/parts", RULE + "X = 1\n")
    (second,) = plugin_records(load_config(["plugins=[whole]", "method.rule=mine"]))
    assert first.differs(second)


def test_a_module_that_a_plugin_has_its_part_from_counts_too(write_module: WriteModule) -> None:
    write_module("elsewhere", RULE.replace('@register("rule", "mine")\n', ""))
    write_module("front", 'from elsewhere import Mine\nregister("rule", "mine", Mine)\n')
    records = plugin_records(load_config(["plugins=[front]", "method.rule=mine"]))
    assert [found.module for found in records] == ["front", "elsewhere"]


def test_records_survive_json_and_other_content_is_none(write_module: WriteModule) -> None:
    found = [of(write_module, RULE)]
    assert from_json(json.loads(json.dumps(to_json(found)))) == found
    assert from_json(None) is None
    assert from_json([{"module": "x"}]) is None


def test_what_came_and_what_went_is_told(write_module: WriteModule) -> None:
    found = [of(write_module, RULE)]
    assert why_another_run(found, found) is None
    assert "began with parts of the plugin mine, and now it has none" in str(why_another_run(found, []))
    assert "began without parts of the plugin mine, and now it has some" in str(why_another_run([], found))


def test_a_run_goes_on_with_the_plugin_it_began_with_alone(folder: Path, write_module: WriteModule) -> None:
    write_module("mine", RULE)
    words = ["plugins=[mine]", "method.rule=mine", "logging.wandb=disabled", "run.name=a"]
    begin(load_config(words))
    RunFolder(load_config(words)).require_same_run()
    rewrite(write_module, "mine", SAME["comment"])
    RunFolder(load_config(words)).require_same_run()
    rewrite(write_module, "mine", OTHER["default"])
    with pytest.raises(UserError) as caught:
        RunFolder(load_config(words)).require_same_run()
    told = str(caught.value)
    assert told.startswith("runs/a began with other code of the plugin mine (code ")
    assert "bring the old one back, or choose another run.name (comments and docstrings do not count)" in told
    assert len(told) < 400


def test_what_is_edited_after_the_import_is_not_what_runs(write_module: WriteModule) -> None:
    first = of(write_module, RULE)
    write_module("mine", OTHER["default"])
    assert plugin_records(load_config(["plugins=[mine]"])) == [first]
    importlib.reload(sys.modules["mine"])
    assert plugin_records(load_config(["plugins=[mine]"])) != [first]


def test_a_folder_of_an_older_version_says_nothing(folder: Path, write_module: WriteModule) -> None:
    write_module("mine", RULE)
    config = load_config(["plugins=[mine]", "method.rule=mine", "run.name=a"])
    begin(config)
    path = Path("runs/a/environment.json")
    path.write_text(json.dumps({key: value for key, value in environment("cpu").items() if key != "plugins"}))
    RunFolder(config).require_same_run()
    path.write_text("{")
    RunFolder(config).require_same_run()


def begin(config: RunConfig) -> None:
    """Write what a run's first process writes."""
    path = RunFolder(config).path
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(to_yaml(config))
    (path / "environment.json").write_text(json.dumps(environment("cpu", plugin_records(config))))


def test_without_plugins_nothing_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "installed_plugins", lambda: pytest.fail("asked"))
    assert plugin_records(load_config([])) == []
    record.require_named(load_config([]))


# --- what fails inside a part


def test_an_exception_says_which_part_it_was_raised_in(write_module: WriteModule) -> None:
    write_module("mine", RULE.replace("return server", "return helper()") + "\n\ndef helper():\n    return 1 / 0\n")
    load_config(["plugins=[mine]"])
    rule = build_part("rule", "mine", {})
    with pytest.raises(ZeroDivisionError) as caught:
        rule(None, None)
    line = HEAD.count("\n") + RULE.count("\n") + 4
    assert plugin_fault(caught.value) == f"in the rule mine of the plugin mine, mine.py:{line}"
    note_plugin(caught.value)
    note_plugin(caught.value)
    assert caught.value.__notes__ == [plugin_fault(caught.value)]
    with pytest.raises(ZeroDivisionError) as again:  # before there is a run folder: a reader, say
        without_traceback(lambda: rule(None, None))
    assert again.value.__notes__ == [plugin_fault(caught.value)]


def test_an_exception_of_the_package_says_nothing(write_module: WriteModule) -> None:
    write_module("mine", RULE)
    load_config(["plugins=[mine]"])
    with pytest.raises(KeyError) as caught:
        build_part("rule", "nobody", {})
    assert note_plugin(caught.value) == ""
