"""Loggers are checked before anything expensive: their names, and whether their package is installed."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from fedlit.config import checks as config_checks
from fedlit.config import load_config
from fedlit.errors import UserError
from fedlit.lab.callbacks.loggers import LOGGERS as MADE


def test_every_logger_that_may_be_named_can_be_made() -> None:
    assert set(config_checks.LOGGERS) == set(MADE)


def test_a_missing_package_is_one_line_with_the_remedy(config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_checks, "find_spec", lambda name: None if name == "tensorboard" else find_spec(name))
    load_config(["logging.loggers=[csv, wandb]"], config_dir)
    with pytest.raises(UserError) as caught:
        load_config(["logging.loggers=[csv, tensorboard]"], config_dir)
    message = str(caught.value)
    assert message.startswith("logging.loggers=[csv, tensorboard] (command line) needs the package tensorboard")
    assert "pip install tensorboard" in message
    assert "\n" not in message
