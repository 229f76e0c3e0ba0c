"""A cell is its settings: a changed sweep shows no run of the old settings as its own, and loses none."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedlit.config import Cell, Sweep, load_config, load_sweep, load_yaml, to_yaml
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import collect
from fedlit.lab.sweeps.cells import cell_runs
from fedlit.lab.sweeps.local import local_runs
from fedlit.lab.sweeps.placing import _change, place, placed, told
from fedlit.outside.record import PluginRecord

OWN = "experiment: demo\noverrides:\n  local.lr: {lr}\naxes:\n  method: [fedit, ffa_lora]\n  seed: [0, 1]\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sweep]:
    """Return a function that writes the sweep's file, with a learning rate, and loads it."""
    monkeypatch.chdir(tmp_path)

    def write(lr: str = "0.1", more: str = "") -> Sweep:
        Path("own.yaml").write_text(OWN.format(lr=lr) + more)
        return load_sweep("own.yaml")

    return write


def finish(cell: Cell) -> None:
    """Leave a folder as a run that is done leaves it."""
    config = load_config(cell.arguments)
    cell.folder.mkdir(parents=True)
    (cell.folder / "config.yaml").write_text(to_yaml(config))
    (cell.folder / "status.json").write_text(json.dumps({"state": "done", "num_rounds": config.num_rounds}))
    lines = [json.dumps({"round": number, "global/loss": 1.0}) for number in range(config.num_rounds + 1)]
    (cell.folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (cell.folder / "checkpoints" / f"round-{config.num_rounds:04d}").mkdir(parents=True)


def states(sweep: Sweep, *overrides: str) -> list[str]:
    return [run.status.state for run in cell_runs(sweep, overrides)]


def test_runs_of_the_cells_own_settings_are_done(own: Callable[..., Sweep]) -> None:
    sweep = own()
    for cell in sweep.cells():
        finish(cell)
    assert states(own()) == ["done"] * 4
    assert [entry.cell for entry in placed(own().cells())] == sweep.cells()
    assert told(placed(own().cells())) == []


def test_a_run_of_another_draw_is_not_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of cells that differ in seed and draw alone one configuration is loaded; each is judged by its own."""
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("experiment: demo\naxes:\n  partition.seed: [0, 1, null]\n  seed: [0, 1]\n")
    sweep = load_sweep("own.yaml")
    for cell in sweep.cells():
        finish(cell)
    assert states(sweep) == ["done"] * 6
    swapped = sweep.cells()[1].folder, sweep.cells()[3].folder
    for folder, other in zip(swapped, reversed(swapped), strict=True):
        folder.rename(f"{other}.new")
    for folder in swapped:
        Path(f"{folder}.new").rename(folder)
    assert states(sweep) == ["done", "stale", "done", "stale", "done", "done"]


@pytest.mark.parametrize("change", ["lr", "base", "overrides"])
def test_a_changed_sweep_shows_no_old_run_as_done_and_loses_none(own: Callable[..., Sweep], change: str) -> None:
    for cell in own().cells()[:3]:
        finish(cell)
    before = sorted(path.name for path in Path("runs/own").iterdir())
    overrides = ["local.batch_size=3"] if change == "overrides" else []
    changed = own("0.2") if change == "lr" else own()
    if change == "base":
        Path("own.yaml").write_text(OWN.format(lr="0.1").replace("overrides:", "overrides:\n  partition.alpha: 7"))
        changed = load_sweep("own.yaml")
    runs = cell_runs(changed, overrides)
    assert [run.status.state for run in runs] == [*["stale"] * 3, "pending"]
    key, values = {"lr": ("local.lr", "0.1 → 0.2"), "base": ("partition.alpha", "0.5 → 7.0")}.get(
        change, ("local.batch_size", "16 → 3")
    )
    assert runs[0].status.reason.startswith(f"{key}: ") and values.split()[2] in runs[0].status.reason
    assert [run.cell.name[:-9] for run in runs[:3]] == before and runs[3].cell.name == "own-ffa_lora-seed1"
    assert [run.cell.folder.name for run in runs] == [run.cell.name for run in runs]
    assert all(f"run.name={run.cell.name}" in run.cell.arguments for run in runs)
    (line,) = told(runs)
    assert line.startswith(f"3 stale runs are left out, of other {key}: runs/own/own-fedit-seed0 ({key}: ")
    assert len(line) <= 400
    for run in runs:
        finish(run.cell)
    assert [run.status.state for run in cell_runs(changed, overrides)] == ["done"] * 4
    assert {*before} < {path.name for path in Path("runs/own").iterdir()}
    assert states(own()) == ["done", "done", "done", "stale"], "the last has a run of the change under its name"


def test_one_cell_and_all_of_them_have_the_same_folder(own: Callable[..., Sweep]) -> None:
    for cell in own().cells():
        finish(cell)
    cells = own("0.2").cells()
    assert [place(cell) for cell in cells] == [entry.cell for entry in placed(cells)]
    assert [run.folder for run in local_runs([place(cells[0])])] == [place(cells[0]).folder]
    assert not local_runs([place(cells[0])])[0].is_done()
    finish(place(cells[0]))
    assert local_runs([place(cells[0])])[0].is_done()


def test_a_run_that_is_done_and_is_given_more_rounds_goes_on(own: Callable[..., Sweep]) -> None:
    sweep = own()
    for cell in sweep.cells():
        finish(cell)
    more = load_config(sweep.cells()[0].arguments).num_rounds + 2
    runs = cell_runs(sweep, [f"num_rounds={more}"])
    assert [run.status.state for run in runs] == ["stopped"] * 4
    assert [run.cell.folder for run in runs] == [cell.folder for cell in sweep.cells()]
    assert "now given more" in runs[0].status.reason
    assert not local_runs([runs[0].cell])[0].is_done()
    fewer = cell_runs(sweep, ["num_rounds=1"])
    assert [run.status.state for run in fewer] == ["stale"] * 4, "a run of more rounds is another"


def test_a_run_that_cannot_go_on_is_left_and_the_reason_told(own: Callable[..., Sweep]) -> None:
    cells = own().cells(["local.schedule=linear", "local.schedule_over=run", "num_rounds=2"])
    finish(cells[0])
    longer = cell_runs(own(), ["local.schedule=linear", "local.schedule_over=run", "num_rounds=4", "seed=0"])[0]
    assert longer.status.state == "stale" and longer.cell.folder != cells[0].folder
    assert "learning rate of every step depends on num_rounds=2" in longer.others[0].why


def test_other_data_are_other_settings_and_a_moved_file_is_none(own: Callable[..., Sweep]) -> None:
    sweep = own()
    rows = [json.dumps({"prompt": f"p{i}", "response": f"r{i}", "label": str(i % 2)}) for i in range(40)]
    for name in ("a.jsonl", "copy/a.jsonl"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("\n".join(rows))
    Path("b.jsonl").write_text("\n".join(rows[:-1]))
    data = ["data=jsonl", "num_clients=2", "partition.name=iid", "seed=0"]
    finish(sweep.cells([*data, "data.path=a.jsonl"])[0])
    assert states(sweep, *data, "data.path=a.jsonl") == ["done", "pending"]
    assert states(sweep, *data, f"data.path={Path('a.jsonl').absolute()}") == ["done", "pending"]
    assert states(sweep, *data, "data.path=copy/a.jsonl") == ["done", "pending"]
    other = cell_runs(sweep, [*data, "data.path=b.jsonl"])[0]
    assert other.status.state == "stale" and other.others[0].changes == {"data.path": "data.path: a.jsonl → b.jsonl"}
    Path("a.jsonl").unlink()
    assert states(sweep, *data, "data.path=copy/a.jsonl") == ["done", "pending"]
    assert states(sweep, *data, "data.path=b.jsonl") == ["stale", "pending"]


def test_a_spoilt_configuration_is_nobodys(own: Callable[..., Sweep]) -> None:
    sweep = own()
    finish(sweep.cells()[0])
    (sweep.cells()[0].folder / "config.yaml").write_text("local: [")
    run = cell_runs(sweep)[0]
    assert run.status.state == "stale" and "config.yaml" in run.others[0].why


def test_a_cell_whose_data_are_not_here_is_compared_all_the_same(own: Callable[..., Sweep]) -> None:
    sweep = own()
    Path("a.jsonl").write_text(json.dumps({"prompt": "p", "response": "r"}))
    data = ["data=jsonl", "data.path=a.jsonl", "num_clients=2", "partition.name=iid"]
    finish(sweep.cells(data)[0])
    Path("a.jsonl").unlink()
    with pytest.raises(UserError):
        load_config(sweep.cells(data)[0].arguments)
    assert states(sweep, *data)[0] == "done"
    assert states(sweep, *data, "local.lr=0.3")[0] == "stale"


def test_a_run_whose_cell_does_not_load_any_more_counts_for_nothing(own: Callable[..., Sweep]) -> None:
    sweep = own()
    cell = sweep.cells()[0]
    finish(cell)
    Path("own.yaml").write_text(OWN.format(lr="0.1").replace("overrides:", "overrides:\n  plugins: [nowhere]"))
    broken = [*cell.arguments, "plugins=[nowhere]"]
    (entry,) = placed([Cell(cell.name, broken, cell.settings, cell.folder)])
    assert entry.cell.folder == cell.folder
    assert "cannot be compared: plugins: the module nowhere" in entry.others[0].why


def test_a_folder_that_says_done_and_has_no_configuration_is_stale(own: Callable[..., Sweep]) -> None:
    sweep = own()
    finish(sweep.cells()[0])
    (sweep.cells()[0].folder / "config.yaml").unlink()
    assert states(sweep)[0] == "stale"
    (entry, *_) = collect(["own.yaml"]).entries
    assert (entry.status.state, entry.records) == ("stale", ())


def test_other_code_of_a_plugin_is_another_run(
    own: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sweep = own()
    for cell in sweep.cells()[:2]:
        finish(cell)
    environments = {0: {"plugins": []}, 1: {"plugins": [dict.fromkeys(PluginRecord.__dataclass_fields__, "x")]}}
    for place_, content in environments.items():
        (sweep.cells()[place_].folder / "environment.json").write_text(json.dumps(content))
    runs = cell_runs(sweep)
    assert [run.status.state for run in runs[:2]] == ["done", "stale"]
    assert "parts of the plugin x" in runs[1].status.reason and "plugins" in runs[1].others[0].changes
    assert not local_runs([sweep.cells()[1]])[0].is_done()


def test_a_long_value_is_cut_where_the_two_part() -> None:
    (old, new) = ("x" * 50 + "a" + "y" * 50, "x" * 50 + "b" + "y" * 50)
    assert _change("data.template", {"data.template": old}, {"data.template": new}) == (
        f"data.template: …xxa{'y' * 19}… → …xxb{'y' * 19}…"
    )
    assert _change("seed", {"seed": 1}, {}) == "seed: 1 → absent"


def test_table_and_page_are_about_the_cells_own_runs(own: Callable[..., Sweep]) -> None:
    for cell in own().cells():
        finish(cell)
    own("0.2")
    collection = collect(["own.yaml"])
    assert [entry.status.state for entry in collection.entries] == ["stale"] * 4
    assert all(entry.records == () for entry in collection.entries)
    (note,) = collection.notes
    assert note.startswith(
        "4 stale runs are left out, of other local.lr: runs/own/own-fedit-seed0 (local.lr: 0.1 → 0.2"
    )


def test_the_folder_of_other_settings_resumes_as_its_own(own: Callable[..., Sweep]) -> None:
    finish(own().cells()[0])
    cell = place(own("0.2").cells()[0])
    finish(cell)
    assert load_yaml((cell.folder / "config.yaml").read_text()).local.lr == 0.2
    assert place(own("0.2").cells()[0]) == cell
