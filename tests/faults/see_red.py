"""Plant every fault of `planted` in a copy of the tree and run the tests that must see it: `make faults`

Words choose faults by a part of their text. Prints a line for each; the exit code is the number of those not seen.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from planted import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
CODE = ("fedlit", "tests", "configs", "experiments", "slurm", "docs", "pyproject.toml", "constraints.txt", "README.md")


def copy_of_the_tree(folder: Path) -> Path:
    """Return a copy of what tests need, with the folder of real data beside it."""
    tree = folder / "tree"
    tree.mkdir()
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        (folder / "shared").symlink_to(shared.resolve())
    return tree


def outcome(tree: Path, tests: tuple[str, ...]) -> str:
    """Return the first test that fails, `` if none does; files are run one by one until one fails."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in tests:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-n0", f"tests/{name}"],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        red = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if done.returncode == 1 and red:
            return red[0].split(" - ")[0]
        if done.returncode not in (0, 5):
            return f"cannot tell: pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-200:]}"
    return ""


def is_seen(tree: Path, fault: Fault) -> bool:
    """Plant a fault, run its tests, take it out; print what was seen."""
    path = tree / "fedlit" / fault.file
    whole = path.read_text(encoding="utf-8")
    assert whole.count(fault.right) == 1, f"{fault.file} has {fault.right!r} {whole.count(fault.right)} times"
    path.write_text(whole.replace(fault.right, fault.wrong), encoding="utf-8")
    began = time.monotonic()
    red = outcome(tree, fault.tests)
    path.write_text(whole, encoding="utf-8")
    seen = red.startswith(("FAILED", "ERROR"))
    print(f"| {fault.what} | {red or 'NOT SEEN'} | {time.monotonic() - began:.0f} s |", flush=True)
    return seen


def main(words: list[str]) -> int:
    """Return the number of faults that no test saw."""
    chosen = [fault for fault in FAULTS if not words or any(word in fault.what for word in words)]
    print("| fault | red | |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_of_the_tree(Path(folder))
        missed = sum(not is_seen(tree, fault) for fault in chosen)
    print(f"{len(chosen)} planted, {missed} not seen")
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
