"""`fedlit.run` in a script that torchrun starts: every process gets the result of all, with the bits of one."""

import subprocess
import sys
from pathlib import Path

from conftest import environment

TESTS = Path(__file__).parents[1]
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from api_runs import ROWS, small_run
from fedlit.algebra.tensors import checksum
result = small_run(Path({folder!r}), sys.argv[1], rows=[ROWS[:12], ROWS[12:]])
print(result.status, len(result.records), checksum(result.server.shared), flush=True)
"""


def test_two_processes_have_the_result_of_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(TESTS), folder=str(tmp_path)))
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node=2"]
    lines = []
    for words in ([*torchrun, str(script), "two"], [sys.executable, str(script), "one"]):
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment(), cwd=tmp_path)
        lines += done.stdout.splitlines()
    assert len(lines) == 3
    assert len(set(lines)) == 1
    assert lines[0].startswith("done 3 ")
