"""compare.py runs what is missing and prints one line for each method."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, SMALL, environment, merge

SCRIPT = REPOSITORY / "experiments" / "compare.py"


def compare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_table_has_a_line_for_each_method_and_the_untrained_model(tmp_path: Path) -> None:
    arguments = ["--methods", "fedit,scl", "--lrs", "0.001,0.01", "--jobs", "2", "--output", "table.md"]
    arguments += ["--score", "rouge_l", "--picture", "rouge.png"]
    arguments += merge(SMALL, ("num_rounds=1", "eval.choose_on=test"))
    done = compare(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    *lines, _, legend = done.stdout.strip().splitlines()
    assert legend == "†: chosen on the test set, which flatters"
    assert {line.split("|")[2].strip()[-1:] for line in lines[2:]} == {"†", ""}
    assert sorted(line.split("|")[1].strip() for line in lines[2:]) == ["`fedit`", "`scl`", "`zero-shot`"]
    assert (tmp_path / "table.md").read_text().strip() == done.stdout.strip()
    assert (tmp_path / "rouge.png").stat().st_size > 10_000
    assert (tmp_path / "runs" / "fedit-0.001" / "adapter").is_dir()
    records = tmp_path / "runs" / "fedit-0.001" / "metrics.jsonl"
    before = records.read_text()
    again = compare(tmp_path, *arguments)
    assert again.stdout == done.stdout
    assert records.read_text() == before


def test_a_mistake_is_one_line_before_anything_runs(tmp_path: Path) -> None:
    done = compare(tmp_path, "--methods", "fedit,fedlt", "num_rounds=1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown choice method=fedlt")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--score", "brevty"), "error: --score=brevty is no score; did you mean 'brevity'?"),
        (
            ("--lrs", "0.1,0.01"),
            "error: --lrs: a rate is chosen, and there is no validation set to choose on; give part",
        ),
        (("--score", "brevity", "dry_run=true"), "error: dry_run=true leaves nothing to compare"),
    ],
)
def test_a_score_of_a_plugin_is_known_and_a_dry_run_refused(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    arguments = ["--methods", "fedit", "plugins=[outside_parts,more_outside_parts]", "data.scores=[brevity]"]
    outside = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests/outside")])}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, *words],
        cwd=tmp_path,
        env={**environment(), **outside},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(told)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("methods", ["fedit,fedit", "one/mine.yaml,other/mine.yaml"])
def test_two_runs_of_one_name_are_refused(methods: str, tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text("name: fedit\n", encoding="utf-8")
    done = compare(tmp_path, "--methods", methods)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: two of the runs are called ")
    assert not (tmp_path / "runs").exists()
