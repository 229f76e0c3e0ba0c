"""Every YAML file in configs/ loads with its group, and none of this imports torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedlit.config import CONFIG_DIR, load_config
from fedlit.config.loading import GROUPS, list_choices

FILES = [(group, choice) for group in GROUPS for choice in list_choices(CONFIG_DIR, group)]


@pytest.mark.parametrize(("group", "choice"), FILES)
def test_every_file_loads(group: str, choice: str, tmp_path: Path) -> None:
    arguments = [f"{group}={choice}"]
    text = list_choices(CONFIG_DIR, group)[choice].read_text(encoding="utf-8")
    images = (group == "data" and "task: image_classification" in text) or "data: brain_tumor" in text
    rows = tmp_path / ("rows.npz" if images else "rows.jsonl")
    rows.touch()
    if (
        group == "data" and any(f"source: {name}" in text for name in ("jsonl", "table", "images"))
    ) or "data.path: ???" in text:
        arguments.append(f"data.path={rows}")
    if "data.test_path: ???" in text:
        arguments.append(f"data.test_path={rows}")
    if (group == "model" and "path: ???" in text) or "model.path: ???" in text:
        arguments.append("model.path=some/model")
    config = load_config(arguments)
    if group == "method":
        assert config.method.name == choice
        assert config.method.options
    if group == "data":
        assert config.data.name == choice.replace("/", "-")


def test_there_are_files_in_every_group() -> None:
    assert {group for group, _ in FILES} == set(GROUPS)


def test_a_mistake_is_reported_without_torch() -> None:
    code = (
        "import sys, time\n"
        "start = time.perf_counter()\n"
        "from fedlit.config import help_text, load_config\n"
        "from fedlit.errors import UserError\n"
        "help_text(); load_config([])\n"
        "try:\n    load_config(['local.stepz=3'])\nexcept UserError as mistake:\n    print(mistake)\n"
        "print(f'{time.perf_counter() - start:.2f} s')\n"
        "heavy = {'torch', 'lightning', 'transformers', 'numpy', 'datasets', 'peft'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "did you mean 'local.steps'" in result.stdout
    print(result.stdout)
