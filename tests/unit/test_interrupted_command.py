"""Ctrl-C before a command listens for it itself is one line and the exit code of a shell."""

import sys
from types import ModuleType

import pytest

from fedlit import cli
from fedlit.commands.endings import INTERRUPTED_EXIT_CODE, without_traceback


def interrupt(*_words: object) -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize("speaks", [True, False])
def test_an_interrupted_action_is_told_in_one_line(speaks: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert without_traceback(interrupt, speaks=speaks) == INTERRUPTED_EXIT_CODE
    assert capsys.readouterr().err.startswith("interrupted: ") == speaks


def test_an_interrupted_import_of_a_command_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("fedlit.commands.sweep")
    module.main = interrupt  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fedlit.commands.sweep", module)
    assert cli.main(["sweep", "list"]) == INTERRUPTED_EXIT_CODE
    said = capsys.readouterr().err
    assert said.startswith("interrupted: ")
    assert said.count("\n") == 1
