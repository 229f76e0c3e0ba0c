"""The runs that a table or a page is about: a sweep's cells, missing ones too, or run folders by themselves."""

import json
from pathlib import Path

import pytest

from fedlit.config import RunConfig, load_config, load_sweep, to_yaml
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import by_seed, collect
from fedlit.lab.sweeps.records import remember


def write_run(folder: Path, config: RunConfig, num_rounds: int = 2) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    (folder / "partition.json").write_text("{}")
    lines = [json.dumps({"round": number, "global/loss": 3.0 - number}) for number in range(num_rounds + 1)]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_sweep_has_all_its_cells_and_those_without_a_run_are_missing() -> None:
    cell = load_sweep("demo").cells()[3]
    write_run(cell.folder, load_config(cell.arguments))
    found = collect(["demo"])
    assert (found.name, found.folder, found.varied) == ("demo", Path("runs/demo"), ("method",))
    assert [entry.status.state for entry in found.entries] == [*["pending"] * 3, "stopped", *["pending"] * 4]
    assert [entry.config is None for entry in found.entries] == [True, True, True, False, True, True, True, True]
    assert [record["round"] for record in found.entries[3].records] == [0, 1, 2]
    assert found.entries[3].settings == {"method": "ffa_lora", "seed": 1}
    assert [len(group.entries) for group in by_seed(found)] == [2] * 4


def test_the_arguments_of_the_last_start_hold_unless_others_are_given() -> None:
    remember(load_sweep("demo"), ["method=fedit", "num_rounds=2"])
    assert len(collect(["demo"]).entries) == 2
    assert collect(["demo"]).remembered == ("method=fedit", "num_rounds=2")
    assert len(collect(["demo"], ["seed=0"]).entries) == 4
    assert collect(["demo"], ["seed=0"]).remembered == ()


def test_folders_are_told_apart_by_what_differs() -> None:
    for name, arguments in {
        "a": ["method=fedit", "seed=0"],
        "b": ["method=fedit", "seed=1"],
        "c": ["method=fedit", "local.lr=0.5"],
        "d": ["method=scl"],
    }.items():
        write_run(Path("runs", name), load_config(arguments))
    found = collect(["runs"])
    assert [entry.name for entry in found.entries] == ["a", "b", "c", "d"]
    assert found.varied == ("method", "local.lr"), "options that a method alone has tell nothing"
    assert [group.label(found.varied) for group in by_seed(found)] == [
        "fedit, lr 0.001",
        "fedit, lr 0.5",
        "scl, lr 0.001",
    ]
    assert [entry.name for entry in collect(["runs/c", "runs/a", "runs/c"]).entries] == ["c", "a"]


def test_a_folder_of_the_home_folder_is_found_as_run_dir_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_run(tmp_path / "home/runs/a", RunConfig())
    found = collect(["~/runs"])
    assert [entry.folder for entry in found.entries] == [tmp_path / "home/runs/a"]
    assert found.folder == tmp_path / "home/runs"


def test_a_round_that_is_being_written_does_not_count() -> None:
    write_run(Path("runs/a"), RunConfig())
    with Path("runs/a/metrics.jsonl").open("a") as file:
        file.write('{"round": 3, "global/lo')
    assert [record["round"] for record in collect(["runs/a"]).entries[0].records] == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["demoo"], ["demoo", "did you mean 'demo'"]),
        (["empty"], ["empty holds no run"]),
        (["runs", "nowhere"], ["nowhere is no folder"]),
        (["runs"], ["runs/a has a damaged partition.json"]),
    ],
)
def test_a_mistake_is_one_line(words: list[str], parts: list[str]) -> None:
    Path("empty").mkdir()
    write_run(Path("runs/a"), RunConfig())
    Path("runs/a/partition.json").write_text("{")
    with pytest.raises(UserError) as caught:
        collect(words)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_arguments_pick_cells_of_a_sweep_only() -> None:
    write_run(Path("runs/a"), RunConfig())
    with pytest.raises(UserError, match=r"seed=0 picks cells of a sweep, and runs is a folder"):
        collect(["runs"], ["seed=0"])


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '"text"',
        "[1]",
        "[" * 100_000,
        '{"clients": 3}',
        '{"clients": [3]}',
        '{"clients": [], "heterogeneity": "x"}',
        '{"clients": [{"num_train": "x"}]}',
        '{"clients": [{"train_labels": [1]}]}',
        '{"clients": [{"train_labels": {"a": "b"}}]}',
        '{"heterogeneity": {"jensen_shannon": "x"}}',
    ],
)
def test_a_damaged_partition_is_one_line(content: str) -> None:
    write_run(Path("runs/a"), RunConfig())
    Path("runs/a/partition.json").write_text(content)
    with pytest.raises(UserError, match=r"^runs/a has a damaged partition\.json.*writes it anew$") as caught:
        collect(["runs"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["/no/such/folder", "runs/none", "~/none"])
def test_a_path_that_is_not_there_is_no_misspelt_sweep(target: str) -> None:
    with pytest.raises(UserError, match=r"is not there \(seen from .*\); give the name of a sweep, or run folders"):
        collect([target])
