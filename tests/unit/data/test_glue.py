"""The GLUE files of the data group read the real rows, with the classes and scores of the papers."""

from pathlib import Path

import pytest
import yaml

from fedlit.config.loading import CONFIG_DIR
from fedlit.config.schema import DataConfig
from fedlit.data.classes import class_index, target_number
from fedlit.data.sources import load_rows, load_test_rows
from fedlit.tasks.registry import task_spec

# task: training rows and rows of class 1 among them, test rows and rows of class 1 among them, text columns, main score
TASKS = {
    "cola": (8551, 6023, 1043, 721, 1, "mcc"),
    "rte": (2490, 1241, 277, 131, 2, "accuracy"),
    "mrpc": (3668, 2474, 408, 279, 2, "f1"),
    "sst2": (67349, 37569, 872, 444, 1, "accuracy"),
    "qnli": (2000, 981, 5463, 2761, 2, "accuracy"),  # of 104,743 rows a sample of 2,000 is at hand
}
FILES = {"qnli": "qnli_train_2k"}


def from_yaml(task: str, folder: Path | None = None) -> DataConfig:
    values = yaml.safe_load((CONFIG_DIR / "data" / "glue" / f"{task}.yaml").read_text())
    if folder is not None:
        values["path"] = str(folder / "data" / "glue" / f"{FILES.get(task, f'{task}_train')}.jsonl.gz")
        values["test_path"] = str(folder / "data" / "glue" / f"{task}_validation.jsonl.gz")
    return DataConfig(**values)


@pytest.mark.parametrize("task", TASKS)
def test_classes(task: str, shared_folder: Path) -> None:
    config = from_yaml(task, shared_folder)
    num_train, num_train_1, num_test, num_test_1, num_texts, score = TASKS[task]
    rows, test_rows = load_rows(config, 0), load_test_rows(config)
    names = task_spec(config.task).class_names([*rows, *test_rows], config)
    assert (len(rows), len(test_rows), len(config.text)) == (num_train, num_test, num_texts)
    assert sum(class_index(row, names, config) for row in rows) == num_train_1
    assert sum(class_index(row, names, config) for row in test_rows) == num_test_1
    assert config.scores is not None
    assert config.scores[0] == score


def test_numbers(shared_folder: Path) -> None:
    config = from_yaml("stsb", shared_folder)
    rows, test_rows = load_rows(config, 0), load_test_rows(config)
    assert (len(rows), len(test_rows), task_spec(config.task).class_names(rows, config)) == (5749, 1500, ())
    numbers = [target_number(row, config) for row in rows]
    assert (min(numbers), max(numbers), round(sum(numbers) / 5749, 3)) == (0.0, 5.0, 2.701)


@pytest.mark.parametrize("task", [*TASKS, "stsb"])
def test_every_key_has_a_comment_and_every_score_is_known(task: str) -> None:
    path = CONFIG_DIR / "data" / "glue" / f"{task}.yaml"
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    keys = [i for i, line in enumerate(lines) if line and not line.startswith("#")]
    assert all(lines[i - 1].startswith("# ") for i in keys)
    config = from_yaml(task)
    assert (config.name, config.hub_config, config.hub_test_split) == (f"glue-{task}", task, "validation")
    assert set(config.scores or []) <= set(task_spec(config.task).scores)
