"""The report command: files from run folders, one line for a mistake, no torch."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedlit.config import load_config, load_sweep, to_yaml

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = REPOSITORY / "experiments" / "report.py"


def report(*arguments: str, cwd: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    code = (
        f"{before}\nimport runpy, sys; sys.argv[0] = {str(COMMAND)!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd, env=environ, check=False
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's runs, of which one is missing and one was killed after its first round."""
    folder = tmp_path_factory.mktemp("report")
    for i, cell in enumerate(load_sweep("demo").cells()[:4]):
        if i == 1:
            continue
        run = folder / cell.folder
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(to_yaml(load_config(cell.arguments)))
        num_rounds = 1 if i == 3 else 6
        records = [
            {"round": r, "eval/protocol": "generate", "global/loss": 4 - r / 9, "global/rouge_l": 0.1 * r + 0.01 * i}
            for r in range(num_rounds + 1)
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (run / "status.json").write_text(json.dumps({"state": "killed" if i == 3 else "done", "num_rounds": 6}))
    return folder


NO_TORCH = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "lightning", "transformers", "datasets", "wandb"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
"""


def test_a_sweep_becomes_tables_and_figures(runs: Path) -> None:
    done = report("demo", cwd=runs, before=NO_TORCH)
    assert done.returncode == 0, done.stderr
    *_, path = done.stdout.splitlines()
    folder = runs / path
    assert path == "runs/demo/report"
    assert done.stdout == (folder / "table.md").read_text() + "\n" + path + "\n"
    names = {"table.md", "table.tex", "table.csv", "wilcoxon.csv", "statistics.tex"}
    names |= {"differences.csv", "shares.csv", "examples.csv"}
    figures = {f"{kind}-{score}.{suffix}" for kind in ("curves", "reached") for score in ("rouge_l", "loss")
               for suffix in ("png", "pdf")}  # fmt: skip
    assert {file.name for file in folder.iterdir()} == names | figures
    lines = [line for line in done.stdout.splitlines() if line.startswith("| f")]
    assert lines[0].startswith("| fedit | 0.600<sup>a</sup> |")
    assert lines[2] == "| fedsa_lora | – | – |"
    assert "6 of 8 runs are not done: 5 pending, 1 killed." in done.stdout
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["num_done"]) for row in rows if row["score"] == "rouge_l"][:2] == [
        ("fedit", "1"),
        ("ffa_lora", "1"),
    ]


def test_folders_and_options(runs: Path, tmp_path: Path) -> None:
    done = report(
        "runs/demo", "--score", "rouge_l", f"--output={tmp_path / 'mine'}", "--round=best", "--no-figures", cwd=runs
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "mine")
    assert "best round by global/rouge" in done.stdout
    assert "loss" not in (tmp_path / "mine" / "table.md").read_text()
    assert not list((tmp_path / "mine").glob("*.png"))


def test_a_published_sweep_without_runs_is_a_table_of_dashes(tmp_path: Path) -> None:
    done = report("scl_table1", "num_clients=3", "--no-figures", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| 3 | SCL | – | *0.481* |" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demi"], "did you mean 'demo'?"),
        (["demo", "--score", "rouge_i"], "did you mean 'rouge_l'?"),
        (["demo", "--round=bets"], "give last or best"),
        (["demo", "metod=fedit"], "did you mean 'method'?"),
        (["seed=0"], "seed=0 alone names no runs"),
        ([], "no runs are named"),
        (["demo", "--output", str(COMMAND)], "is a file; give a folder"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], said: str, runs: Path) -> None:
    done = report(*arguments, cwd=runs)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
