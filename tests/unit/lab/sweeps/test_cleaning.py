"""What `sweep clean` may remove, that it removes nothing else, and that a crash leaves nothing that looks whole."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedlit.commands.sweep import main
from fedlit.config import Cell, Sweep, load_config, load_sweep, to_yaml
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import collect
from fedlit.lab.sweeps import cleaning
from fedlit.lab.sweeps.cells import cell_runs
from fedlit.lab.sweeps.cleaning import TRASH, leftovers, remove
from fedlit.store.lock import take_lock

OWN = "experiment: demo\noverrides:\n  local.lr: {lr}\naxes:\n  method: [fedit, ffa_lora]\n  seed: [0, 1]\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sweep]:
    """Return a function that writes the sweep's file, with a learning rate, and loads it."""
    monkeypatch.chdir(tmp_path)

    def write(lr: str = "0.1") -> Sweep:
        Path("own.yaml").write_text(OWN.format(lr=lr))
        return load_sweep("own.yaml")

    return write


def leave(cell: Cell, state: str) -> Path:
    """Leave a folder as a run leaves it that ended this way."""
    config = load_config(cell.arguments)
    cell.folder.mkdir(parents=True)
    (cell.folder / "config.yaml").write_text(to_yaml(config))
    (cell.folder / "status.json").write_text(json.dumps({"state": state, "num_rounds": config.num_rounds}))
    lines = [json.dumps({"round": number, "global/loss": 1.0}) for number in range(config.num_rounds + 1)]
    (cell.folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (cell.folder / "checkpoints").mkdir()
    (cell.folder / "checkpoints" / "weights").write_bytes(bytes(1000))
    return cell.folder


def names() -> list[str]:
    return sorted(path.name for path in Path("runs/own").iterdir())


@pytest.fixture
def mixed(own: Callable[..., Sweep]) -> Sweep:
    """A sweep with a run that is done, one that failed, one that was stopped and one that is stale."""
    cells = own().cells()
    leave(cells[3], "done")
    sweep = own("0.2")
    for cell, state in zip(sweep.cells()[:3], ("done", "failed", "stopped"), strict=True):
        leave(cell, state)
    return sweep


def test_kinds_and_sizes_of_run_folders(mixed: Sweep) -> None:
    found = leftovers(cell_runs(mixed))
    assert [(each.cell, each.kind, each.kept) for each in found] == [
        (0, "done", ""),
        (1, "failed", ""),
        (2, "stopped", ""),
        (3, "stale", ""),
    ]
    assert found[3].why == "local.lr: 0.1 → 0.2"
    assert found[0].size_bytes == sum(path.stat().st_size for path in found[0].folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ([], ["own-fedit-seed0", "own-ffa_lora-seed0"]),
        (["--stale"], ["own-fedit-seed0", "own-fedit-seed1", "own-ffa_lora-seed0"]),
        (["--failed"], ["own-fedit-seed0", "own-ffa_lora-seed0", "own-ffa_lora-seed1"]),
        (["--stale", "--failed"], ["own-fedit-seed0", "own-ffa_lora-seed0"]),
        (["--all"], []),
        (["0"], ["own-fedit-seed1", "own-ffa_lora-seed0", "own-ffa_lora-seed1"]),
        (["--stale", "0-2"], ["own-fedit-seed0", "own-fedit-seed1", "own-ffa_lora-seed0", "own-ffa_lora-seed1"]),
        (["own-ffa_lora-seed0"], ["own-fedit-seed0", "own-fedit-seed1", "own-ffa_lora-seed1"]),
        (["--all", "seed=1"], ["own-fedit-seed0", "own-ffa_lora-seed0"]),
        (["seed=0"], ["own-fedit-seed0", "own-fedit-seed1", "own-ffa_lora-seed0", "own-ffa_lora-seed1"]),
        (["--dry-run", "--all"], ["own-fedit-seed0", "own-fedit-seed1", "own-ffa_lora-seed0", "own-ffa_lora-seed1"]),
    ],
)
@pytest.mark.usefixtures("mixed")
def test_only_what_is_asked_for_is_removed(words: list[str], left: list[str]) -> None:
    assert main(["clean", "own.yaml", *words, "--yes"]) == 0
    assert names() == left


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize(("answer", "code", "num_left"), [("y", 0, 2), ("", 1, 4), ("n", 1, 4), (None, 1, 4)])
def test_it_asks_with_the_exact_list(
    answer: str | None,
    code: int,
    num_left: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = []

    def ask(question: str) -> str:
        asked.append(question)
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert main(["clean", "own.yaml"]) == code
    assert len(names()) == num_left
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("runs/own/own-fedit-seed1: failed (failed), ")
    assert shown[1].startswith("runs/own/own-ffa_lora-seed1: stale (local.lr: 0.1 → 0.2), ")
    assert asked[0].startswith("remove 2 run folders (")


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give --yes, or --dry-run"),
        (["--yes", "4"], "there is no cell 4; give 0 to 3"),
        (["--yes", "own-fedit"], "own-fedit is no cell of this sweep; did you mean"),
        (["--yes", "--all", "--stale"], "leave --stale and --failed out"),
        (["--yes", "local.lr=0.3"], "local.lr=0.3 picks no cell"),
        (["--yes", "--old"], "unknown option --old"),
    ],
)
def test_a_mistake_is_one_line_and_removes_nothing(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(["clean", "own.yaml", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and told in error
    assert len(names()) == 4


def test_runs_of_the_last_start_are_not_stale_where_cells_are_picked(own: Callable[..., Sweep]) -> None:
    """`status seed=0` compares with the file, and what is removed must not depend on that."""
    for cell in own().cells(["local.lr=0.3"]):
        leave(cell, "done")
    Path("runs/own/sweep.json").write_text(json.dumps({"sweep": "own", "overrides": ["local.lr=0.3"]}))
    for words in ([], ["seed=0"], ["0"]):
        assert main(["clean", "own.yaml", "--stale", "--yes", *words]) == 0
    assert len(names()) == 5
    assert main(["clean", "own.yaml", "--stale", "--yes", "--as-in-file", "seed=0"]) == 0
    assert len(names()) == 3


def test_nothing_that_is_no_run_folder_of_the_sweep_is_removed(
    mixed: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Path("runs/own")
    shutil.copytree(runs / "own-fedit-seed0", "elsewhere")
    shutil.rmtree(runs / "own-fedit-seed1")
    (runs / "own-fedit-seed1").symlink_to(Path("elsewhere").absolute())
    (runs / "own-fedit-seed0" / "config.yaml").unlink()
    for name in ("notes", "own-other", "report"):
        shutil.copytree("elsewhere", runs / name)
    assert main(["clean", "own.yaml", "--all", "--yes"]) == 0
    assert names() == ["notes", "own-fedit-seed0", "own-fedit-seed1", "own-other", "report"]
    assert sorted(path.name for path in Path("elsewhere").iterdir())
    told = capsys.readouterr().out
    assert "left: runs/own/own-fedit-seed0 is no run folder" in told
    assert "left: runs/own/own-fedit-seed1 is a link" in told


def test_links_inside_a_run_folder_are_not_followed(mixed: Sweep) -> None:
    Path("precious").mkdir()
    Path("precious/file").write_text("x")
    folder = Path("runs/own/own-fedit-seed1")
    (folder / "plots").symlink_to(Path("precious").absolute())
    (folder / "checkpoints" / "link").symlink_to(Path("precious/file").absolute())
    assert main(["clean", "own.yaml", "--failed", "--yes"]) == 0
    assert not folder.exists() and Path("precious/file").read_text() == "x"


def test_a_run_at_work_keeps_its_folder(mixed: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("runs/own/own-ffa_lora-seed1")  # stale, and at work
    lock = take_lock(folder)
    try:
        assert main(["clean", "own.yaml", "--yes"]) == 0
        assert folder.is_dir()
        assert f"is in use (host {os.uname().nodename}, process {os.getpid()})" in capsys.readouterr().out
        with pytest.raises(UserError, match="is in use"):
            remove(folder)
    finally:
        lock.release()
    remove(folder)
    assert not folder.exists()


def test_a_crash_in_the_middle_leaves_nothing_that_looks_whole(mixed: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cleaning.shutil, "rmtree", crash)
        with pytest.raises(KeyboardInterrupt):
            remove(Path("runs/own/own-fedit-seed0"))
    assert TRASH in names() and "own-fedit-seed0" not in names()
    assert [run.status.state for run in cell_runs(mixed)] == ["pending", "failed", "stopped", "stale"]
    assert sorted(entry.name for entry in collect(["runs/own"]).entries) == [
        "own-fedit-seed1",
        "own-ffa_lora-seed0",
        "own-ffa_lora-seed1",
    ]
    assert main(["clean", "own.yaml", "--stale", "--yes"]) == 0
    assert names() == ["own-fedit-seed1", "own-ffa_lora-seed0"]


def test_a_trash_that_leads_elsewhere_is_refused(mixed: Sweep) -> None:
    Path("precious").mkdir()
    Path("precious/file").write_text("x")
    (Path("runs/own") / TRASH).symlink_to(Path("precious").absolute())
    assert main(["clean", "own.yaml", "--all", "--yes"]) == 2
    assert Path("precious/file").exists() and len(names()) == 5
