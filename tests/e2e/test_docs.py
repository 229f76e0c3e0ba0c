"""What the pages of docs/ show is run: the Python of one, the module and the commands of another, the configuration."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, SMALL, environment

from fedlit.outside.kinds import KINDS

PLACES = {"own-data.md": "start"}


def blocks(page: str, language: str) -> list[str]:
    text = (REPOSITORY / "docs" / PLACES.get(page, "howto") / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_python_of_the_page_prints_nothing(tmp_path: Path) -> None:
    (code,) = blocks("python.md", "python")
    done = run("-c", code.replace("num_rounds=2", 'num_rounds=1, logging={"wandb": "disabled"}'), folder=tmp_path)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_commands_of_the_page_of_results_run_one_after_the_other(tmp_path: Path) -> None:
    first, *others = (line.split(" ", 1)[1] for line in blocks("results.md", "bash")[0].splitlines())
    run("-m", "fedlit", *shlex.split(first), *SMALL, folder=tmp_path)
    said = [run("-m", "fedlit", *shlex.split(line), folder=tmp_path).stdout for line in others]
    assert [line.split()[0] for line in others] == ["chat", "merge", "push"]
    assert "nothing was sent (--dry-run)" in said[-1]
    (code,) = blocks("results.md", "python")
    assert run("-c", code, folder=tmp_path).stdout == said[0]
    page = (REPOSITORY / "docs" / "howto" / "results.md").read_text(encoding="utf-8")
    files = [path.name for name in ("adapter", "merged") for path in (tmp_path / "runs" / "mine" / name).iterdir()]
    assert [name for name in files if f"`{name}`" not in page and not name.startswith("tokenizer")] == []


def test_the_part_of_the_page_has_help_and_runs(tmp_path: Path) -> None:
    (module,) = blocks("plugins.md", "python")
    assert module.startswith("# my_parts.py\n")
    (tmp_path / "my_parts.py").write_text(module, encoding="utf-8")
    helped, ran = (line.partition("#")[0].split()[1:] for line in blocks("plugins.md", "bash")[0].splitlines())
    assert "method.share=0.5" in run("-m", "fedlit", *helped, folder=tmp_path).stdout
    run("-m", "fedlit", *ran, *SMALL, "run.name=shown", folder=tmp_path)
    assert (tmp_path / "runs" / "shown" / "adapter").is_dir()


def test_the_page_of_parts_knows_every_kind() -> None:
    page = (REPOSITORY / "docs" / "howto" / "plugins.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in page] == []


@pytest.mark.parametrize("line", ["local.lr = 0.01  (my.yaml; configs/experiment/demo.yaml says 0.005)"])
def test_the_configuration_of_the_page_is_explained_as_it_says(tmp_path: Path, line: str) -> None:
    (text,) = blocks("configuration.md", "yaml")
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "my_data.yaml").write_text("name: mine\n", encoding="utf-8")
    assert line in (REPOSITORY / "docs" / "howto" / "configuration.md").read_text(encoding="utf-8")
    told = run("-m", "fedlit", "run", "--explain", "my.yaml", "seed=1", folder=tmp_path).stdout
    assert line in [entry.strip() for entry in told.splitlines()]


def test_the_hospitals_go_from_files_to_a_chat(tmp_path: Path) -> None:
    (script,) = blocks("own-data.md", "python")
    (tmp_path / "hospitals.py").write_text(script, encoding="utf-8")
    shorter = (("num_rounds: 8", "num_rounds: 1"), ("steps: 15", "steps: 1"), ("seed: [0, 1]", "seed: [0]"))
    for name, shown in zip(("hospitals.yaml", "hospitals-sweep.yaml"), blocks("own-data.md", "yaml"), strict=True):
        text = shown.replace("0.003, 0.01, 0.03", "0.003, 0.01")
        for long, short in shorter:
            text = text.replace(long, short)
        (tmp_path / name).write_text(text, encoding="utf-8")
    commands = [line for block in blocks("own-data.md", "bash") for line in block.splitlines()]
    made, *others = commands
    run(*made.split()[1:], folder=tmp_path)
    quick = [line.replace("0.003,0.01,0.03", "0.003,0.01") for line in others]
    said = {line: run("-m", "fedlit", *shlex.split(line)[1:], folder=tmp_path).stdout for line in quick}
    assert [line.split()[1] for line in quick] == [
        *("run", "compare", "sweep", "sweep", "report", "page", "chat", "merge", "push")
    ]
    report = next(text for line, text in said.items() if line.startswith("fedlit report"))
    assert "| method | best lr |" in report
    assert (tmp_path / "runs" / "hospitals-sweep" / "dashboard.html").is_file()
