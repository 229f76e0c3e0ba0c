"""The exported app of NVFlare beside `fedlit run`: 3 clients, 3 rounds, a tiny model, and every number of every record.

Each federation is trained by `fedlit run`, exported with `fedlit export --to nvflare`, and run by its job.py in
NVFlare's simulator, where each client is a process and answers come in any order. Then all records are compared:
checksums of the server's state, losses and update norms of each client, scores, bytes; times are left out. The adapters
are compared as files. `own_rows` has sites with rows of their own (`job.py --real`), and `deployed` is the same on
processes of a real deployment, which NVFlare's PocEnv starts and ends: a server, three sites, certificates, loopback.
One table, and exit code 1 if anything differs.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
CASES: dict[str, list[str]] = {
    "fedit": [*DEALT, "method=fedit"],
    "fedsa_lora": [*DEALT, "method=fedsa_lora"],  # B stays with its site
    "fedex_lora": [*DEALT, "method=fedex_lora", "model.dtype=bfloat16"],  # folds, as factors
    "fedalt": [*DEALT, "method=fedalt"],  # every client starts from its own mean
    "own_rows": ["method=fedit", "partition.name=files", "partition.min_test_rows=0"],
    "deployed": ["method=fedex_lora", "partition.name=files", "partition.min_test_rows=0"],
}

DEPLOYMENT = '''"""The job on a deployment of this machine: of the test, no part of the app."""

import job
from nvflare.recipe import PocEnv

sites = list(job._sites())
environment = PocEnv(clients=sites, num_clients=len(sites))
try:
    run = job._recipe(simulated=False).execute(environment)
    run.get_result(timeout=600.0)
    assert "COMPLETED" in str(run.get_status()), run.get_status()
finally:
    environment.stop(clean_up=True)
'''


def main() -> None:
    """Compare all cases, or those named."""
    work = Path(sys.argv[1]).resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    print(f"nvflare {version('nvflare')}, torch {version('torch')}, fedlit {version('fedlit')}")
    print(f"{'federation':12}{'records':>9}{'numbers':>9}{'differ':>8}{'seconds':>9}  last checksum")
    failed = False
    for name in sys.argv[2:] or CASES:
        begun_s = time.monotonic()
        ours, theirs = federated(work / name, CASES[name])
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


def federated(folder: Path, words: list[str]) -> tuple[list[Any], list[Any]]:
    """Return the records of `fedlit run` and of the app in NVFlare's simulator."""
    folder.mkdir()
    real = "partition.name=files" in words
    settings = ["data=jsonl", *COMMON, *words, *rows(folder, real), f"run.dir={folder}", "run.name=here"]
    command(folder, "fedlit", "run", *settings)
    command(folder, "fedlit", "export", str(folder / "here"), "--to", "nvflare", "--out", str(folder / "app"))
    program, options = "job.py", ["--real"] if real else []
    if real:
        os.environ["ROWS_OF_SITE_1"] = f"{folder}/site_1.jsonl"  # a site may say by itself where its rows are
        paths = {1: "${secret:ROWS_OF_SITE_1}", 2: f"{folder}/site_2.jsonl", 3: f"{folder}/site_3.jsonl"}
        sites = "".join(f"site-{number}:\n  data-path: {path}\n" for number, path in paths.items())
        (folder / "app/sites.yaml").write_text(sites)
    if folder.name == "deployed":
        os.environ["NVFLARE_POC_WORKSPACE"] = str(folder / "deployment")
        program, options = "deployment.py", []
        (folder / "app" / program).write_text(DEPLOYMENT)
    else:
        options += ["--workspace", str(folder / "workspace")]
    command(folder / "app", "python", program, *options)
    return records(folder / "here"), records(folder / "here-sites")


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


if __name__ == "__main__":
    main()
