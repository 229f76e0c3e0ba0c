"""Sweeps: which cells a file expands into, what a user's arguments make of them, and what is refused."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedlit.config import CONFIG_DIR, load_config
from fedlit.config.sweep import Sweep, load_sweep, load_sweeps
from fedlit.errors import UserError

GRID = """
experiment: passes
axes:
  clients: [{num_clients: 3, data.sample: 30}, {num_clients: 4, data.sample: 40}]
  method: [fedit, {method: nested, method.flag: true}]
  seed: [0, 1, 2]
"""

HOLES = """
experiment: passes
axes:
  data: [pydoc, questions]
grids:
  - length: [{num_rounds: 5, local.epochs: 3}, {num_rounds: 2, local.epochs: 10}]
    method: [fedit]
  - {num_rounds: [5], method: [nested]}
"""


def write(config_dir: Path, text: str, name: str = "grid") -> None:
    path = config_dir / "sweep" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def sweep(config_dir: Path, text: str = GRID) -> Sweep:
    write(config_dir, text)
    return load_sweep("grid", config_dir)


def values(arguments: list[str]) -> dict[str, str]:
    return dict(argument.split("=", maxsplit=1) for argument in arguments)


def test_cells_are_all_combinations_in_the_order_of_the_file(config_dir: Path) -> None:
    cells = sweep(config_dir).cells()
    wanted = list(itertools.product(["3", "4"], ["fedit", "nested"], ["0", "1", "2"]))
    found = [values(cell.arguments) for cell in cells]
    assert [(cell["num_clients"], cell["method"], cell["seed"]) for cell in found] == wanted
    assert all(cell["data.sample"] == cell["num_clients"] + "0" for cell in found), "coupled values were parted"
    assert [cell.get("method.flag") for cell in found[:6]] == [None, None, None, "true", "true", "true"]
    assert {cell["experiment"] for cell in found} == {"passes"}


def test_every_cell_loads_and_differs(config_dir: Path) -> None:
    cells = sweep(config_dir).cells()
    configs = [load_config(cell.arguments, config_dir) for cell in cells]
    assert [config.run.name for config in configs] == [cell.name for cell in cells]
    assert all(config.local.epochs == 3 for config in configs), "the experiment is not under the cells"
    assert len({repr(config) for config in configs}) == len(cells) == 12


def test_names_are_unique_and_made_of_what_varies(config_dir: Path) -> None:
    names = [cell.name for cell in sweep(config_dir).cells()]
    assert len(set(names)) == len(names)
    assert names[0] == "grid-num_clients3-fedit-seed0"
    assert names[-1] == "grid-num_clients4-nested-seed2"
    single = sweep(config_dir, "experiment: passes\naxes:\n  seed: [4]\n").cells()
    assert [cell.name for cell in single] == ["grid"]


def test_a_cell_has_the_same_name_however_many_are_picked(config_dir: Path) -> None:
    whole = sweep(config_dir)
    by_arguments = {tuple(cell.arguments): cell.name for cell in whole.cells()}
    for picked in (["seed=1"], ["method=nested", "seed=[0, 2]"], ["num_clients=4", "method=fedit", "seed=0"]):
        cells = whole.cells(picked)
        assert cells
        for cell in cells:
            assert by_arguments[tuple(cell.arguments)] == cell.name


def test_an_argument_for_no_axis_goes_to_every_cell(config_dir: Path) -> None:
    whole = sweep(config_dir)
    plain, changed = whole.cells(), whole.cells(["local.lr=0.25", "run.dir=elsewhere"])
    assert [cell.name for cell in plain] == [cell.name for cell in changed]
    assert {load_config(cell.arguments, config_dir).local.lr for cell in changed} == {0.25}


@pytest.mark.parametrize(
    ("arguments", "num_cells"),
    [
        (["seed=1"], 4),
        (["seed=[0, 2]"], 8),
        (["method=nested"], 6),
        (["num_clients=3"], 6),
        (["data.sample=40"], 6),
        (["num_clients=3", "seed=0", "method=fedit"], 1),
    ],
)
def test_an_argument_for_an_axis_picks_cells(config_dir: Path, arguments: list[str], num_cells: int) -> None:
    whole = sweep(config_dir)
    picked = [cell.arguments for cell in whole.cells(arguments)]
    everything = [cell.arguments for cell in whole.cells()]
    assert len(picked) == num_cells
    assert picked == [cell for cell in everything if cell in picked], "picked cells are not those of the file in order"


def test_a_value_that_no_cell_has_takes_the_place_of_those_in_the_file(config_dir: Path) -> None:
    whole = sweep(config_dir)
    cells = whole.cells(["seed=[7, 8]", "num_clients=9"])
    found = [values(cell.arguments) for cell in cells]
    # two samples x two methods x two seeds: nothing but the two values changed
    assert len(found) == 8
    assert {cell["seed"] for cell in found} == {"7", "8"}
    assert {cell["num_clients"] for cell in found} == {"9"}
    assert {cell["data.sample"] for cell in found} == {"30", "40"}
    assert len({cell.name for cell in cells}) == 8
    assert len(whole.cells(["seed=7"])) == 4, "cells that became equal were not merged"


def test_an_option_of_a_method_leaves_other_methods_alone(config_dir: Path) -> None:
    found = [values(cell.arguments) for cell in sweep(config_dir).cells(["method.flag=false", "seed=0"])]
    assert [(cell["method"], cell.get("method.flag")) for cell in found] == [
        ("fedit", None),
        ("nested", "false"),
    ] * 2


def test_grids_make_tables_with_holes(config_dir: Path) -> None:
    whole = sweep(config_dir, HOLES)
    found = [values(cell.arguments) for cell in whole.cells()]
    assert [(cell["data"], cell["method"], cell["num_rounds"], cell.get("local.epochs")) for cell in found] == [
        ("pydoc", "fedit", "5", "3"),
        ("questions", "fedit", "5", "3"),
        ("pydoc", "fedit", "2", "10"),
        ("questions", "fedit", "2", "10"),
        ("pydoc", "nested", "5", None),
        ("questions", "nested", "5", None),
    ]
    assert len(whole.cells(["method=nested"])) == 2, "a grid without the method kept its cells"
    assert len(whole.cells(["num_rounds=2"])) == 2
    assert len(whole.cells(["local.epochs=3"])) == 4, "the grid that does not have the key was not given it"


def test_steps_take_the_place_of_epochs(config_dir: Path) -> None:
    cells = sweep(config_dir, HOLES).cells(["local.steps=2", "num_rounds=1"])
    assert len(cells) == 4
    configs = [load_config(cell.arguments, config_dir) for cell in cells]
    assert {(config.local.steps, config.local.epochs, config.num_rounds) for config in configs} == {(2, None, 1)}


def test_lists_and_texts_survive(config_dir: Path) -> None:
    text = (
        "experiment: passes\naxes:\n  method.ranks: [[4, 2], [16, 8]]\n  method: [nested]\n"
        '  data.template: ["### {q}\\n\\n", " # "]\n'
    )
    whole = sweep(config_dir, text)
    configs = [load_config(cell.arguments, config_dir) for cell in whole.cells()]
    assert [(config.method.options["ranks"], config.data.template) for config in configs] == [
        ([4, 2], "### {q}\n\n"),
        ([4, 2], " # "),
        ([16, 8], "### {q}\n\n"),
        ([16, 8], " # "),
    ]
    assert len({cell.name for cell in whole.cells()}) == 4
    assert len(whole.cells(["method.ranks=[16, 8]"])) == 2
    assert len(whole.cells(["method.ranks=[[16, 8], [4, 2]]"])) == 4


def test_configurations_share_no_lists(config_dir: Path) -> None:
    arguments = sweep(config_dir, "experiment: passes\naxes:\n  method: [nested]\n").cells()[0].arguments
    changed = load_config(arguments, config_dir)
    changed.method.options["ranks"].append(7)
    changed.method.options["galore"]["rank"] = 7
    fresh = load_config(arguments, config_dir).method.options
    assert (fresh["ranks"], fresh["galore"]["rank"]) == ([8, 4], 16)


AXES = st.dictionaries(
    st.sampled_from(["seed", "num_rounds", "num_clients", "local.batch_size"]),
    st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
    min_size=1,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(axes=AXES, data=st.data())
def test_any_grid(config_dir: Path, axes: dict[str, list[int]], data: st.DataObject) -> None:
    text = "experiment: passes\naxes:\n" + "".join(f"  {key}: {entries}\n" for key, entries in axes.items())
    whole = sweep(config_dir, text)
    cells = whole.cells()
    wanted = [dict(zip(axes, map(str, combination), strict=True)) for combination in itertools.product(*axes.values())]
    assert [{key: values(cell.arguments)[key] for key in axes} for cell in cells] == wanted
    assert len({cell.name for cell in cells}) == len(cells)
    key = data.draw(st.sampled_from(sorted(axes)))
    value = data.draw(st.sampled_from(axes[key]))
    picked = whole.cells([f"{key}={value}"])
    assert picked == [cell for cell in cells if values(cell.arguments)[key] == str(value)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("experiment: nothing\n", ["experiment=nothing", "configs/sweep/grid.yaml", "both, passes"]),
        ("experiment: passes\naxis: {seed: [0]}\n", ["unknown key 'axis'", "did you mean 'axes'?"]),
        ("experiment: passes\naxes: [seed]\n", ["no set of axes", "configs/sweep/grid.yaml"]),
        ("experiment: passes\naxes: {seed: []}\n", ["axis seed=[]", "no values", "[1, 2]"]),
        ("experiment: passes\naxes: {seed: 3}\n", ["axis seed=3", "no values"]),
        ("experiment: passes\naxes: {seed: {a: 1}}\n", ["axis seed=", "no values"]),
        ("experiment: passes\naxes: {num_client: [3]}\n", ["unknown key 'num_client'", "grid.yaml", "'num_clients'"]),
        ("experiment: passes\naxes: {local.epoch: [3]}\n", ["unknown key 'local.epoch'", "'local.epochs'"]),
        ("experiment: passes\naxes: {free: [{local.epoch: 3}]}\n", ["unknown key 'local.epoch'", "'local.epochs'"]),
        ("experiment: passes\naxes: {method.lora_rnk: [3]}\n", ["unknown key 'method.lora_rnk'", "lora_rank"]),
        ("experiment: passes\naxes: {local: [3]}\n", ["local=3", "a mapping is expected"]),
        ("experiment: passes\naxes: {model: [tony]}\n", ["model=tony", "grid.yaml", "'tiny'"]),
        ("experiment: passes\naxes: {seed: [0, 1, 0]}\n", ["cells 0 and 2", "grid.yaml", "seed=0", "leave one"]),
        (
            "experiment: passes\ngrids:\n  - {seed: [0], num_rounds: [3]}\n  - {num_rounds: [2, 3], seed: [0]}\n",
            ["cells 0 and 2", "num_rounds=3"],
        ),
        (
            "experiment: passes\naxes: {seed: [0]}\ngrids:\n  - runs: [{seed: 1, num_rounds: 2}]\n",
            ["seed (configs/sweep/grid.yaml)", "two axes"],
        ),
        ("experiment: passes\ngrids: {seed: [0]}\n", ["grids=", "no list"]),
        (
            "experiment: passes\naxes: {a: [{local: {lr: 1.0}, local.lr: 2.0}]}\n",
            ["local.lr is given twice", "grid.yaml"],
        ),
    ],
)
def test_mistakes_in_the_file_are_one_line(config_dir: Path, text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        sweep(config_dir, text)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["experiment=both"], ["experiment=both", "the sweep names it", "leave it out"]),
        (["run.name=mine"], ["run.name=mine", "name of its own"]),
        (["seed"], ["'seed' is no key=value"]),
        (["seed=[]"], ["seed=[]", "names no value"]),
        (["num_clients=3", "data.sample=40"], ["no cell with num_clients=3, data.sample=40", "leave one"]),
    ],
)
def test_mistakes_in_the_arguments_are_one_line(config_dir: Path, arguments: list[str], words: list[str]) -> None:
    whole = sweep(config_dir)
    with pytest.raises(UserError) as caught:
        whole.cells(arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_an_unknown_sweep_names_the_valid_ones(config_dir: Path) -> None:
    write(config_dir, GRID)
    with pytest.raises(UserError, match=r"sweep=gird.*did you mean 'grid'"):
        load_sweep("gird", config_dir)


def test_a_sweep_is_expanded_without_torch() -> None:
    code = (
        "import sys\nfrom fedlit.config.sweep import load_sweep\nassert load_sweep('demo').cells()\n"
        "sys.exit(f'imported: {h}' if (h := {'torch', 'lightning', 'transformers'} & set(sys.modules)) else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


FULL = """
# a grid with a hole. Not part of the first sentence
experiment: passes
overrides:
  num_rounds: 20
  local: {lr: 0.5}
axes:
  method: [fedit, nested]
  num_clients: [3, 4]
  seed: [0, 1]
exclude:
  - {method: nested, num_clients: 4}
extra:
  - {method: nested, num_clients: 9, num_rounds: 2}
""".lstrip()


def test_overrides_lie_between_experiment_and_cell(config_dir: Path) -> None:
    cells = sweep(config_dir, FULL).cells()
    configs = [load_config(cell.arguments, config_dir) for cell in cells]
    assert {config.local.lr for config in configs} == {0.5}
    assert [config.num_rounds for config in configs] == [20] * 6 + [2], "a cell's own value lost against the overrides"
    changed = [load_config(cell.arguments, config_dir) for cell in sweep(config_dir, FULL).cells(["local.lr=0.25"])]
    assert {config.local.lr for config in changed} == {0.25}


def test_overrides_give_way_to_the_other_way_to_say_it(config_dir: Path) -> None:
    text = "experiment: passes\noverrides: {local.epochs: 7}\naxes: {seed: [0]}\nextra: [{seed: 1, local.steps: 3}]\n"
    configs = [load_config(cell.arguments, config_dir) for cell in sweep(config_dir, text).cells()]
    assert [(config.local.epochs, config.local.steps) for config in configs] == [(7, None), (None, 3)]
    (config,) = [
        load_config(cell.arguments, config_dir) for cell in sweep(config_dir, text).cells(["local.steps=2", "seed=0"])
    ]
    assert (config.local.epochs, config.local.steps) == (None, 2)


def test_excluded_combinations_are_no_cells_and_extra_ones_come_last(config_dir: Path) -> None:
    whole = sweep(config_dir, FULL)
    found = [
        (cell.settings["method"], cell.settings["num_clients"], cell.settings.get("seed")) for cell in whole.cells()
    ]
    grid = itertools.product(["fedit", "nested"], [3, 4], [0, 1])
    assert found == [*(cell for cell in grid if cell[:2] != ("nested", 4)), ("nested", 9, None)]
    assert [cell.settings for cell in whole.cells()] == whole.settings()


def test_exclusions_and_extra_cells_change_no_name(config_dir: Path) -> None:
    plain = {repr(cell.settings): cell.name for cell in sweep(config_dir, FULL.partition("exclude:")[0]).cells()}
    cells = sweep(config_dir, FULL).cells()
    assert [cell.name for cell in cells[:-1]] == [plain[repr(cell.settings)] for cell in cells[:-1]]
    assert cells[-1].name == "grid-nested-num_clients9"


def test_extra_cells_are_picked_like_others(config_dir: Path) -> None:
    whole = sweep(config_dir, FULL)
    assert [cell.settings["num_clients"] for cell in whole.cells(["method=nested", "seed=1"])] == [3, 9]
    assert [cell.name for cell in whole.cells(["num_clients=9"])] == [whole.cells()[-1].name]
    only = sweep(config_dir, "experiment: passes\nextra: [{seed: 3}, {num_clients: 4}]\n").cells()
    assert [dict(cell.settings) for cell in only] == [{"seed": 3}, {"num_clients": 4}], "the empty grid is a cell"


def test_a_sweep_is_found_by_its_path(config_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = sweep(config_dir)
    by_path = load_sweep(str(config_dir / "sweep" / "grid.yaml"), config_dir)
    assert (by_path.name, by_path.origin, by_path.cells()) == (named.name, named.origin, named.cells())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own.yaml").write_text(GRID)
    own = load_sweep("mine/own.yaml", config_dir)
    assert (own.name, own.origin) == ("own", "mine/own.yaml")
    assert own.cells()[0].folder == Path("runs/own/own-num_clients3-fedit-seed0")
    with pytest.raises(UserError, match=r"mine/onw.yaml is not there.*did you mean 'mine/own.yaml'\?"):
        load_sweep("mine/onw.yaml", config_dir)
    with pytest.raises(UserError, match=r"sweep/gird.yaml is not there.*did you mean 'grid'\?"):
        load_sweep("sweep/gird.yaml", config_dir)


def test_all_sweeps_in_order_with_their_first_sentence(config_dir: Path) -> None:
    write(config_dir, GRID, "plain")
    write(config_dir, FULL, "grid")
    found = [(each.name, each.comment, len(each.settings())) for each in load_sweeps(config_dir)]
    assert found == [("grid", "a grid with a hole", 7), ("plain", "", 12)]
    assert [load_sweep(name, config_dir) for name, _, _ in found] == load_sweeps(config_dir)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("exclude: [{method: nestd, seed: 0}]", ["method is never nestd", "did you mean 'nested'?", "fedit, nested"]),
        ("exclude: [{method.flag: true}]", ["no axis has method.flag", "did you mean 'method'?"]),
        ("exclude: [{method: nested, num_clients: 4}, {method: fedit, sed: 0}]", ["unknown key 'sed'", "'seed'"]),
        ("exclude: [{method: fedit}, {method: nested}]", ["exclude leaves no cell"]),
        ("exclude: {method: fedit}", ["exclude=", "is no list of mappings"]),
        ("exclude: [{seed: [0, 1]}]", ["seed=[0, 1]", "stands in exclude", "a key has one value"]),
        ("extra: [{method: fedit, num_clients: 3, seed: 1}]", ["cells 1 and 8", "are the same", "seed=1"]),
        ("extra: [{method: fedti}]", ["unknown choice method=fedti", "'fedit'"]),
        ("extra: [{seed: [5, 6]}]", ["seed=[5, 6]", "stands in extra"]),
        ("extra: [7]", ["extra=[7]", "is no list of mappings"]),
        ("overrides: [num_rounds]", ["overrides=[num_rounds]", "is no mapping"]),
        ("overrides: {num_round: 3}", ["unknown key 'num_round'", "'num_rounds'"]),
        ("overrides: {model: tony}", ["model=tony", "'tiny'"]),
        ("overrides: {run.dir: elsewhere}", ["run.dir", "is set by the sweep"]),
        ("overides: {num_rounds: 3}", ["unknown key 'overides'", "'overrides'"]),
    ],
)
def test_mistakes_in_overrides_exclusions_and_extra_cells(config_dir: Path, lines: str, words: list[str]) -> None:
    text = "experiment: passes\naxes:\n  method: [fedit, nested]\n  num_clients: [3, 4]\n  seed: [0, 1]\n"
    with pytest.raises(UserError) as caught:
        sweep(config_dir, f"{text}{lines}\n")
    message = str(caught.value)
    assert "\n" not in message
    assert "configs/sweep/grid.yaml" in message
    assert all(word in message for word in words), message


def test_an_exclusion_of_what_is_no_combination_names_the_nearest_cell(config_dir: Path) -> None:
    text = "experiment: passes\ngrids:\n  - {method: [fedit], seed: [0]}\n  - {method: [nested], seed: [1]}\n"
    with pytest.raises(UserError, match=r"no cell has all of it; the nearest is method=fedit, seed=0"):
        sweep(config_dir, f"{text}exclude: [{{method: fedit, seed: 1}}]\n")


def test_an_argument_for_no_key_is_refused(config_dir: Path) -> None:
    with pytest.raises(UserError, match=r"unknown key 'sede' \(command line\); did you mean 'seed'"):
        sweep(config_dir).cells(["sede=3"])


def test_the_example_of_the_readme_is_a_sweep(tmp_path: Path) -> None:
    text = (CONFIG_DIR / "README.md").read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "example.yaml").write_text(text)
    cells = load_sweep(str(tmp_path / "example.yaml")).cells()
    assert len(cells) == 2 * 2 * 3 * 3 - 3 + 1
    assert {load_config(cell.arguments).eval.max_examples for cell in cells} == {500}
