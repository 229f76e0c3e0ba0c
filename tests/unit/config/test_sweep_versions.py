"""A changed sweep as a version of its own, and the axes whose best value a report shows."""

from pathlib import Path

import pytest

from fedlit.config import Sweep, load_sweep
from fedlit.errors import UserError
from fedlit.lab.sweeps.records import arguments_path, remember

OWN = "experiment: demo\naxes:\n  local.lr: [0.1, 0.2]\n  method: [fedit]\n  seed: [0, 1]\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def own(more: str = "") -> Sweep:
    Path("own.yaml").write_text(OWN + more)
    return load_sweep("own.yaml")


def test_a_version_has_a_folder_of_its_own_and_cells_of_the_same_names() -> None:
    first, second = own(), own("version: 2\n")
    assert {cell.folder.parent for cell in first.cells()} == {Path("runs/own")}
    assert [cell.name for cell in second.cells()] == [cell.name for cell in first.cells()]
    assert {cell.folder.parent for cell in second.cells()} == {Path("runs/own-v2")}
    assert all("logging.group=own-v2" in cell.arguments for cell in second.cells())
    assert second.folder(["run.dir=there"]) == Path("there")
    remember(second, ["seed=0"])
    assert arguments_path(second) == Path("runs/own-v2/sweep.json") and not arguments_path(first).exists()


def test_the_first_version_is_the_sweep_without_one() -> None:
    assert own("version: 1\n").cells() == own().cells()


@pytest.mark.parametrize("version", ["0", "-1", "two", "1.5", "true", "[2]", "null"])
def test_what_is_no_version_is_one_line(version: str) -> None:
    with pytest.raises(UserError, match=r"^own.yaml: version=[^\n]* is no version; write 1, 2, 3 ...$"):
        own(f"version: {version}\n")


@pytest.mark.parametrize("best", ["[local.lr]", "local.lr"])
def test_axes_of_which_the_best_is_shown(best: str) -> None:
    assert own(f"best: {best}\n").best == ("local.lr",)
    assert own().best == ()


@pytest.mark.parametrize(
    ("best", "told"),
    [
        ("[local.lrr]", "did you mean 'local.lr'?"),
        ("[seed]", "Keys that vary: local.lr"),
        ("[partition.seed]", "Keys that vary: local.lr"),
        ("[method]", "is no axis with several values"),
        ("{local.lr: 1}", "write best: \\[local.lr\\]"),
        ("[1]", "write best: \\[local.lr\\]"),
    ],
)
def test_what_is_no_axis_to_choose_on_is_one_line(best: str, told: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]{1,400}$") as raised:
        own(f"best: {best}\n")
    assert raised.match(told)
