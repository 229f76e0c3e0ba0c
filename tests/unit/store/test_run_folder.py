"""A run folder belongs to one configuration; its files are whole, and its record is that of the checkpoint."""

import dataclasses
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from fedlit.config import LocalConfig, RunConfig, RunFolderConfig, load_yaml
from fedlit.config.privacy_schema import PrivacyConfig
from fedlit.config.schema import CohortConfig, EvalConfig
from fedlit.errors import UserError
from fedlit.process.storage import write_atomically
from fedlit.store import environment as run_environment
from fedlit.store.folder import RunFolder

PARTITION = {"clients": [{"train": [1, 2], "test": [0]}]}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(run=RunFolderConfig(dir=str(tmp_path / "runs"), name="mine"))


@pytest.fixture
def folder(config: RunConfig) -> RunFolder:
    folder = RunFolder(config)
    folder.prepare(PARTITION, "cpu")
    return folder


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}


def test_a_new_folder_says_what_the_run_is(folder: RunFolder, config: RunConfig) -> None:
    assert load_yaml((folder.path / "config.yaml").read_text(encoding="utf-8")) == config
    assert json.loads((folder.path / "partition.json").read_text()) == PARTITION
    environment = json.loads((folder.path / "environment.json").read_text())
    assert environment["device"] == "cpu"
    assert environment["packages"]["torch"] == version("torch")
    assert folder.checkpoints.is_dir()
    assert folder.plots.is_dir()


@pytest.mark.parametrize(("name", "option"), [("trace", "path"), ("deadline", "devices"), ("buffered", "devices")])
def test_a_run_goes_on_with_the_file_of_who_comes_that_it_began_with(
    config: RunConfig, tmp_path: Path, name: str, option: str
) -> None:
    file = tmp_path / "clients.csv"
    file.write_text("client,start_s,end_s\n0,0,1\n")
    config = dataclasses.replace(config, cohort=CohortConfig(availability=name, options={option: str(file)}))
    RunFolder(config).prepare(PARTITION, "cpu")
    RunFolder(config).require_same_run()
    file.write_text("client,start_s,end_s\n0,0,2\n")
    with pytest.raises(UserError, match=rf"began with another file than cohort.options.{option}="):
        RunFolder(config).require_same_run()
    stored = RunFolder(config).path / "environment.json"
    stored.write_text(json.dumps({"device": "cpu"}))  # of an older fedlit
    RunFolder(config).require_same_run()


def test_prepare_overwrites_nothing(folder: RunFolder) -> None:
    before = contents(folder)
    folder.prepare({"clients": []}, "another device")
    assert contents(folder) == before


@pytest.mark.parametrize(
    "content",
    ["", "{", '"text"', "[]", "[" * 100_000, "{}", '{"clients": [1]}', '{"clients": [{"train": "x"}]}', "null"],
)
def test_a_damaged_partition_is_written_anew(folder: RunFolder, content: str) -> None:
    (folder.path / "partition.json").write_text(content)
    folder.require_same_rows("rows_sha256", "abc")
    folder.prepare(PARTITION, "cpu")
    assert json.loads((folder.path / "partition.json").read_text()) == PARTITION
    assert folder.notices() == []


def test_a_folder_in_place_of_the_partition_is_told(folder: RunFolder) -> None:
    (folder.path / "partition.json").unlink()
    (folder.path / "partition.json").mkdir()
    with pytest.raises(UserError, match=r"partition\.json is a folder where a run keeps a file; move it away"):
        folder.require_same_rows("rows_sha256", "abc")


def test_the_same_configuration_may_come_back(folder: RunFolder, config: RunConfig) -> None:
    folder.require_same_run()
    elsewhere = dataclasses.replace(config, compute=dataclasses.replace(config.compute, devices=4), dry_run=True)
    RunFolder(elsewhere).require_same_run()  # neither can change the result


def test_another_configuration_is_refused_by_its_keys(folder: RunFolder, config: RunConfig) -> None:
    other = dataclasses.replace(config, seed=7, local=LocalConfig(lr=0.5, steps=3))
    before = contents(folder)
    with pytest.raises(UserError) as caught:
        RunFolder(other).require_same_run()
    message = str(caught.value)
    for key, old, new in (("local.lr", "0.001", "0.5"), ("local.steps", "10", "3"), ("seed", "0", "7")):
        assert f"{key}: {old} in the folder, {new} asked for" in message
    assert str(folder.path) in message
    assert "run.name" in message
    assert "\n" not in message
    assert contents(folder) == before


def begun(config: RunConfig, *, rounds: int) -> RunFolder:
    """Return the folder of a run with the checkpoint of a round."""
    folder = RunFolder(config)
    folder.prepare(PARTITION, "cpu")
    (folder.checkpoints / f"round-{rounds:04d}").mkdir()
    return folder


MORE = {
    "as it is": ({}, {}),
    "a schedule over each round": ({"schedule": "linear", "warmup": 0.1}, {}),
    "no schedule over the run": ({"schedule_over": "run"}, {}),
    "every second round": ({}, {"every": 2}),
    "patience": ({}, {"patience": 2}),
}


@pytest.mark.parametrize("case", MORE)
@pytest.mark.parametrize("rounds", [0, 3, 4])
def test_a_run_may_be_given_more_rounds(case: str, rounds: int, config: RunConfig) -> None:
    local, evaluation = MORE[case]
    config = dataclasses.replace(config, num_rounds=4, local=LocalConfig(**local), eval=EvalConfig(**evaluation))
    folder = begun(config, rounds=rounds)
    before = contents(folder)
    longer = dataclasses.replace(config, num_rounds=6, compute=dataclasses.replace(config.compute, devices=4))
    RunFolder(longer).require_same_run()
    assert contents(folder) == before  # looking changes nothing
    RunFolder(longer).prepare({}, "another device")
    stored = load_yaml((folder.path / "config.yaml").read_text(encoding="utf-8"))
    assert stored == dataclasses.replace(config, num_rounds=6)
    assert {**contents(folder), "config.yaml": b""} == {**before, "config.yaml": b""}
    RunFolder(longer).require_same_run()
    with pytest.raises(UserError, match="num_rounds: 6 in the folder, 4 asked for"):
        folder.require_same_run()
    with pytest.raises(UserError, match="seed: 0 in the folder, 1 asked for") as caught:
        RunFolder(dataclasses.replace(longer, num_rounds=8, seed=1)).require_same_run()
    assert "num_rounds" not in str(caught.value)  # which is not what keeps it


def test_rounds_between_evaluations_allow_more_rounds_before_the_last(config: RunConfig) -> None:
    config = dataclasses.replace(config, num_rounds=4, eval=EvalConfig(every=3))
    begun(config, rounds=3)
    RunFolder(dataclasses.replace(config, num_rounds=6)).require_same_run()


@pytest.mark.parametrize(
    ("local", "every", "reason"),
    [
        ({"schedule_over": "run", "schedule": "cosine"}, 1, "local.schedule_over=run"),
        ({"schedule_over": "run", "warmup": 0.1}, 1, "local.schedule_over=run"),
        ({}, 3, "round 4 was evaluated for being the last"),
        ({}, 5, "eval.every=5"),
    ],
)
def test_more_rounds_are_refused_where_the_rounds_so_far_are_not_those_of_the_longer_run(
    local: dict[str, Any], every: int, reason: str, config: RunConfig
) -> None:
    config = dataclasses.replace(config, num_rounds=4, local=LocalConfig(**local), eval=EvalConfig(every=every))
    folder = begun(config, rounds=4)
    before = contents(folder)
    with pytest.raises(UserError) as caught:
        RunFolder(dataclasses.replace(config, num_rounds=6)).require_same_run()
    message = str(caught.value)
    for part in (str(folder.path), "num_rounds=4", "6", reason, "run.name"):
        assert part in message
    assert "\n" not in message
    assert contents(folder) == before


@pytest.mark.parametrize("unit", ["client", "example"])
def test_more_rounds_are_refused_where_the_noise_was_made_for_fewer(unit: str, config: RunConfig) -> None:
    privacy = PrivacyConfig(unit=unit, clip_norm=1.0, epsilon=8.0)
    config = dataclasses.replace(config, num_rounds=4, privacy=privacy)
    begun(config, rounds=2)
    with pytest.raises(UserError, match=r"num_rounds=4 to 6: the noise .* privacy\.epsilon=8\.0.*run\.name") as caught:
        RunFolder(dataclasses.replace(config, num_rounds=6)).require_same_run()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("epsilon", [None, 8.0])
def test_more_rounds_of_the_same_noise_are_the_same_run(epsilon: float | None, config: RunConfig) -> None:
    privacy = PrivacyConfig(unit="client", clip_norm=1.0, noise_multiplier=1.0, epsilon=epsilon)
    config = dataclasses.replace(config, num_rounds=4, privacy=privacy)
    begun(config, rounds=2)
    RunFolder(dataclasses.replace(config, num_rounds=6)).require_same_run()


def test_fewer_rounds_are_refused(config: RunConfig) -> None:
    begun(dataclasses.replace(config, num_rounds=4), rounds=2)
    with pytest.raises(UserError, match=r"num_rounds: 4 in the folder, 3 asked for.*choose another run\.name"):
        RunFolder(dataclasses.replace(config, num_rounds=3)).require_same_run()


@pytest.mark.parametrize("target", [(os, "fsync"), (Path, "replace")])
def test_a_run_killed_while_it_is_given_more_rounds_can_start_again(
    target: tuple[Any, str], config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(config, rounds=5)
    longer = RunFolder(dataclasses.replace(config, num_rounds=8))

    def killed(*_arguments: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(*target, killed)
        longer.prepare(PARTITION, "cpu")
    folder.require_same_run()
    longer.require_same_run()
    longer.prepare(PARTITION, "cpu")
    assert load_yaml((folder.path / "config.yaml").read_text(encoding="utf-8")).num_rounds == 8


def test_a_foreign_folder_is_refused(config: RunConfig) -> None:
    folder = RunFolder(config)
    folder.path.mkdir(parents=True)
    folder.require_same_run()  # an empty one is as good as none
    (folder.path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"no run folder.*choose another run\.name"):
        folder.require_same_run()


def test_no_folder_is_fine(config: RunConfig) -> None:
    RunFolder(config).require_same_run()
    assert not RunFolder(config).path.exists()


@pytest.mark.parametrize("written", range(3))
@pytest.mark.parametrize("moment", ["before the text", "before the renaming"])
def test_a_run_killed_at_its_start_can_start_again(
    written: int, moment: str, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [written]
    target = (os, "fsync") if moment == "before the text" else (Path, "replace")
    original = getattr(*target)

    def killed(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise SystemExit
        return original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(*target, killed)
        RunFolder(config).prepare(PARTITION, "cpu")
    again = RunFolder(config)
    again.require_same_run()
    again.prepare(PARTITION, "cpu")
    assert {"config.yaml", "environment.json", "partition.json"} <= contents(again).keys()
    again.require_same_run()


def test_records_are_one_line_a_round(folder: RunFolder) -> None:
    assert folder.records() == []
    records = [{"round": 0, "global/loss": 3.5}, {"round": 1, "text": "line\u2028break\nand é", "value": 1e-300}]
    for record in records:
        folder.append(record)
    assert folder.records() == records
    assert len(folder.records_path.read_bytes().split(b"\n")) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_json_lacks_is_refused(value: float, folder: RunFolder) -> None:
    folder.append({"round": 0})
    before = folder.records_path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        folder.append({"round": 1, "loss": value})
    assert folder.records_path.read_bytes() == before


def test_records_go_back_to_the_checkpoint(folder: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_text('{"round": 0}\n{"round": 1}\n', encoding="utf-8")
    folder.records_path.write_text('{"round": 0}\n{"round": 1}\n{"round": 2}\n{"rou', encoding="utf-8")
    folder.restore_records(copy.read_text(encoding="utf-8"))
    assert folder.records_path.read_bytes() == copy.read_bytes()
    assert folder.records() == [{"round": 0}, {"round": 1}]
    folder.append({"round": 2})
    assert len(folder.records()) == 3
    assert len(copy.read_bytes().splitlines()) == 2
    folder.restore_records(None)
    assert folder.records() == []
    folder.restore_records(None)


@pytest.mark.parametrize("target", [(os, "fsync"), (Path, "replace")])
def test_a_file_is_old_or_new(target: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")

    def killed(*_arguments: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(*target, killed)
        write_atomically(path, "new and longer")
    assert path.read_text() == "old"
    write_atomically(path, "new é")
    assert path.read_text(encoding="utf-8") == "new é"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_the_environment_without_git_or_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_environment.shutil, "which", lambda _name: None)

    def missing(name: str) -> str:
        raise run_environment.PackageNotFoundError(name)

    monkeypatch.setattr(run_environment, "version", missing)
    environment = run_environment.environment("cuda:0")
    assert environment["commit"] is None
    assert set(environment["packages"].values()) == {None}
    assert environment["device"] == "cuda:0"


def test_other_rows_are_refused(config: RunConfig) -> None:
    """An edited data file, or another Python's docstrings, would give a run that no one command repeats."""
    folder = RunFolder(config)
    folder.require_same_rows("rows_sha256", "abc")
    folder.prepare({"rows_sha256": "abc", "shards_sha256": "x", "test_rows_sha256": None}, "cpu")
    folder.require_same_rows("rows_sha256", "abc")
    folder.require_same_rows("test_rows_sha256", "abd")
    with pytest.raises(UserError, match=r"began with other rows .* choose another run\.name"):
        folder.require_same_rows("rows_sha256", "abd")
    with pytest.raises(UserError, match=r"began with other shards of the rows"):
        folder.require_same_rows("shards_sha256", "y")


def test_a_partition_of_an_older_version_has_no_names_and_is_no_damage(folder: RunFolder) -> None:
    """It stays as it was written, to the byte; one that lacks more is written anew."""
    client = {"client_id": 0, "num_train": 1, "num_test": 0, "train": [0], "test": []}
    path = folder.path / "partition.json"
    folder.prepare({"clients": [client]}, "cpu")
    before = path.read_bytes()
    named = {"clients": [{**client, "name": "north", "values": ["north"]}]}
    folder.prepare(named, "cpu")
    assert path.read_bytes() == before
    path.write_text('{"clients": [{"client_id": 0}]}')
    folder.prepare(named, "cpu")
    assert json.loads(path.read_text()) == named
