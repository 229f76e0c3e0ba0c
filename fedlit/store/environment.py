"""environment.json: versions, commit, device and parts from outside, for a reader who repeats the run."""

import json
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedlit.outside.record import PluginRecord, to_json
from fedlit.store.task_version import KEY as VERSION
from fedlit.store.task_version import TaskVersion

ENVIRONMENT = "environment.json"


def stored_environment(folder: Path) -> dict[str, Any]:
    """Return environment.json; nothing if it is not there or damaged: it is for readers."""
    try:
        content = json.loads((folder / ENVIRONMENT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_version(folder: Path) -> TaskVersion | None:
    """Return the task version that environment.json tells; None of a run that an older fedlit began."""
    return TaskVersion.from_json(stored_environment(folder).get(VERSION))


def environment(
    device: str, plugins: Sequence[PluginRecord] = (), scores: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what a reader needs to repeat the run: versions, commit, device, the code of parts from outside, and what
    their scores are called.
    """
    packages = (
        "fedlit",
        "torch",
        "lightning",
        "transformers",
        "peft",
        "datasets",
        "torchmetrics",
        "wandb",
        "omegaconf",
        "numpy",
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "commit": _commit(),
        "packages": {name: _version(name) for name in packages},
        "plugins": to_json(plugins),
        "scores": dict(scores or {}),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the source tree, marked when files differ from it; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    result = subprocess.run(
        [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None
