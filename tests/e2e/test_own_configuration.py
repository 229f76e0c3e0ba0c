"""A user's own configuration: a run's config.yaml gives the same bits again; files and folders of one's own."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CommandLine, Zygote, environment
from test_every_recipe import ROWS, TINY

MODULE = Path(__file__).resolve().parents[1] / "outside" / "outside_parts.py"
AGAIN = {
    "fedit": (["method=fedit"], 1),
    "fedftg": (["method=fedftg", "local.steps=2", "method.galore.update_proj_gap=3", "method.galore.scale=0.5"], 1),
    "ranks": (["method=hetlora", "method.lora_rank=[2,4,3]", "cohort_size=2"], 2),
    "outside": (["method=fedit", "plugins=[outside_parts]", "method.rule=trimmed_mean", "method.trim=1"], 1),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in ("fedit", "fedftg") else case for case in AGAIN]
)
def test_a_run_s_own_configuration_gives_the_same_bits(
    zygote: Zygote, forked_command_line: CommandLine, case: str
) -> None:
    words, num_processes = AGAIN[case]
    shutil.copy(MODULE, zygote.folder)
    (zygote.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    given = {word.split("=")[0] for word in words}
    common = [word for word in TINY if word.split("=")[0] not in given]
    zygote.run(case, *common, *words, "data.path=rows.jsonl", num_processes=num_processes)
    zygote.run(f"{case}-again", f"{case}/config.yaml")
    assert forked_command_line.result(f"{case}-again") == forked_command_line.result(case)
    # Under its own name it is the run itself, which is finished.
    before = (zygote.folder / case / "metrics.jsonl").read_bytes()
    zygote.run(case, f"{case}/config.yaml")
    assert (zygote.folder / case / "metrics.jsonl").read_bytes() == before


def fedlit(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedlit", *words],
        cwd=folder,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with what a newcomer writes: a configuration, data of one's own, a sweep."""
    for name, text in {
        "rows.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
        "my.yaml": "experiment: demo\ndata: mine/data/own.yaml\nnum_clients: 3\nlocal.steps: 1\n",
        "mine/data/own.yaml": "source: jsonl\npath: rows.jsonl\n",
        "mine/experiment/quick.yaml": "data: own\nnum_clients: 3\nnum_rounds: 1\nlocal.steps: 1\n",
        "mine/sweep/two.yaml": "# two seeds\nexperiment: quick\naxes: {seed: [0, 1]}\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_what_is_asked_is_explained_and_nothing_runs(folder: Path) -> None:
    done = fedlit(folder, "run", "my.yaml", "local.lr=0.01", "--explain")
    assert done.returncode == 0, done.stderr
    assert "  local.lr = 0.01  (command line; configs/experiment/demo.yaml says 0.005)\n" in done.stdout
    assert "  num_clients = 3  (my.yaml; configs/experiment/demo.yaml says 4)\n" in done.stdout
    assert "  data.path = rows.jsonl  (mine/data/own.yaml)\n" in done.stdout
    assert not (folder / "runs").exists()
    done = fedlit(folder, "run", "--explain=json", "--config-dir", "mine", "experiment=quick")
    assert json.loads(done.stdout)["values"]["data.name"]["value"] == "own", done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "mi.yaml"], "error: mi.yaml (command line) is not there"),
        (["run", "--config-dir", "nowhere", "my.yaml"], "error: --config-dir=nowhere is not there"),
        (["run", "--explian", "my.yaml"], "error: unknown option --explian; did you mean '--explain'?"),
        (["run", "--config-dir"], "error: --config-dir needs a folder"),
        (["my.yaml"], "error: unknown command 'my.yaml'; write 'fedlit run my.yaml'."),
        (["compare", "--config-dir=rows.jsonl"], "error: --config-dir=rows.jsonl is a file"),
        (["sweep", "count", "my.yaml"], "error: my.yaml has data and no axes"),
    ],
)
def test_mistakes_are_one_line(folder: Path, words: list[str], told: str) -> None:
    done = fedlit(folder, *words)
    assert done.returncode == 2
    assert done.stderr.startswith(told), done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "runs").exists()


def test_every_command_sees_the_search_path(folder: Path) -> None:
    assert "two seeds" in fedlit(folder, "sweep", "list", "--config-dir", "mine").stdout
    variable = {"FEDLIT_CONFIG_PATH": "mine"}
    assert fedlit(folder, "sweep", "count", "two", "seed=1", **variable).stdout == "1\n"
    shown = shlex.split(fedlit(folder, "sweep", "show", "--config-dir=mine", "two", "1").stdout)
    assert shown[:4] == ["fedlit", "run", f"--config-dir={folder}/mine", "experiment=quick"]
    done = fedlit(folder, "fetch", "--config-dir", "mine", "two", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "rows.jsonl" in done.stdout
    assert "rows.jsonl" in fedlit(folder, "fetch", "--dry-run", "my.yaml").stdout


def test_a_cell_of_an_own_sweep_runs_with_its_own_files(folder: Path) -> None:
    words = ["logging.wandb=disabled", "eval.max_examples=4", "eval.max_new_tokens=2", "partition.min_test_rows=2"]
    done = fedlit(folder, "sweep", "run", "--config-dir", "mine", "two", "--local", "seed=1", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    (config,) = folder.glob("runs/two/*/config.yaml")
    assert "name: own" in config.read_text()
    # The table finds the same sweep, and the run its configuration without the folder.
    table = fedlit(folder, "report", "two", "--config-dir", "mine", "--no-figures")
    assert table.returncode == 0, table.stderr
    found = fedlit(folder, "run", str(config.relative_to(folder)))
    assert found.returncode == 0, found.stderr
