"""The benchmark of evaluation runs, and stops where its sides do not give the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


def test_it_runs_and_says_what_it_compared(tmp_path: Path) -> None:
    """Two turns of six tokens say nothing about speed; that both sides give the same is looked at in them, too."""
    out = tmp_path / "lines.json"
    environ = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1]), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(FOLDER / "evaluation.py"), "--quick", "--json", str(out)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    lines = json.loads(out.read_text())["lines"]
    assert [line["target"] for line in lines] == [1.5, None, None, None, 4.0, 1.8]
    assert all(line["value"] > 0 for line in lines)
    all_rows, some_rows = lines[1]["note"].split(" over ")
    assert int(all_rows) >= int(some_rows)
    assert all(line["what"] in done.stdout for line in lines)
