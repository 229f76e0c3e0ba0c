"""What the comparisons of exported apps with `fedlit run` have in common: rows, settings, records, a table."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

Federated = Callable[[Path, list[str]], tuple[list[Any], list[Any]]]
"""From a folder and settings to the records of `fedlit run` and of the app."""

WORDS = ("close", "read", "write", "merge", "sort", "open", "compare", "send", "parse", "split", "join", "copy")
ROWS = [{"prompt": f"def {w}_{n}(file)", "response": f"{w} file {n}.", "label": w[0]} for n in range(8) for w in WORDS]
COMMON = [
    "num_clients=3",
    "num_rounds=3",
    "local.steps=2",
    "local.batch_size=2",
    "local.lr=0.01",
    "eval.max_examples=4",
    "eval.max_new_tokens=4",
    "analysis=[]",  # a measurement of a simulation
    "logging.loggers=[]",
    "compute.accelerator=cpu",
]
DEALT = ["partition.name=iid", "partition.min_test_rows=2"]


def emptied(path: str) -> Path:
    """Return a folder, new and empty."""
    work = Path(path).resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work


def compare(framework: str, work: Path, cases: Mapping[str, list[str]], federated: Federated) -> None:
    """Compare all cases, or those named on the command line; print a table and leave with an exit code."""
    print(f"{framework} {version(framework)}, torch {version('torch')}, fedlit {version('fedlit')}")
    print(f"{'federation':12}{'records':>9}{'numbers':>9}{'differ':>8}{'seconds':>9}  last checksum")
    failed = False
    for name in sys.argv[2:] or cases:
        begun_s = time.monotonic()
        ours, theirs = federated(work / name, cases[name])
        num_values, differ = compared(ours, theirs)
        if not same_adapters(work / name):
            differ.append("the adapters' files")
        seconds = time.monotonic() - begun_s
        checksum = ours[-1]["aggregation/checksum"]
        print(f"{name:12}{len(theirs):9}{num_values:9}{len(differ):8}{seconds:9.0f}  {checksum}", flush=True)
        for line in differ[:9]:
            print(f"  {line}")
        failed |= bool(differ)
    sys.exit(int(failed))


def rows(folder: Path, real: bool) -> list[str]:
    """Write the rows; return where they are."""
    if not real:
        write(folder / "rows.jsonl", ROWS)
        return [f"data.path={folder}/rows.jsonl"]
    parts = {"site_1": ROWS[:20], "site_2": ROWS[20:50], "site_3": ROWS[50:80]}
    for name, part in parts.items():
        write(folder / f"{name}.jsonl", part)
    write(folder / "test.jsonl", ROWS[80:])
    paths = ",".join(f"{folder}/{name}.jsonl" for name in parts)
    return [f"data.path=[{paths}]", f"data.test_path={folder}/test.jsonl"]


def write(path: Path, content: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))


def records(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def command(folder: Path, name: str, *words: str) -> None:
    """Run a command of this environment; its output goes to a file, and is shown where it fails."""
    log = folder / f"{Path(words[0]).stem}.log"
    with log.open("w") as file:
        path = Path(sys.executable).with_name(name)
        done = subprocess.run([path, *words], cwd=folder, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        print(log.read_text()[-4000:])
        sys.exit(f"{name} {words[0]} ended with {done.returncode}; see {log}")


def compared(ours: list[Any], theirs: list[Any]) -> tuple[int, list[str]]:
    """Return how many values there are but for times, and which differ."""
    num_values, differ = 0, []
    if len(ours) != len(theirs):
        differ.append(f"{len(ours)} records here and {len(theirs)} there")
    for one, other in zip(ours, theirs, strict=False):
        for key in sorted(key for key in one.keys() | other.keys() if not key.startswith("time/")):
            num_values += 1
            here, there = one.get(key, "absent"), other.get(key, "absent")
            if here != there:
                differ.append(f"round {one['round']}, {key}: {here} here and {there} there")
    return num_values, differ


def same_adapters(folder: Path) -> bool:
    """Tell whether both wrote the same weights."""
    ours, theirs = (
        {path.relative_to(run): path.read_bytes() for path in run.glob("adapter/**/*.safetensors")}
        for run in (folder / "here", folder / "here-sites")
    )
    return ours == theirs
