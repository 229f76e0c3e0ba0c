"""Parts of every kind from outside, together in one run; a run that goes on with other code; a part that fails; an
installed distribution; and a method of one's own in one file.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import CommandLine, Zygote, environment
from test_every_recipe import TINY, WORDS

from fedlit.lab.analysis.collection import collect
from fedlit.scores import SCORES, headings, is_lower_better

OUTSIDE = Path(__file__).resolve().parents[1] / "outside"
KEYS = ("plugins", "data.source", "method", "partition.name", "logging.loggers", "data", "partition.alpha")
SMALL = [word for word in TINY if word.split("=")[0] not in KEYS]
ALL_KINDS = [
    *("plugins=[outside_parts, more_outside_parts]", "method=trimmed_lora", "method.clip_norm=0.5", "data=jsonl"),
    *("data.source=glossary", "data.source_options={file: terms.txt}"),
    *("partition.name=every_nth", "partition.options={left_over: 0.1}"),
    *("data.scores=[rouge_l, brevity]", "data.score_options={length: 9}"),
    *("logging.loggers=[csv, diary]", "logging.options={name: log.jsonl}"),
    *("cohort.availability=random_dropout", "cohort.options={rate: 0.1}"),
]
MY_METHOD = [
    *("method.rule=median_b", "method.adapter=spread_lora", "method.optimizer=sign_sgd"),
    *("method.spread=3", "method.pull=0.25", "method.dead_zone=1e-5"),
    *("data=jsonl", "data.source=notes", "data.source_options={file: terms.txt}", "logging.loggers=[csv]"),
]
FAILING = """
from dataclasses import dataclass
from fedlit.plugins import FedAvg, register

@register("rule", "failing")
@dataclass(frozen=True)
class Failing(FedAvg):
    def __call__(self, cohort, server):
        raise RuntimeError(f"round {server.round_idx} went wrong")
"""


def write_terms(folder: Path) -> None:
    lines = [f"{word} number {i}: {word} file {i}.\n" for i in range(7) for word in WORDS]
    (folder / "terms.txt").write_text("".join(lines[len(WORDS) :]))
    (folder / "terms.txt.test").write_text("".join(lines[: len(WORDS)]))


@pytest.fixture(scope="module", autouse=True)
def parts(zygote: Zygote) -> None:
    for name in ("outside_parts.py", "more_outside_parts.py", "my_method/my_method.py"):
        shutil.copy(OUTSIDE / name, zygote.folder)
    write_terms(zygote.folder)
    (zygote.folder / "failing_parts.py").write_text(FAILING)


@pytest.fixture(scope="module")
def whole(zygote: Zygote) -> Path:
    zygote.run("whole", *SMALL, *ALL_KINDS)
    return zygote.folder / "whole"


def refused(zygote: Zygote, name: str, *words: str) -> str:
    """Start a run that ends at once, and return its one line."""
    run = zygote.start(name, *words)
    while None in run.exit_codes():
        time.sleep(0.01)
    assert run.exit_codes() == [2]
    return run.output()


def test_all_kinds_run_together_on_any_number_of_processes(
    zygote: Zygote, forked_command_line: CommandLine, whole: Path
) -> None:
    zygote.run("two", *SMALL, *ALL_KINDS, num_processes=2)
    assert forked_command_line.result("two") == forked_command_line.result("whole")
    records = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [json.loads(line)["brevity"] for line in (whole / "log.jsonl").read_text().splitlines()] == [
        record["global/brevity"] for record in records
    ]
    partition = json.loads((whole / "partition.json").read_text())
    assert [client["train"] for client in partition["clients"]] == [list(range(c, 66, 3)) for c in range(3)]


def test_options_of_every_kind_change_something(zygote: Zygote, whole: Path) -> None:
    """The logger's and the score's were looked at above and change no weights."""
    before = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])["aggregation/checksum"]
    for number, word in enumerate(
        ("method.widen=1", "method.clip_norm=0.01", "partition.options={left_over: 0.5}", "cohort.options={rate: 0.6}")
    ):
        key = word.split("=")[0]
        zygote.run(f"other-{number}", *SMALL, *(each for each in ALL_KINDS if each.split("=")[0] != key), word)
        last = (zygote.folder / f"other-{number}" / "metrics.jsonl").read_text().splitlines()[-1]
        assert json.loads(last)["aggregation/checksum"] != before, word


def test_a_run_goes_on_with_the_code_it_began_with(zygote: Zygote, whole: Path) -> None:
    names = [record["module"] for record in json.loads((whole / "environment.json").read_text())["plugins"]]
    assert names == ["outside_parts", "more_outside_parts"]
    path = zygote.folder / "more_outside_parts.py"
    text = path.read_text()
    try:
        path.write_text(text + "\n# a comment\n")
        zygote.run("whole", *SMALL, *ALL_KINDS)
        path.write_text(text.replace("option(1.0, ", "option(1.5, "))
        told = refused(zygote, "whole", *SMALL, *ALL_KINDS)
    finally:
        path.write_text(text)
    assert "whole began with other code of the plugin more_outside_parts (code " in told
    assert told.rstrip().count("\n") == 0 or told.rstrip().splitlines()[-1].startswith("error: ")


def test_a_reader_of_the_folder_knows_the_score_without_its_plugin(whole: Path) -> None:
    assert "brevity" not in SCORES
    collect([str(whole)])
    assert headings(["global/brevity"]) == {"global/brevity": "brevity"}
    assert is_lower_better("global/brevity")


def test_what_fails_in_a_part_is_told_with_the_part(zygote: Zygote) -> None:
    run = zygote.start("fails", *SMALL, *MY_METHOD[6:], "plugins=[my_method, failing_parts]", "method.rule=failing")
    while None in run.exit_codes():
        time.sleep(0.01)
    assert run.exit_codes() == [1]
    lines = run.output().rstrip().splitlines()
    where = "in the rule failing of the plugin failing_parts, failing_parts.py:9"
    assert lines[-1].endswith(where)
    assert "RuntimeError: round 0 went wrong" in lines[-2]
    status = json.loads((zygote.folder / "fails" / "status.json").read_text())
    assert status["state"] == "failed"
    assert status["reason"] == f"RuntimeError: round 0 went wrong ({where})"


def test_a_method_of_one_s_own_in_one_file(zygote: Zygote) -> None:
    zygote.run("my-method", *SMALL, *MY_METHOD, "plugins=[my_method]")
    records = [json.loads(line) for line in (zygote.folder / "my-method" / "metrics.jsonl").read_text().splitlines()]
    assert all(record["aggregation/update_norm"] > 0 for record in records[1:])


def test_an_installed_distribution_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """Installed as pip does it, and run in a folder that knows nothing of it."""
    site, folder = tmp_path / "site", tmp_path / "work"
    info = site / "my_method-2.5.dist-info"
    info.mkdir(parents=True)
    folder.mkdir()
    shutil.copy(OUTSIDE / "my_method" / "my_method.py", site)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-method\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[fedlit.plugins]\nmine = my_method\n")
    write_terms(folder)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", str(OUTSIDE.parents[1]))])
    done = subprocess.run(
        [sys.executable, "-m", "fedlit", "run", *SMALL, *MY_METHOD, "run.dir=.", "run.name=a"],
        cwd=folder,
        env={**environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (record,) = json.loads((folder / "a" / "environment.json").read_text())["plugins"]
    assert (record["module"], record["distribution"], record["version"]) == ("my_method", "my-method", "2.5")
