"""`make bench` runs what is there, puts all lines into one table, and tells what gave none."""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"

GOOD = """
import argparse, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from lines import Line, add_arguments, tell
parser = argparse.ArgumentParser()
add_arguments(parser)
given = parser.parse_args()
tell("good", [Line(what="a thing", value=0.5 if given.quick else 2.0, target=1.0, interval=(0.4, 0.6))], given)
"""
ASKED = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from bench import Script, measure, report
found = measure(
    [Script(name=name, shows="", needs_cuda=name == "gpu") for name in ("broken", "good", "gone", "odd", "gpu")],
    Path({own!r}), quick=True, has_cuda=False,
)
print("REPORT")
print(report(found))
print(sorted(found.failed), sorted(found.left_out), [line.interval for line in found.lines["good"]])
"""


def test_what_fails_or_is_missing_is_told_and_keeps_no_other_from_its_turn(tmp_path: Path) -> None:
    own = tmp_path / "experiments" / "benchmarks"
    own.mkdir(parents=True)
    (own / "good.py").write_text(GOOD.format(folder=str(FOLDER)))
    (own / "broken.py").write_text("raise SystemExit(3)")
    (own / "odd.py").write_text("import sys; open(sys.argv[sys.argv.index('--json') + 1], 'w').write('[]')")
    (own / "gpu.py").write_text("raise SystemExit(3)")
    asked = ASKED.format(folder=str(FOLDER), own=str(own))
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=120)
    table = done.stdout.partition("REPORT")[2]
    assert "| a thing | 0.5 | 0.4 to 0.6 |  | at most 1 | met |" in table
    assert "FAILED: broken.py (it gave no lines, and ended with code 3)" in table
    assert "FAILED: odd.py (it gave no lines, and ended with code 0)" in table
    assert "left out: gone.py (there is no such script yet)" in table
    assert "left out: gpu.py (it needs a CUDA device)" in table
    assert table.splitlines()[-1] == "['broken', 'odd'] ['gone', 'gpu'] [(0.4, 0.6)]"


def test_its_table_names_every_script_of_the_folder() -> None:
    """A benchmark that `make bench` does not know would never be in its table."""
    known = set(re.findall(r'Script\(name="(\w+)"', (FOLDER / "bench.py").read_text()))
    runnable = {path.stem for path in FOLDER.glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    assert runnable - {"bench", "bare_loop"} <= known  # one side of memory.py, which starts it
