"""A configuration from Python is the one of the command line: the same names, checks and messages."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedlit
from fedlit.config import CONFIG_DIR, load_config, to_yaml
from fedlit.config.loading import list_choices

WORDS = ["method=flora", "local.lr=0.001", "local.steps=5", "num_clients=4", "method.target_modules=[q_proj, v_proj]"]
OPTIONS = {"target_modules": ["q_proj", "v_proj"]}


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        (WORDS, {}),
        (WORDS[:3], {"num_clients": 4, "method": {"name": "flora", **OPTIONS}}),
        (
            {
                "method": "flora",
                "local.lr": 1e-3,
                "local": {"steps": 5},
                "num_clients": 4,
                "method.target_modules": ("q_proj", "v_proj"),
            },
            {},
        ),
        (
            {"method": "flora", "local": {"lr": 1.0, "steps": 5}},
            {"local": {"lr": 1e-3}, "num_clients": np.int64(4), "method": OPTIONS},
        ),
    ],
)
def test_every_form_is_the_command_lines(config: Any, overrides: dict[str, Any]) -> None:
    assert fedlit.load_config(config, **overrides) == load_config(WORDS)


def test_nothing_is_the_defaults() -> None:
    assert fedlit.load_config() == load_config([])


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("method: flora\nlocal:\n  lr: 0.001\n  steps: 5\nnum_clients: 4\n")
    own = fedlit.load_config(tmp_path / "my.yaml", method={"target_modules": ["q_proj", "v_proj"]})
    assert own == load_config(WORDS)
    assert fedlit.load_config(str(tmp_path / "my.yaml"), num_clients=3).num_clients == 3
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(own))
    again = fedlit.load_config(tmp_path / "run")
    assert (again.run.dir, again.run.name) == (str(tmp_path), "run")
    again.run = own.run
    assert again == own


@pytest.mark.parametrize("group", ["method", "experiment"])
def test_a_loaded_configuration_goes_in_again(group: str) -> None:
    """All its values are words of a command line."""
    for choice in sorted(list_choices(CONFIG_DIR, group)):
        more = [] if group == "method" else ["data.path=null"]
        try:
            config = load_config([f"{group}={choice}", *more])
        except fedlit.UserError:  # leaves a value to the user
            continue
        assert fedlit.load_config(config) == config
        assert fedlit.load_config(config, num_rounds=7).num_rounds == 7


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        (None, {"num_round": 3}, r"unknown key 'num_round' .*did you mean 'num_rounds'\?"),
        ({"local": {"stepz": 3}}, {}, r"unknown key 'local\.stepz'.*did you mean 'local\.steps'\?"),
        ({"local.lr": "fast"}, {}, r"local\.lr=fast .*expected: number"),
        ({"local.lr": -1.0}, {}, r"local\.lr=-1\.0 .*out of range"),
        ({"method": "fedsit"}, {}, r"unknown choice method=fedsit .*did you mean 'fedit'\?"),
        ({"local.lr": object()}, {}, r"local\.lr is given a object; give a text, a number"),
        ({3: 4}, {}, r"3 is no name of an option"),
        (3, {}, r"a configuration is no int; give a mapping, a path"),
        ([3], {}, r"a configuration is no list; give"),
        ("none.yaml", {}, r"none\.yaml is no file; give a YAML file, a run's folder"),
        ("method=fedit", {}, r"method=fedit is no file"),
        (["method"], {}, r"'method' is no key=value"),
    ],
)
def test_a_mistake_is_one_line(config: Any, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(fedlit.UserError, match=message) as caught:
        fedlit.load_config(config, **overrides)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, fedlit.FedlitError)
    assert isinstance(caught.value, ValueError)


def test_a_yaml_file_that_is_no_mapping(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("- 3\n")
    with pytest.raises(fedlit.UserError, match=r"my\.yaml holds no mapping"):
        fedlit.load_config(tmp_path / "my.yaml")


def test_the_import_is_light_and_a_configuration_too() -> None:
    code = (
        "import sys, fedlit; fedlit.__version__; early = {'torch', 'numpy', 'yaml'} & sys.modules.keys();"
        "fedlit.load_config(num_rounds=2); fedlit.FedlitError, fedlit.UserError, fedlit.Result;"
        "print(sorted(early), sorted({'torch', 'transformers', 'lightning', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"


def test_run_is_a_function_whatever_is_imported_before() -> None:
    assert callable(fedlit.run)
    assert list(inspect.signature(fedlit.run).parameters)[:3] == ["config", "rows", "test_rows"]


def test_names_that_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = fedlit.runn  # type: ignore[attr-defined]
    assert {"run", "load_config", "load_result", "Callback", "Stop", "Stopped"} <= set(dir(fedlit))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"compute": {"devices": 2}}, r"compute\.devices=2.*torchrun --nproc-per-node=2"),
        ({"compute": {"num_nodes": 2}}, r"compute\.num_nodes=2.*this process"),
        ({"dry_run": True}, r"dry_run=true prints sizes.*use the command"),
        ({"test_rows": [{"prompt": "a", "response": "b"}]}, r"test_rows= is given without rows="),
        ({"callbacks": [print]}, r"callbacks\[0\] is an object \(builtin_function_or_method\)"),
        ({"callbacks": [fedlit.Callback]}, r"callbacks\[0\] is a class \(Callback\); give objects"),
        ({"data": {"source": "memory"}}, r"data\.source=memory: the rows were given from Python"),
        ({"partition": {"name": "given"}}, r"partition\.name=given is of rows that are given from Python"),
        ({"model": {"path": "memory:0123"}}, r"model\.path=memory:0123 was given from Python"),
    ],
)
def test_what_run_refuses_in_one_line(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(fedlit.UserError, match=message) as caught:
        fedlit.run(run={"dir": tmp_path}, logging={"wandb": "disabled"}, **given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400
