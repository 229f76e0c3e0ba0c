"""The task version of a run changes with what its scores mean, by the name of the part, and with nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_runs import small_run

from fedlit.config import load_config
from fedlit.data.own_rows import own_rows
from fedlit.inputs import Inputs, gather_inputs
from fedlit.planning import make_plan, make_task
from fedlit.store.environment import read_version
from fedlit.store.task_version import TaskVersion
from fedlit.versioning import rows_digest, task_version

TINY = Path(__file__).parents[2] / "fedlit" / "tiny"
TRAIN = [{"prompt": f"question {i}", "response": f"answer {i}", "kind": str(i % 3)} for i in range(40)]
TEST = [{"prompt": f"asked {i}", "response": "yes" if i % 2 else "no", "kind": "x"} for i in range(9)]
PLAIN = (
    *("data=jsonl", "data.label=null", "data.source=memory", "partition.min_test_rows=2", "num_clients=2"),
    "logging.wandb=disabled",
)


def inputs_of(*words: str, test: Any = TEST, rows: Any = TRAIN) -> Inputs:
    given = {word.split("=", 1)[0]: word for word in (*PLAIN, *words)}
    config = load_config(list(given.values()))
    return gather_inputs(config, own_rows(rows, "rows"), None if test is None else own_rows(test, "test_rows"))


def version_of(*words: str, **given: Any) -> TaskVersion:
    inputs = inputs_of(*words, **given)
    plan = make_plan(inputs)
    return task_version(inputs, make_task(plan, plan.backbone(weights=False)))


@pytest.fixture(scope="module")
def plain() -> TaskVersion:
    return version_of()


@pytest.fixture
def tokenizer(tmp_path: Path) -> Callable[..., str]:
    """Return a function that copies the tokenizer, its JSON changed, to a folder of that name."""

    def copy(name: str, change: Callable[[dict[str, Any]], None] = lambda content: None) -> str:
        folder = tmp_path / name
        shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content, indent=1))  # as bytes another file
        return f"model.tokenizer={folder}"

    return copy


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["data.template='{prompt},\n'"], ["template"]),
        (["data.test_template='{prompt} =\n'"], ["template"]),
        (["eval.max_new_tokens=63"], ["max_new_tokens"]),
        (["eval.num_beams=2"], ["decoding"]),
        (["eval.num_beams=2", "eval.length_penalty=0.5"], ["decoding"]),
        (["eval.no_repeat_ngram_size=3"], ["decoding"]),
        (["eval.stop=[x]"], ["decoding"]),
        (["model.max_length_tokens=128"], ["max_length_tokens"]),
        (["eval.protocol=teacher_forced"], ["decoding", "max_new_tokens", "protocol"]),
        (["data.multiple_references=true"], ["references"]),
        (["data.scores=[rouge_l]"], ["metrics/bleu_4"]),
        (["data.scores=[bleu_4,rouge_l]"], []),
        (["eval.length_penalty=0.5"], []),  # without beams it has no effect
        (["method=ffa_lora", "local.lr=0.5", "local.steps=3", "num_rounds=9", "local.loss_on=all"], []),
        (["seed=7", "num_clients=3", "partition.alpha=9", "partition.seed=3"], []),
        (["model.dtype=bfloat16", "compute.threads=2", "compute.devices=2", "eval.batch_size=3"], []),
        (["eval.every=5", "analysis=[]", "run.name=other"], []),
    ],
    ids="-".join,
)
def test_a_part_changes_with_what_it_is_of(words: list[str], parts: list[str], plain: TaskVersion) -> None:
    assert plain.differing(version_of(*words)) == parts


def test_a_tokenizer_is_its_content_wherever_it_lies(tokenizer: Callable[..., str], plain: TaskVersion) -> None:
    assert version_of(tokenizer("here")) == version_of(tokenizer("renamed")) == plain

    def used(content: dict[str, Any]) -> None:  # as a program leaves it that has cut and filled up texts
        content["truncation"] = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}

    assert version_of(tokenizer("used", used)) == plain


@pytest.mark.parametrize("what", ["merges", "vocabulary", "normalizer", "special"])
def test_a_tokenizer_that_cuts_otherwise_is_another(
    what: str, tokenizer: Callable[..., str], plain: TaskVersion
) -> None:
    def change(content: dict[str, Any]) -> None:
        model = content["model"]
        if what == "merges":
            model["merges"][3], model["merges"][4] = model["merges"][4], model["merges"][3]
        elif what == "vocabulary":
            vocab = model["vocab"]
            vocab["!"], vocab["#"] = vocab["#"], vocab["!"]
        elif what == "normalizer":
            content["normalizer"] = {"type": "Lowercase"}
        else:
            content["post_processor"] = None

    assert plain.differing(version_of(tokenizer("other", change))) == ["tokenizer"]


@pytest.mark.parametrize("change", ["one letter", "one less", "twice"])
def test_one_row_makes_other_rows(change: str, plain: TaskVersion) -> None:
    rows = [*TEST]
    if change == "one letter":
        rows[4] = {**rows[4], "response": "yes."}
    rows = rows[:-1] if change == "one less" else [*rows, rows[0]] if change == "twice" else rows
    assert plain.differing(version_of(test=rows)) == ["global"]


def test_neither_order_nor_other_columns_nor_training_rows_count(plain: TaskVersion) -> None:
    assert version_of(test=[{**row, "kind": "y", "id": str(i)} for i, row in enumerate(TEST[::-1])]) == plain
    assert version_of(rows=TRAIN[:30]) == plain


def test_the_draw_is_in_the_rows_where_the_clients_test_parts_are_scored() -> None:
    one, same, other = (version_of(f"partition.seed={seed}", test=None) for seed in (0, 0, 1))
    assert one == same
    assert one.differing(other) == ["global"]
    method = version_of("partition.seed=0", "seed=5", "method=ffa_lora", test=None)
    assert method == one


def test_a_subset_is_the_rows_that_are_scored(plain: TaskVersion) -> None:
    one, other = version_of("eval.max_examples=4"), version_of("eval.max_examples=4", "seed=3")
    assert plain.differing(one) == ["global"]
    assert one.differing(other) == ["global"]
    assert version_of("eval.max_examples=9", "seed=3") == plain
    merged = [version_of("eval.max_examples=4", "data.multiple_references=true", f"seed={seed}") for seed in (0, 0, 1)]
    assert merged[0] == merged[1] != merged[2]


def test_two_seeds_of_one_draw_are_scored_on_the_same_subset() -> None:
    """Else the variance between seeds would hold that of the test rows."""
    of = {
        (draw, seed): version_of("eval.max_examples=4", f"partition.seed={draw}", f"seed={seed}").rows["global"]
        for draw in (1, 2)
        for seed in (5, 6)
    }
    assert of[1, 5] == of[1, 6] != of[2, 5] == of[2, 6]
    alone = {seed: version_of("eval.max_examples=4", f"seed={seed}").rows["global"] for seed in (1, 2)}
    assert alone == {1: of[1, 5], 2: of[2, 5]}, "without a draw of its own a run's seed is the draw"


def test_own_test_parts_and_validation_rows_have_hashes_of_their_own() -> None:
    words = ["eval.on=both", "partition.validation_fraction=0.2"]
    both = version_of(*words)
    assert both.rows.keys() == {"global", "own", "validation"}
    fewer = version_of(*words, "eval.max_clients=1")
    assert both.differing(fewer) == ["own"]
    on_clients = version_of("eval.on=clients", "partition.validation_fraction=0.2")
    assert on_clients.rows["own"] == both.rows["own"]
    assert on_clients.rows["validation"] != both.rows["validation"]  # each client's, not one set


def test_an_image_is_known_by_its_pixels_and_prepared_as_the_processor_says(tmp_path: Path) -> None:
    stream = np.random.Generator(np.random.PCG64(0))
    images = stream.integers(0, 256, (30, 8, 8), dtype=np.uint8)
    rows = [{"image": image, "label": str(i % 2)} for i, image in enumerate(images)]
    changed = images[3].copy()
    changed[0, 0] ^= 1
    columns = ["image", "label"]
    assert rows_digest(rows, columns) == rows_digest(rows[::-1], columns)
    assert rows_digest(rows, columns) != rows_digest([*rows[:3], {**rows[3], "image": changed}, *rows[4:]], columns)

    def prepared(size: int, mean: float, name: str) -> TaskVersion:
        folder = tmp_path / name
        shutil.copytree(TINY.parent / "backbones" / "vit_small", folder)
        for file, change in {
            "preprocessor_config.json": {"size": {"height": size, "width": size}, "image_mean": [mean] * 3},
            "config.json": {"image_size": size},
        }.items():
            content = json.loads((folder / file).read_text())
            (folder / file).write_text(json.dumps({**content, **change}))
        words = ["data=digits", "data.sample=null", f"model.path={folder}", "model.weights=random"]
        return version_of(*words, rows=rows[4:], test=rows[:4])

    first = prepared(64, 0.5, "first")
    assert prepared(64, 0.5, "again") == first
    assert first.differing(prepared(32, 0.5, "small")) == ["image"]
    assert first.differing(prepared(64, 0.4, "dark")) == ["image"]


def test_a_run_that_goes_on_has_its_version_and_one_with_another_tokenizer_has_none(
    tmp_path: Path, tokenizer: Callable[..., str]
) -> None:
    path = Path(tokenizer("mine").partition("=")[2])
    config = {"model.tokenizer": str(path)}
    folder = small_run(tmp_path, config={**config, "num_rounds": 1}).folder
    before = (folder / "environment.json").read_bytes()
    small_run(tmp_path, config={**config, "num_rounds": 2})
    assert (folder / "environment.json").read_bytes() == before
    content = json.loads((path / "tokenizer.json").read_text())
    merges = content["model"]["merges"]
    merges[3], merges[4] = merges[4], merges[3]
    (path / "tokenizer.json").write_text(json.dumps(content))
    small_run(tmp_path, config={**config, "num_rounds": 3})
    now = read_version(folder)
    assert now is not None
    assert [name for name, value in now.parts.items() if "+" in value] == ["tokenizer"]
