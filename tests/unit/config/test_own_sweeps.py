"""A sweep outside the shipped folder: its experiment and its axes may be files of its own, or none."""

from pathlib import Path

import pytest

from fedlit.config import Sweep, load_config, load_sweep
from fedlit.errors import UserError


@pytest.fixture
def here(tmp_path: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert config_dir.is_dir()
    for name, text in {
        "mine/my.yaml": "experiment: passes\nnum_rounds: 2\n",
        "mine/rows.yaml": "label: topic\n",
        "mine/more.yaml": "label: other\n",
        "else.yaml": "label: third\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep(here: Path, config_dir: Path, text: str) -> Sweep:
    (here / "mine/grid.yaml").write_text(text, encoding="utf-8")
    return load_sweep("mine/grid.yaml", config_dir)


def test_without_an_experiment_a_cell_starts_from_the_defaults(here: Path, config_dir: Path) -> None:
    whole = sweep(here, config_dir, "overrides: {num_rounds: 4}\naxes: {seed: [0, 1]}\n")
    configs = [load_config(cell.arguments, config_dir) for cell in whole.cells()]
    assert [(config.seed, config.num_rounds, config.local.epochs) for config in configs] == [(0, 4, None), (1, 4, None)]
    cell = whole.cells(["experiment=passes", "seed=1"])[0]
    assert load_config(cell.arguments, config_dir).local.epochs == 3
    with pytest.raises(UserError, match="experiment=bth"):
        load_config(whole.cells(["experiment=bth"])[0].arguments, config_dir)


def test_paths_are_seen_from_the_sweep_s_folder(here: Path, config_dir: Path) -> None:
    text = "experiment: my.yaml\naxes:\n  data: [rows.yaml, more.yaml, questions]\n  seed: [0]\n"
    whole = sweep(here, config_dir, text)
    cells = whole.cells()
    configs = [load_config(cell.arguments, config_dir) for cell in cells]
    assert [config.data.name for config in configs] == ["rows", "more", "questions"]
    assert {(config.num_rounds, config.local.epochs) for config in configs} == {(2, 3)}
    assert [cell.settings["data"] for cell in cells] == ["rows.yaml", "more.yaml", "questions"]
    assert [cell.name for cell in cells] == ["grid-rows.yaml", "grid-more.yaml", "grid-questions"]
    absolute = load_sweep(str(here / "mine/grid.yaml"), config_dir)
    assert [load_config(cell.arguments, config_dir) for cell in absolute.cells()] == configs


def test_a_path_of_the_command_line_is_seen_from_the_working_folder(here: Path, config_dir: Path) -> None:
    whole = sweep(here, config_dir, "axes:\n  data: [rows.yaml, more.yaml]\n")
    picked = whole.cells(["data=more.yaml"])
    assert [load_config(cell.arguments, config_dir).data.label for cell in picked] == ["other"]
    replaced = whole.cells(["data=else.yaml"])
    assert [load_config(cell.arguments, config_dir).data.label for cell in replaced] == ["third"]
    to_all = whole.cells(["model=nowhere.yaml"])
    with pytest.raises(UserError, match=r"model=nowhere.yaml \(command line\) is not there"):
        load_config(to_all[0].arguments, config_dir)


def test_a_run_s_configuration_may_be_where_a_sweep_starts(here: Path, config_dir: Path) -> None:
    from fedlit.config import to_yaml  # noqa: PLC0415

    config = load_config(["experiment=both"], config_dir)
    (here / "mine/config.yaml").write_text(to_yaml(config), encoding="utf-8")
    whole = sweep(here, config_dir, "experiment: config.yaml\naxes:\n  method: [fedit, nested]\n  seed: [5]\n")
    configs = [load_config(cell.arguments, config_dir) for cell in whole.cells()]
    assert [(each.method.name, each.num_rounds, each.seed) for each in configs] == [("fedit", 7, 5), ("nested", 7, 5)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("experiment: mi.yaml\naxes: {seed: [0]}\n", ["experiment=mi.yaml (mine/grid.yaml)", "'mine/my.yaml'"]),
        ("axes: {data: [row.yaml]}\n", ["data=row.yaml (mine/grid.yaml)", "'mine/rows.yaml'"]),
        ("num_rounds: 3\n", ["mine/grid.yaml has num_rounds and no axes", "fedlit run mine/grid.yaml"]),
    ],
)
def test_mistakes_are_one_line(here: Path, config_dir: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        sweep(here, config_dir, text)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


def test_the_experiment_of_the_file_is_not_replaced(here: Path, config_dir: Path) -> None:
    whole = sweep(here, config_dir, "experiment: my.yaml\naxes: {seed: [0]}\n")
    with pytest.raises(UserError, match="the sweep names it"):
        whole.cells(["experiment=both"])
