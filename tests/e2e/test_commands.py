"""The README's commands beside training: help, dry run, the other data sets, one's own data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, SCRIPT, CommandLine, environment

SHARED = REPOSITORY.parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="there is no folder `shared` beside the repository")


def test_help_needs_no_torch(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=tmp_path,
        check=True,
    )
    for word in ("data=", "medquad", "fedsa_lora", "local.lr=0.001", "partition.alpha", "method.lora_rank"):
        assert word in done.stdout, word


def test_dry_run_tells_sizes_and_writes_nothing(command_line: CommandLine) -> None:
    done = command_line.run(
        "dry", "dry_run=true", "method=fedsa_lora", "num_clients=5", "cohort_size=3", num_processes=2
    )
    assert done.returncode == 0, done.stderr
    assert "5, 3 in a round; 2 + 1 on 2 devices" in done.stdout
    assert "25,600 trainable (15,360 shared, 10,240 private), 1,246,592 frozen" in done.stdout
    assert "61.4 kB up, 61.4 kB down" in done.stdout
    assert "memory     about" in done.stdout
    assert "kernels" not in done.stderr, "no other library has anything to say"
    assert not (command_line.folder / "dry").exists()


@needs_shared
@pytest.mark.parametrize(
    ("data", "path", "model"),
    [
        ("medquad", "medquad/medquad.jsonl.gz", []),
        pytest.param(
            "dolly",
            "dolly15k/dolly15k.jsonl.gz",
            ["model=hf", f"model.path={SHARED}/models/stories260k"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_real_text_and_a_foreign_backbone(command_line: CommandLine, data: str, path: str, model: list[str]) -> None:
    arguments = [f"data={data}", f"data.path={SHARED}/data/{path}", "num_rounds=1", *model]
    done = command_line.run("real", *arguments, "eval.protocol=teacher_forced")
    assert done.returncode == 0, done.stderr
    lines = (command_line.folder / "real" / "metrics.jsonl").read_text().splitlines()
    first, last = (json.loads(line) for line in lines)
    assert first["eval/protocol"] == "teacher_forced"
    assert last["global/loss"] < first["global/loss"]


@pytest.mark.slow
def test_own_data_under_its_own_column_names(command_line: CommandLine) -> None:
    rows = [
        {"q": f"What is {n} + {n}?", "a": f"It is {2 * n}.", "topic": "even" if n % 2 else "odd"} for n in range(60)
    ]
    path = command_line.folder / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ["data.template={q}", "data.required=[q]", "data.response=a", "data.label=topic"]
    done = command_line.run(
        "own", "data=jsonl", f"data.path={path}", *columns, "num_rounds=1", "local.steps=null", "local.epochs=1"
    )
    assert done.returncode == 0, done.stderr
    partition = json.loads((command_line.folder / "own" / "partition.json").read_text())
    assert sum(client["num_train"] + client["num_test"] for client in partition["clients"]) == 60


@pytest.mark.slow
def test_make_demo_improves_on_the_untrained_model(tmp_path: Path) -> None:
    """On a clone of the committed tree, with an environment of its own."""
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(tmp_path / "clone")], check=True)
    subprocess.run(["make", "demo"], cwd=tmp_path / "clone", env=environment(), check=True, timeout=1200)
    (records,) = (tmp_path / "clone" / "runs").glob("*/metrics.jsonl")
    first, *_, last = (json.loads(line) for line in records.read_text().splitlines())
    assert last["global/loss"] < first["global/loss"] - 0.5
    assert last["global/rouge_l"] > first["global/rouge_l"]
