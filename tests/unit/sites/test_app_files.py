"""The files of an exported app, for every framework: code that compiles, no name left to fill, one configuration."""

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedlit.commands import export
from fedlit.config import fingerprint, load_config
from fedlit.methods import build_method
from fedlit.sites.app_config import CONFIG, read_config
from fedlit.sites.apps import TARGETS
from fedlit.sites.apps.base import TEMPLATES
from fedlit.sites.workplace import OWN_KEYS

WORDS = ["method=fedsa_lora", "num_clients=3", "num_rounds=2", "logging.loggers=[]"]


def test_the_command_knows_all_targets_and_each_has_templates() -> None:
    assert export.TARGETS == TARGETS
    assert {path.name for path in TEMPLATES.iterdir() if path.is_dir()} == set(TARGETS)


@pytest.fixture(scope="module", params=TARGETS)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    """Return the target's name, its app and the configuration that it was written from."""
    config = load_config([*WORDS, f"run.dir={tmp_path_factory.mktemp('runs')}"])
    folder = tmp_path_factory.mktemp("apps") / request.param
    import_module(f"fedlit.sites.apps.{request.param}").TARGET.write(config, build_method(config), folder)
    return request.param, folder, config


def test_code_compiles_and_texts_are_filled(app: tuple[str, Path, Any]) -> None:
    _, folder, _ = app
    for path in folder.rglob("*.py"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert not re.findall(r"\$\w", readme)
    for told in ("fedsa_lora", "3 sites", "tensors of its own", "The rule FedAvg needs the sum alone"):
        assert told in readme
    for name in re.findall(r"`([\w/]+\.(?:py|yaml|toml))`", readme):
        assert list(folder.rglob(Path(name).name)), f"README.md names {name}"


def test_all_sites_have_the_configuration_of_the_run(app: tuple[str, Path, Any]) -> None:
    _, folder, config = app
    (path,) = folder.rglob(CONFIG)
    assert fingerprint(read_config(path.parent)) == fingerprint(config)


def test_the_version_that_warns_is_the_one_that_was_tested(app: tuple[str, Path, Any]) -> None:
    name, folder, _ = app
    target = import_module(f"fedlit.sites.apps.{name}").TARGET
    (path,) = folder.rglob("carried.py")
    assert constant(path, "TESTED") == target.tested
    assert f'version("{target.package}")' in path.read_text(encoding="utf-8")


def test_what_may_differ_at_a_site_is_what_a_site_takes(app: tuple[str, Path, Any]) -> None:
    name, folder, _ = app
    path = folder / {"flower": "fedlit_app/client_app.py", "nvflare": "client.py"}[name]
    own = constant(path, {"flower": "OWN", "nvflare": "OWN_KEYS"}[name])
    assert set(own.values()) == set(OWN_KEYS)
    readme_and_settings = "".join(each.read_text(encoding="utf-8") for each in folder.iterdir() if each.is_file())
    for option in own:
        assert option.replace("_", "-") in readme_and_settings


def test_a_job_of_nvflare_names_its_sites(app: tuple[str, Path, Any]) -> None:
    name, folder, config = app
    if name != "nvflare":
        pytest.skip("sites.yaml is NVFlare's")
    text = (folder / "sites.yaml").read_text(encoding="utf-8")
    assert list(yaml.safe_load(text)) == ["site-1", "site-2", "site-3"]
    assert "${secret:NAME}" in text
    assert len(yaml.safe_load(text)) == config.num_clients


def constant(path: Path, name: str) -> Any:
    """Return what a module assigns to a name, without importing it: its framework is not here."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(each) for each in node.targets] == [name]:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no {name}")
