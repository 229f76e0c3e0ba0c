"""A configuration survives being written and read, and its fingerprint holds what determines the result."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.config import RunConfig, differences, fingerprint, load_config, load_yaml, read_stored, run_folder, to_yaml
from fedlit.config.keys import SCHEMA
from fedlit.config.schema import DataConfig, LocalConfig, MethodConfig
from fedlit.errors import UserError

TEXT = st.text().filter(lambda text: "${" not in text and "\0" not in text and text != "???")
"""What a text of the configuration may be."""


@settings(max_examples=30, deadline=None)
@given(
    template=TEXT | st.text("$\\{}x").filter(lambda text: text != "???"),
    label=st.none() | TEXT,
    required=st.lists(TEXT, max_size=3),
    lr=st.floats(allow_nan=False),
    seed=st.integers(min_value=0, max_value=2**70),
    options=st.dictionaries(
        st.sampled_from(["size", "of_a_plugin", "x"]),
        st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.lists(TEXT, max_size=2) | st.none(),
    ),
)
def test_yaml_gives_the_configuration_back(
    template: str, label: str | None, required: list[str], lr: float, seed: int, options: dict[str, object]
) -> None:
    config = RunConfig(
        data=DataConfig(template=template, label=label, required=required),
        local=LocalConfig(lr=lr),
        method=MethodConfig(options=options),
        seed=seed,
    )
    again = load_yaml(to_yaml(config))
    assert again == config
    assert repr(again) == repr(config)  # 1, 1.0 and true are equal, but not the same
    assert repr(read_stored(to_yaml(config), "config.yaml")) == repr(config)


@pytest.mark.parametrize("arguments", [[], ["method=nested"], ["experiment=both", "local.epochs=2"]])
def test_a_loaded_configuration_survives(arguments: list[str], config_dir: Path) -> None:
    config = load_config(arguments, config_dir)
    assert load_yaml(to_yaml(config)) == config
    assert read_stored(to_yaml(config), "config.yaml") == config


def test_a_reader_of_many_runs_passes_over_what_another_version_wrote() -> None:
    text = to_yaml(RunConfig()).replace("num_rounds: 5", "num_rounds: 7\nof_another_version: 1")
    assert read_stored(text, "config.yaml").num_rounds == 7


@pytest.mark.parametrize("text", ["local: [", "- 1", "seed: 0", "method: fedit"])
def test_a_reader_of_many_runs_says_which_folder_is_spoilt(text: str) -> None:
    with pytest.raises(UserError, match=r"^runs/x/config\.yaml.* is not "):
        read_stored(text, "runs/x/config.yaml")


def test_the_yaml_is_what_another_reader_sees(config_dir: Path) -> None:
    config = load_config(["method=nested", "local.lr=0.25"], config_dir)
    seen = yaml.safe_load(to_yaml(config))
    tree = asdict(config)
    tree["method"] |= tree["method"].pop("options")
    assert seen == tree


def test_a_saved_configuration_may_name_files_that_are_gone() -> None:
    config = RunConfig(data=DataConfig(source="jsonl", path="/gone/rows.jsonl"))
    assert load_yaml(to_yaml(config)) == config


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("locl: {lr: 1}", ["'locl'", "config.yaml", "'local'"]),
        ("local: {lr: fast}", ["local.lr=fast", "config.yaml", "number"]),
        ("local: [", ["config.yaml, line", "YAML"]),
        ("- 1", ["config.yaml", "not the configuration of a run"]),
        ("method: fedit", ["config.yaml", "not the configuration of a run"]),
    ],
)
def test_a_spoilt_file_is_refused(text: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_yaml(text)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_the_fingerprint_leaves_out_what_cannot_change_the_result() -> None:
    config = RunConfig(method=MethodConfig(options={"lora_rank": 8}))
    left_out = {*SCHEMA, "method.lora_rank"} - set(fingerprint(config))
    assert left_out == {
        "data.path",
        "data.test_path",
        "data.validation_path",
        "run.dir",
        "run.example_scores",
        "run.name",
        "run.keep_checkpoints",
        "run.export",
        "run.result",
        "run.requeue",
        "logging.loggers",
        "logging.options",
        "logging.wandb",
        "logging.project",
        "logging.group",
        "logging.tags",
        "logging.samples_every",
        "logging.samples_kept",
        "logging.samples_shown",
        "logging.artifact",
        "logging.progress",
        "analysis",
        "dry_run",
        "compute.devices",
        "compute.num_nodes",
        "compute.backend",
        "compute.timeout_s",
        "compute.start_timeout_s",
    }


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["run.name=x", "run.dir=y", "compute.devices=4", "logging.wandb=offline", "dry_run=true"], []),
        (["local.lr=0.01"], ["local.lr: 0.001 in the folder, 0.01 asked for"]),
        (["method.lora_rank=4"], ["method.lora_rank: 8 in the folder, 4 asked for"]),
        (["data.label=null", "partition.name=iid"], ["data.label: label in the folder, null asked for"]),
        (["compute.threads=2"], ["compute.threads: 1 in the folder, 2 asked for"]),
        (["method=nested"], ["method.weighting: num_examples in the folder, absent asked for"]),
        (["method=nested"], ["method.anything: absent in the folder, null asked for"]),
    ],
)
def test_differences_name_key_and_both_values(arguments: list[str], lines: list[str], config_dir: Path) -> None:
    found = differences(load_config([], config_dir), load_config(arguments, config_dir))
    assert set(lines) <= set(found)
    assert bool(lines) == bool(found)


def test_the_run_folder_is_named_after_the_run(config_dir: Path) -> None:
    assert run_folder(load_config(["seed=3"], config_dir)) == Path("runs/fedit-pydoc-tiny-seed3")
    assert run_folder(load_config(["run.name=mine", "run.dir=out"], config_dir)) == Path("out/mine")


def test_a_stored_option_keeps_its_type_and_one_that_nobody_knows_its_value() -> None:
    text = to_yaml(load_config(["method=fed_sb"])).replace("init_lr: null", "init_lr: 1\n  of_a_plugin: {a: [1]}")
    options = load_yaml(text).method.options
    assert (options["init_lr"], type(options["init_lr"]), options["of_a_plugin"]) == (1.0, float, {"a": [1]})
    with pytest.raises(UserError, match=r"method\.init_lr=x \(config\.yaml\) has the wrong type"):
        load_yaml(text.replace("init_lr: 1", "init_lr: x"))
    assert load_yaml(text.replace("name: fed_sb", "name: of_a_plugin")).method.options == {**options, "init_lr": 1}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("num_rounds: 5", "num_rounds: null", "num_rounds is null, not integer"),
        ("  path: null", "  path: [3]", "path is [3], not"),
        ("local:", "local: 3\nlocals:", "3 in place of a section"),
        ("  lr: 0.001", "  lr: fast", "lr is fast, not number"),
    ],
)
def test_a_stored_value_of_another_type_is_told(old: str, new: str, words: str) -> None:
    text = to_yaml(RunConfig())
    assert old in text
    with pytest.raises(UserError) as caught:
        read_stored(text.replace(old, new, 1), "config.yaml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
