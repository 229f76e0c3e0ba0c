"""fedlit plan as a user types it: without a run, after one cell, and every mistake in one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, environment

from fedlit.cli import main

OWN = """\
# two methods on two draws
experiment: demo
overrides:
{overrides}
axes:
  method: [fedit, ffa_lora]
  local.lr: [0.003, 0.01]
  partition.seed: [0, 1]
best: [local.lr]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [f"  {key}: {text}" for key, _, text in (word.partition("=") for word in SMALL) if key != "num_rounds"]
    (tmp_path / "own.yaml").write_text(OWN.format(overrides="\n".join([*lines, "  num_rounds: 2"])))
    return tmp_path


def plan(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["plan", *words])
    return code, *capsys.readouterr()


def numbers(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, err = plan(capsys, *words, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_without_a_measurement_there_is_work_and_no_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = plan(capsys, "own.yaml")
    assert (code, err) == (0, "")
    assert out.startswith("own: 8 cells (8 pending), 2 kinds\n")
    for text in ("local.lr        2: 0.003, 0.01", "time     unknown", "2 draws of the partition", "cannot reach 0.05"):
        assert text in out, text
    found = numbers(capsys, "own.yaml")
    assert [kind["num_cells"] for kind in found["kinds"]] == [4, 4]
    assert min(kind["relative"] for kind in found["kinds"]) == 1
    assert found["device_s"] is None
    assert found["power"]["comparisons"] == 1
    assert numbers(capsys, "own.yaml", "method=fedit")["num_cells"] == 4
    assert not (folder / "runs").exists(), "a plan writes nothing"


def test_a_finished_cell_tells_of_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "fedlit", "sweep", "run", "own.yaml", "--index", "0"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = numbers(capsys, "own.yaml", "--jobs", "2", "--devices", "1")
    assert found["states"] == {"done": 1, "pending": 7}
    (measured,) = found["measured"]
    of_fedit, of_ffa_lora = (kind["forecast"] for kind in found["kinds"])
    assert (of_fedit["own"], of_ffa_lora["scaled"]) == (1, 1)
    total = sum(measured[name] for name in ("train_s", "evaluate_s", "between_s", "outside_s"))
    assert of_fedit["seconds"]["estimate"] == pytest.approx(total)
    assert 0.5 < of_ffa_lora["seconds"]["estimate"] / total < 1.2, "it trains half the factors"
    assert found["device_s"]["estimate"] == pytest.approx(
        3 * of_fedit["seconds"]["estimate"] + 4 * of_ffa_lora["seconds"]["estimate"]
    )
    assert found["device_s"]["estimate"] / 2 < found["wall_s"]["estimate"] < 0.75 * found["device_s"]["estimate"]
    run = folder / "runs" / "own" / found["measured"][0]["folder"].rsplit("/", 1)[-1]
    assert found["kinds"][0]["stays_bytes"] == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    assert found["kinds"][0]["is_storage_measured"]
    again = numbers(capsys, "own.yaml", "run.dir=elsewhere", "--measured", str(run))
    assert again["states"] == {"pending": 8}
    assert again["kinds"][0]["forecast"]["scaled"] == 1
    assert again["kinds"][0]["forecast"]["seconds"]["estimate"] == pytest.approx(total), "of the same work"
    assert "from 1 measured run on cpu" in plan(capsys, "own.yaml")[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no runs are named"),
        (["own.yaml", "demo"], "demo is a second name"),
        (["nowhere.yaml"], "the sweep nowhere.yaml is not there"),
        (["own.yaml", "method=none_such"], "none_such"),
        (["own.yaml", "--measured", "8"], "there is no cell 8"),
        (["own.yaml", "--measured", "0"], "holds no run"),
        (["own.yaml", "--measured", "nowhere"], "holds no run"),
        (["own.yaml", "--report", "nowhere"], "nowhere"),
        (["own.yaml", "dry_run=true"], "dry_run=true belongs to fedlit run"),
        (["own.yaml", "--jobs", "0"], "--jobs"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    code, out, err = plan(capsys, *words)
    assert code == 2, err
    assert out == ""
    assert told in err
    assert err.count("\n") == 1
