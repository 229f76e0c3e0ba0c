"""Modules from outside, made for a test and forgotten after it."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from written_modules import HEAD, WriteModule

from fedlit.registry import snapshot


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which is on the import path too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def write_module(folder: Path) -> Iterator[WriteModule]:
    """Write a module below HEAD, or a file of a package, and return its path."""
    restore, before = snapshot(), set(sys.modules)

    def write(name: str, text: str) -> Path:
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + text)
        importlib.invalidate_caches()
        return path

    yield write
    restore()
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
