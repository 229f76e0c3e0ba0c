"""sweep.py as a user types it: what it lists, what it hands to SLURM, one run of it and an interrupted pair."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REPOSITORY, SMALL, environment

from fedlit.config import RunConfig, load_config, load_sweep, to_yaml

SCRIPT = REPOSITORY / "experiments" / "sweep.py"
OWN = """\
# two methods of a minute. More
experiment: demo
axes:
  method: [fedit, ffa_lora]
  seed: [0, 1]
"""


def sweep(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        cwd=folder,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder as a user's clone, with a sweep of its own."""
    for name in ("experiments", "slurm"):
        (tmp_path / name).mkdir()
    (tmp_path / "slurm" / "array.sbatch").write_bytes((REPOSITORY / "slurm" / "array.sbatch").read_bytes())
    (tmp_path / "own.yaml").write_text(OWN)
    return tmp_path


@pytest.fixture
def slurm(clone: Path) -> Callable[[str], dict[str, str]]:
    """Return a function that puts an sbatch and an squeue into PATH, the latter with these lines to say."""
    folder = clone / "bin"
    folder.mkdir()

    def install(queue: str) -> dict[str, str]:
        for name, text in {"sbatch": 'echo "$@" >> submitted\necho 7', "squeue": f"printf '{queue}'"}.items():
            (folder / name).write_text(f"#!/bin/bash\n{text}\n")
            (folder / name).chmod(0o755)
        return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}

    return install


def test_the_command_line_of_a_cell_can_be_pasted(clone: Path) -> None:
    cells = load_sweep("scl_table2").cells(["num_clients=3", "data.path=my file.jsonl"])
    shown = sweep(clone, "show", "scl_table2", "4", "num_clients=3", "data.path=my file.jsonl")
    words = shlex.split(shown.stdout)
    assert words[:2] == ["fedlit", "run"]
    assert words[2:] == cells[4].arguments
    assert shown.stdout.count("\n") == 1
    plain = load_sweep("fedex_rank").cells()[7]
    config = load_config(shlex.split(sweep(clone, "show", "fedex_rank", "7").stdout)[2:])
    assert config == load_config(plain.arguments)


def test_sweeps_are_counted(clone: Path) -> None:
    assert sweep(clone, "count", "own.yaml", "seed=1").stdout == "2\n"
    listed = {line.split()[0]: int(line.split()[1]) for line in sweep(clone, "list").stdout.splitlines()[1:]}
    assert listed == {name: len(load_sweep(name).cells()) for name in listed}
    assert {"demo", "scl_table2", "fedex_glue"} <= listed.keys()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "own.yaml", "4"], "there is no cell 4: own.yaml has 4 here; give 0 to 3"),
        (["run", "own.yaml", "--index", "-1"], "there is no cell -1"),
        (["run", "own.yaml", "--index", "0", "--jobs", "2"], "--jobs and --devices belong to --local"),
        (["run", "own.yaml", "--local", "--jobs", "0"], "'0' is no integer of at least 1"),
        (["run", "own.yaml", "--local", "compute.devices=2"], "--devices=2 here"),
        (["run", "own.yaml", "--local", "num_rounds=x"], "cell 0, own-fedit-seed0: num_rounds=x"),
        (["run", "own.yaml"], "--local --index"),
        (["count", "own.yml"], "did you mean 'own.yaml'?"),
        (["submit", "own.yaml"], "sbatch is not there"),
        (
            ["submit", "own.yaml", "--dry-run", "--cells-per-task=2", "--sbatch=--nodes=2"],
            "--nodes=2 (slurm/array.sbatch",
        ),
        (["run", "own.yaml", "--local", "--cells-per-task=2"], "--cells and --cells-per-task belong to --index"),
        (["run", "own.yaml", "--index=2", "--cells-per-task=2"], "there is no task 2: 4 cells make 2 tasks of 2"),
        (["run", "own.yaml", "--index=0", "--cells=4"], "there is no cell 4; give 0 to 3"),
        (["run", "own.yaml", "--index=0", "--cells=1,3-2"], "3-2 ends before it begins"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(clone: Path, words: list[str], told: str) -> None:
    done = sweep(clone, *words, PATH="/nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert told in done.stderr
    assert not (clone / "runs").exists()


def test_what_is_submitted_is_known_to_the_next_command(clone: Path, slurm: Callable[[str], dict[str, str]]) -> None:
    first = sweep(clone, "submit", "own.yaml", "--max-parallel", "2", "num_rounds=7", **slurm(""))
    assert first.returncode == 0, first.stderr
    assert "consoles: slurm/logs/own-7_*.out" in first.stdout
    assert first.stdout.endswith("\nruns/own/submissions.jsonl\n")
    done = load_sweep(str(clone / "own.yaml")).cells(["num_rounds=7"])[1]
    (clone / "runs" / "own" / "own-fedit-seed1").mkdir()
    (clone / "runs" / "own" / "own-fedit-seed1" / "config.yaml").write_text(to_yaml(load_config(done.arguments)))
    finished = {"state": "done", "num_rounds": 7}
    (clone / "runs" / "own" / "own-fedit-seed1" / "status.json").write_text(json.dumps(finished))
    (clone / "slurm" / "logs" / "own-7_2.out").write_text("the job's console\n")
    queue = slurm("7_0 RUNNING\\n7_3 PENDING\\n")
    status = sweep(clone, "status", "own.yaml", **queue)
    states = [line.split()[2] for line in status.stdout.splitlines()[1:5]]
    assert (status.returncode, states) == (0, ["starting", "done", "failed", "queued"])
    assert "4 cells: 1 done, 1 starting, 1 queued, 1 failed" in status.stdout
    assert "cell 2: slurm/logs/own-7_2.out" in status.stdout
    assert "num_rounds=7" in status.stderr
    twice = sweep(clone, "submit", "own.yaml", **queue)
    assert twice.returncode == 2
    assert "1 starting, 1 queued of 4 cells of own have a job already" in twice.stderr
    shown = sweep(clone, "submit", "own.yaml", "--only-unfinished", "--dry-run", **queue)
    assert shlex.split(shown.stdout.splitlines()[-1])[3:] == [
        "--array=2",
        "slurm/array.sbatch",
        "own.yaml",
        "num_rounds=7",
    ]
    rest = sweep(clone, "submit", "own.yaml", "--only-unfinished", "--sbatch=--time=5", **queue)
    assert "left out: 1 done, 1 starting, 1 queued\nagain: 1 failed\njob 7: 1 cell\n" in rest.stdout
    tail = "slurm/array.sbatch own.yaml num_rounds=7"
    assert (clone / "submitted").read_text().splitlines() == [
        f"--parsable --job-name=own --array=0-3%2 {tail}",
        f"--parsable --job-name=own --array=2 --time=5 {tail}",
    ]
    shared = sweep(clone, "submit", "own.yaml", "--cells-per-task=3", "--dry-run", "num_rounds=7", **slurm(""))
    assert shlex.split(shared.stdout.splitlines()[-1])[3:] == [
        "--array=0-1",
        *("slurm/array.sbatch", "own.yaml", "--cells=0-3", "--cells-per-task=3", "num_rounds=7"),
    ]
    picked = ("submit", "own.yaml", "--only-unfinished", "seed=1", "method=fedit")
    nothing = sweep(clone, *picked, "num_rounds=7", **queue)
    assert nothing.returncode == 0
    assert "nothing to submit" in nothing.stdout
    of_the_file = sweep(clone, *picked, "--dry-run", **queue)
    assert "again: 1 stale\n" in of_the_file.stdout
    assert (
        "1 stale run is left out, of other num_rounds: runs/own/own-fedit-seed1 (num_rounds: 7 → " in of_the_file.stderr
    )


def test_a_folder_without_job_scripts_gets_them(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    refused = sweep(tmp_path, "submit", "own.yaml", PATH="/nowhere")
    assert refused.stderr.count("\n") == 1
    done = sweep(tmp_path, "scripts")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:4] == [
        f"slurm/{name}" for name in ("array.sbatch", "federate.sbatch", "multi-node.sbatch", "job.sh")
    ]
    (tmp_path / "slurm" / "job.sh").write_text("mine")
    again = sweep(tmp_path, "scripts")
    assert again.stdout.count("is there already, left as it is") == 4
    assert (tmp_path / "slurm" / "job.sh").read_text() == "mine"


def test_a_mistake_in_any_cell_is_told_before_anything_is_queued(
    clone: Path, slurm: Callable[[str], dict[str, str]]
) -> None:
    done = sweep(clone, "submit", "own.yaml", "num_clients=3", "local.batch_size=0", **slurm(""))
    assert done.returncode == 2
    assert "local.batch_size=0" in done.stderr
    assert not (clone / "submitted").exists()
    assert not (clone / "runs").exists()


def test_the_status_of_500_cells_is_there_in_seconds(clone: Path) -> None:
    configs: dict[tuple[str, ...], RunConfig] = {}
    for cell in load_sweep("fedex_glue").cells():
        folder = clone / cell.folder
        folder.mkdir(parents=True)
        common = tuple(word for word in cell.arguments if not word.startswith(("seed=", "run.name=")))
        if common not in configs:
            configs[common] = load_config(cell.arguments)
        config = replace(configs[common], seed=cell.settings["seed"])
        (folder / "config.yaml").write_text(to_yaml(config))
        records = [{"round": i, "global/mcc": 0.5, "global/accuracy": 0.25} for i in range(16)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (folder / "status.json").write_text(json.dumps({"state": "done", "num_rounds": 15, "updated_s": time.time()}))
    before = os.times()
    done = sweep(clone, "status", "fedex_glue", PATH="/nowhere")
    after = os.times()
    assert "504 cells: 504 done" in done.stdout
    assert done.stdout.count("15 of 15") == 504
    # Each run is compared with its cell, of which 168 differ in more than their seed.
    used_s = after.children_user + after.children_system - before.children_user - before.children_system
    assert used_s < 15, f"{used_s:.1f} s of CPU; on a free core it takes 5"


@pytest.mark.slow
def test_a_real_cell_and_its_interruption(clone: Path) -> None:
    """Both cells are stopped by one Ctrl-C, one of them before it began; the same command finishes them."""
    words = ["run", "own.yaml", "--local", "method=fedit", *SMALL]
    records = clone / "runs" / "own" / "own-fedit-seed0" / "metrics.jsonl"
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *words], cwd=clone, env=environment(), stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 180
    while not (records.exists() and records.read_text().count("\n") > 1):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert "1 run is going to stop at its next step" in said
    assert "2 cells: 1 stopped, 1 not begun\nthe same command goes on where they stopped\nruns/own\n" in said
    states = [line.split()[2] for line in sweep(clone, "status", "own.yaml").stdout.splitlines()[1:3]]
    assert states == ["stopped", "pending"]
    again = sweep(clone, "run", "own.yaml", "--local", "--jobs", "2")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "own-fedit-seed0: goes on after round" in again.stdout
    assert again.stdout.endswith("2 cells: 2 done\nruns/own\n")
    assert records.read_text().count("\n") == 4
    status = sweep(clone, "status", "own.yaml").stdout.splitlines()
    assert [line.split()[2:6] for line in status[1:3]] == [["done", "3", "of", "3"]] * 2


def test_an_edited_sweep_is_told_by_every_command(clone: Path) -> None:
    """A run of the old settings: stale in status, submitted again, in no table and on no page, removed when asked."""
    cells = load_sweep(str(clone / "own.yaml")).cells(["num_rounds=1", "logging.wandb=disabled"])
    for cell in cells:
        folder = clone / cell.folder
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(to_yaml(load_config(cell.arguments)))
        (folder / "status.json").write_text(json.dumps({"state": "done", "num_rounds": 1}))
        lines = [{"round": number, "global/loss": 7.6543219, "global/rouge_l": 0.4321987} for number in (0, 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("own.yaml", "num_rounds=1", "logging.wandb=disabled")
    assert "4 cells: 4 done" in sweep(clone, "status", *words, PATH="/nowhere").stdout
    (clone / "own.yaml").write_text(OWN + "overrides: {local.lr: 0.123}\n")
    told = "4 stale runs are left out, of other local.lr: runs/own/own-fedit-seed0 (local.lr: "
    status = sweep(clone, "status", *words, PATH="/nowhere")
    assert "4 cells: 4 stale" in status.stdout and told in status.stderr
    assert status.stdout.count(" → 0.123") == 4
    submit = sweep(clone, "submit", *words, "--only-unfinished", "--dry-run", PATH="/nowhere")
    assert "again: 4 stale\n" in submit.stdout and "--array=0-3 " in submit.stdout and told in submit.stderr
    for command in ("report", "page"):
        done = subprocess.run(
            [sys.executable, "-m", "fedlit", command, *words, *(["--no-figures"] if command == "report" else [])],
            cwd=clone,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert told in done.stderr
    table = (clone / "runs" / "own" / "report" / "table.md").read_text()
    page = (clone / "runs" / "own" / "dashboard.html").read_text()
    for text in (table, page):
        assert "4 stale runs are left out, of other local.lr" in text
        assert "7.6543" not in text and "0.43219" not in text
    assert "7.654" not in table and "0.432" not in table
    assert "4 of 4 runs are not done: 4 stale" in table
    (clone / "runs" / "own" / "sweep.json").write_text(json.dumps({"sweep": "own", "overrides": words[1:]}))
    refused = sweep(clone, "clean", "own.yaml")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1) and "give --yes" in refused.stderr
    shown = sweep(clone, "clean", "own.yaml", "--dry-run")
    assert "4 run folders, " in shown.stdout and "nothing is removed" in shown.stdout
    removed = sweep(clone, "clean", "own.yaml", "--yes", "method=fedit")
    assert removed.stdout.count(": stale (local.lr: ") == 2 and "2 run folders removed" in removed.stdout
    assert not any((clone / cell.folder).exists() for cell in cells[:2])
    assert all((clone / cell.folder).is_dir() for cell in cells[2:])
    (clone / "own.yaml").write_text(OWN + "overrides: {local.lr: 0.123}\nversion: 2\n")
    second = sweep(clone, "status", *words, PATH="/nowhere")
    assert "4 cells: 4 pending" in second.stdout and "stale" not in second.stderr
    assert second.stdout.endswith("runs/own-v2\n")
