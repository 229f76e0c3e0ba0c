"""Whoever starts other runs hands the search path on: in the environment here, in the command line to SLURM."""

import os
from pathlib import Path
from typing import Any

import pytest

from fedlit.commands import compare
from fedlit.config import load_sweep
from fedlit.config.places import VARIABLE
from fedlit.lab.sweeps.local import LocalRun, Outcome
from fedlit.lab.sweeps.submission import Request


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {
        "mine/sweep/two.yaml": "axes: {seed: [0, 1]}\n",
        "mine/method/own.yaml": "name: fedit\nlora_rank: 2\n",
        "my.yaml": "num_rounds: 2\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "")
    return tmp_path / "mine"


def test_a_job_of_slurm_is_told_the_folders(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "mine")
    cells = tuple(load_sweep("two").cells())
    request = Request(sweep="two", name="two", indices=(0,), cells=cells, overrides=("seed=0",))
    assert request.command[-3:] == ["two", f"--config-dir={mine}", "seed=0"]


def test_compare_takes_files_and_folders(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[LocalRun] = []

    def run_locally(runs: list[LocalRun], *_: Any, **__: Any) -> list[Outcome]:
        assert os.environ[VARIABLE] == str(mine)
        seen.extend(runs)
        return [Outcome(run=run, state="failed") for run in runs]

    monkeypatch.setattr(compare, "run_locally", run_locally)
    assert compare.main(["--config-dir", "mine", "my.yaml", "compute.accelerator=cpu", "seed=3"]) == 1
    own = next(run.config for run in seen if run.name == "own")
    assert (own.method.options["lora_rank"], own.num_rounds, own.seed) == (2, 2, 3)
    assert {"own", "fedit", "scl"} < {run.name for run in seen}
