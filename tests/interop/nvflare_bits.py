"""The exported app of NVFlare beside `fedlit run`: 3 clients, 3 rounds, a tiny model, and every number of every record.

Each federation is trained by `fedlit run`, exported with `fedlit export --to nvflare`, and run by its job.py in
NVFlare's simulator, where each client is a process and answers come in any order. Then all records are compared:
checksums of the server's state, losses and update norms of each client, scores, bytes; times are left out. The adapters
are compared as files. `own_rows` has sites with rows of their own (`job.py --real`), and `deployed` is the same on
processes of a real deployment, which NVFlare's PocEnv starts and ends: a server, three sites, certificates, loopback.
One table, and exit code 1 if anything differs.
"""

import os
import sys
from pathlib import Path
from typing import Any

from same_records import COMMON, DEALT, command, compare, emptied, records, rows

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
    compare("nvflare", emptied(sys.argv[1]), CASES, federated)


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


if __name__ == "__main__":
    main()
