"""The published experiments: every file and every cell loads, the grids are those of the papers' tables, and a cell of
every model is built on the meta device from the model's published configuration.
"""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlit.config import CONFIG_DIR, RunConfig, load_config, no_effect_warnings
from fedlit.config.loading import list_choices
from fedlit.config.record import fingerprint
from fedlit.config.schema import DataConfig
from fedlit.config.sweep import Cell, Sweep, load_sweep
from fedlit.data.prompts import render
from fedlit.data.sources import load_rows, load_test_rows
from fedlit.inputs import Inputs
from fedlit.methods import build_method
from fedlit.metrics.answers import ExactMatch, final_answer
from fedlit.partition.shards import make_shards
from fedlit.planning import make_plan
from fedlit.sizing import Sizes, measure
from fedlit.tasks.registry import task_spec

REPOSITORY = Path(__file__).parents[3]

PUBLISHED_MODELS = REPOSITORY / "tests" / "published_configs"

OWN = ("brain_mri", "demo", "medquad_small")
"""Experiments of no paper."""

TABLES: dict[str, tuple[tuple[int, ...], ...]] = {
    # SCL, arXiv 2412.07021, table 1: clients 3, 4, 5 x SCL, FedSA-LoRA, FFA-LoRA
    "scl_table1": ((3, 3),),
    # SCL, table 2: clients 3, 4 x MedQuAD, Dolly x TinyLlama, Gemma-2B x SCL, FedSA-LoRA, FFA-LoRA
    "scl_table2": ((2, 2, 2, 3),),
    # FedFTG, arXiv 2410.23111, tables 1 and 3: clients x data sets x models x FedFTG, FlexLoRA, FFA-LoRA
    "fedftg_table1": ((2, 2, 2, 3),),
    "fedftg_table3": ((2, 2, 2, 3),),
    # FedFTG, tables 2 and 4: clients 3, 4, 5 x FedFTG, FlexLoRA, FFA-LoRA
    "fedftg_table2": ((3, 3),),
    "fedftg_table4": ((3, 3),),
    # FedEx-LoRA, arXiv 2410.09432, table 1: centralised, FedIT, FFA-LoRA, FedEx-LoRA; the 8 tasks are one run
    "fedex_commonsense": ((4,),),
    # FedEx-LoRA, table 2: Mistral-7B, Gemma-2-9B x 4 methods x GSM8K, MATH
    "fedex_arithmetic": ((2, 4, 2),),
    # FedEx-LoRA, table 3: base, large x ranks 4, 1 x 4 methods x 6 tasks; table 10: without the centralised rows
    "fedex_glue": ((2, 2, 4, 6), (2, 2, 3, 6)),
    # FedEx-LoRA, table 4: ranks 4, 1 x 4 methods; table 11: without the centralised rows
    "fedex_e2e": ((2, 4), (2, 3)),
    # FedEx-LoRA, table 5: 3 strategies x 6 tasks
    "fedex_assignment": ((3, 6),),
    # FedEx-LoRA, table 9: 6 ranks x 4 methods
    "fedex_rank": ((6, 4),),
    # FFA-LoRA, arXiv 2403.12313, under privacy: tasks x epsilons x clip norms x 4 learning rates of either method
    "ffa_lora_private": ((2, 3, 3, 4), (2, 3, 3, 4)),
    # FedSVD, arXiv 2505.12805, under privacy: tasks x FedSVD, FedIT, FFA-LoRA
    "fedsvd_private": ((2, 3),),
}
"""The sides of every published table, or of its blocks."""

NUM_SEEDS = {**{name: 3 if name.startswith("fedex") else 1 for name in TABLES}, "fedsvd_private": 5}
"""FedEx-LoRA's scores are means of three runs, FedSVD's code has five seeds; the other papers have one."""

FIRST_SEED = {"fedsvd_private": 42}
"""Of those that do not begin at 0."""

WEIGHTING = {"fedsvd_private": "num_examples"}
"""Of papers whose clients do not count alike."""

EPOCHS = {"scl_table1": 10, "scl_table2": 10, **{f"fedftg_table{number}": 3 for number in (1, 2, 3, 4)}}
"""Passes over a shard in the papers that aggregate after some steps, with a score after each pass."""

SHARDS = {"medquad": (4, 3_750), "dolly": (4, 3_752), "brain_tumor": (5, 612)}
"""Of SCL and FedFTG: number of shards, whatever the number of clients, and rows of each."""

NUM_ROWS = {"dolly": 15_011, "brain_tumor": 3_064}
"""Rows of the data sets of which the papers draw no sample."""

FILES = ("images.npz", "train.jsonl", "test.jsonl")
"""What the user brings where no hub has it."""

PAIRS = (("model", "method"), ("data", "num_clients"))
"""Keys of a cell of which each pair of values is loaded, where of the others each value is."""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the user brings, empty, in the folder where the command is given."""
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        Path(name).touch()


@functools.cache
def sweep(name: str) -> Sweep:
    return load_sweep(name)


def own_files(name: str) -> list[str]:
    """Return the arguments that an experiment leaves to the user."""
    text = list_choices(CONFIG_DIR, "experiment")[name].read_text(encoding="utf-8")
    wanted = {
        "data.path": "images.npz" if "data: brain_tumor" in text else "train.jsonl",
        "data.test_path": "test.jsonl",
        "model.path": "model",
    }
    return [f"{key}={path}" for key, path in wanted.items() if f"{key}: ???" in text]


def picks(cell: Cell) -> dict[str, str]:
    return dict(argument.split("=", maxsplit=1) for argument in cell.arguments)


@functools.cache
def configs(name: str) -> tuple[RunConfig, ...]:
    """Return the configurations of as many cells of the first seed as show all values of all axes, and PAIRS."""
    seen: set[tuple[tuple[str, str | None], ...]] = set()
    chosen = []
    for cell in sweep(name).cells(
        [*own_files(name), *([f"seed={FIRST_SEED.get(name, 0)}"] if NUM_SEEDS[name] > 1 else [])]
    ):
        items = {key: value for key, value in picks(cell).items() if key != "run.name"}
        pairs = [tuple((key, items.get(key)) for key in pair) for pair in PAIRS]
        shown = {*pairs, *((item,) for item in items.items())}
        if shown - seen:
            seen |= shown
            chosen.append(load_config(cell.arguments))
    return tuple(chosen)


def test_there_is_a_sweep_for_every_published_experiment() -> None:
    published = set(list_choices(CONFIG_DIR, "experiment")) - set(OWN)
    assert published == set(TABLES)
    assert set(list_choices(CONFIG_DIR, "sweep")) == published | set(OWN)
    assert all(sweep(name).experiment == name for name in (*TABLES, *OWN))


@pytest.mark.parametrize("name", TABLES)
def test_the_grid_is_that_of_the_papers_table(name: str) -> None:
    size = sum(map(math.prod, TABLES[name]))
    whole = sweep(name)
    assert len(whole.cells([f"seed={FIRST_SEED.get(name, 0)}"])) == size
    assert len(whole.cells()) == size * NUM_SEEDS[name]


@pytest.mark.parametrize("name", TABLES)
def test_cells_are_configurations_of_their_own_whose_method_builds(name: str) -> None:
    seeds = [picks(cell).get("seed") for cell in sweep(name).cells()[: NUM_SEEDS[name]]]
    assert len(set(seeds)) == NUM_SEEDS[name], "the seed does not vary fastest"
    assert len({json.dumps(fingerprint(config), sort_keys=True) for config in configs(name)}) == len(configs(name))
    for config in configs(name):
        method = build_method(config)
        assert method.name == config.method.name
        assert config.method.options.get("weighting", "uniform") == WEIGHTING.get(name, "uniform")


@pytest.mark.parametrize("name", EPOCHS)
def test_shards_and_epochs_are_those_of_the_paper(name: str) -> None:
    alone = load_config([f"experiment={name}", *own_files(name)])
    cells = {(config.data.name, config.num_clients) for config in configs(name)}
    assert len(cells) == {9: 3, 24: 4}[sum(map(math.prod, TABLES[name]))]
    for config in (alone, *configs(name)):
        num_shards, shard = SHARDS[config.data.name]
        assert config.partition.num_shards == num_shards
        assert (config.data.sample or NUM_ROWS[config.data.name]) // num_shards == shard
        num_train = shard - math.ceil(config.partition.test_fraction * shard)
        assert config.local.steps is not None
        assert config.eval.every == num_train // (config.local.steps * config.local.batch_size)
        assert config.num_rounds == EPOCHS[name] * config.eval.every


@pytest.mark.parametrize("name", [*TABLES, *OWN])
def test_an_experiment_runs_by_itself(name: str) -> None:
    config = load_config([f"experiment={name}", *own_files(name)])
    build_method(config)
    text = list_choices(CONFIG_DIR, "experiment")[name].read_text(encoding="utf-8")
    idle = [line for line in no_effect_warnings(config) if f"{line.partition('=')[0]}: " in text]
    assert not idle, "an experiment sets what has no effect"


@pytest.mark.parametrize("name", TABLES)
def test_every_value_of_an_experiment_tells_its_source(name: str) -> None:
    lines = list_choices(CONFIG_DIR, "experiment")[name].read_text(encoding="utf-8").splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert lines[: len(head)] == head, "a comment stands between the values"
    legend = "\n".join(head)
    for line in lines[len(head) :]:
        value, _, comment = line.partition("  # ")
        source = comment.removeprefix("(").partition(")")[0]
        assert f"({source})" in legend or value.endswith(": ???"), line
    assert all(len(line) <= 120 for line in lines)


def made_up_row(number: int, config: RunConfig) -> dict[str, Any]:
    """Return a row with the columns that the data set's YAML names."""
    data = config.data
    kind = number % 3
    row: dict[str, Any] = {} if data.label is None else {data.label: f"kind {kind}"}
    if data.task == "causal_lm":
        row |= dict.fromkeys(data.required, f"question {number}; Answer format: true/false")
        row |= {column: "" for column in ("context",) if f"{{{column}}}" in data.template}
        return row | {data.response: "the correct answer is true, or 7, or $\\boxed{7}$"}
    name = float(kind) if data.regression else data.classes[number % len(data.classes)] if data.classes else kind
    if data.task == "image_classification":
        image = np.full((8, 8), number, dtype=np.uint8)
        return row | {data.image: image, data.target: name}
    return row | dict.fromkeys(data.text, f"text {number}") | {data.target: name}


def sizes_of(config: RunConfig) -> Sizes:
    spec = task_spec(config.data.task)
    rows = [spec.check_row(made_up_row(i, config), f"row {i}", config.data) for i in range(120)]
    kept = [row for row in rows if row is not None]
    assert len(kept) == len(rows)
    shards = make_shards(kept, config.data, config.partition, config.num_clients, config.seed)
    classes = spec.class_names(kept, config.data)
    return measure(make_plan(Inputs(config=config, rows=kept, shards=shards, classes=classes)))


def with_published_model(config: RunConfig) -> RunConfig:
    folder = PUBLISHED_MODELS / config.model.name
    return replace(config, model=replace(config.model, path=str(folder), tokenizer="tiny"))


@pytest.mark.parametrize("name", TABLES)
def test_a_cell_of_every_model_is_built_on_the_meta_device(name: str) -> None:
    by_model: dict[str, dict[str, RunConfig]] = {}
    for config in configs(name):
        by_model.setdefault(config.model.name, {})[config.method.name] = config
    for turn, by_method in enumerate(by_model.values(), start=list(TABLES).index(name)):  # methods take turns
        config = list(by_method.values())[turn % len(by_method)]
        sizes = sizes_of(with_published_model(config))
        assert 0 < sizes.num_trainable < sizes.num_frozen
        assert sizes.uplink_bytes > 0 or build_method(config).pooled


@pytest.mark.parametrize(
    ("name", "chosen", "num_trainable"),
    [
        # 7,680 d and 18,432 d a layer: about as many as LoRA of rank 8 on q, k and v, 69,632
        ("scl_table2", ["model=tinyllama", "method=scl"], 22 * 7_680 * 9),
        ("scl_table2", ["model=gemma-2b", "method=scl"], 18 * 18_432 * 4),
        ("scl_table2", ["model=tinyllama", "method=fedsa_lora"], 1_531_904),
        # 3,840 d a layer, where LoRA has 36,864, and the head
        ("scl_table1", ["method=scl"], 12 * 3_840 * 10 + 3 * 769),
        # up_proj, "253.8 M" and "604 M"; in SigLIP fc1 with its bias and the head
        ("fedftg_table1", ["model=tinyllama", "method=fedftg"], 22 * 2_048 * 5_632),
        ("fedftg_table3", ["model=gemma-2b", "method=fedftg"], 18 * 2_048 * 16_384),
        ("fedftg_table2", ["method=fedftg"], 12 * 769 * 3_072 + 3 * 769),
        # "0.41 million" of the paper, with c_proj of the MLP
        ("fedex_e2e", ["method.lora_rank=4", "method=fedex_lora"], 405_504),
    ],
)
def test_sizes_are_those_of_the_paper(name: str, chosen: list[str], num_trainable: int) -> None:
    config = load_config(sweep(name).cells([*own_files(name), *chosen])[0].arguments)
    assert sizes_of(with_published_model(config)).num_trainable == num_trainable


METAMATH = {
    "query": "Gracie has 2 times 3 apples. How many are they?",
    "response": "2 x 3 = 6.\nThe answer is: 6",
    "type": "GSM_Rephrased",
    "original_question": "Gracie has twice 3 apples. How many?",
}
GSM8K = {"question": "Janet has 16 eggs and sells 4. How many remain?", "answer": "16 - 4 = <<16-4=12>>12\n#### 12"}
MATH = {
    "problem": "What is $x$ if $2x = 1$?",
    "level": "Level 1",
    "type": "Algebra",
    "solution": "We have $x=\\boxed{\\frac{1}{2}}$.",
    "answer": "\\frac{1}{2}",
}


@pytest.mark.parametrize(
    ("test_set", "row", "given", "right"),
    [
        ("gsm8k", GSM8K, "16 - 4 = 12, out of 20. The answer is: 12", True),
        ("gsm8k", GSM8K, "4 + 16 = 20. The answer is: 20", False),
        ("math", MATH, "Half of 1. The answer is: \\frac12", True),
        ("math", MATH, "Half of 1 is $\\boxed{0.5}$. The answer is: $\\boxed{0.5}$", True),
        ("math", MATH, "Twice 1 is 2. The answer is: 2", False),
    ],
)
def test_metamath_is_tested_on_files_as_they_are_published(
    test_set: str, row: dict[str, str], given: str, right: bool
) -> None:
    data = arithmetic(test_set, write("train.jsonl", METAMATH), write("test.jsonl", row))
    (train,), (test,) = load_rows(data, seed=0), load_test_rows(data)
    assert render(train, data) == (train_prompt(METAMATH["query"]), METAMATH["response"])
    question, solution = row.get("question", row.get("problem", "")), row.get("solution", row["answer"])
    assert render(test, data, test=True) == (train_prompt(question) + " Let's think step by step.", solution)
    assert data.answer is not None
    score = ExactMatch(data.answer)
    score.update([given, train["response"]], [solution, train["response"]])
    assert score.compute()["exact_match"] == (1.0 if right else 0.5)


@pytest.mark.parametrize(("test_set", "folder", "num_rows"), [("gsm8k", "gsm8k", 1_319), ("math", "math_test", 5_000)])
def test_metamath_is_tested_on_the_real_test_sets(test_set: str, folder: str, num_rows: int) -> None:
    path = REPOSITORY.parent / "shared" / "data" / folder / "test.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    data = arithmetic(test_set, write("train.jsonl", METAMATH), str(path))
    solutions = [render(row, data, test=True)[1] for row in load_test_rows(data)]
    assert len(solutions) == num_rows
    assert data.answer is not None
    assert all(final_answer(solution, data.answer) for solution in solutions), "a reference without an answer"


def arithmetic(test_set: str, path: str, test_path: str) -> DataConfig:
    """Return the data of table 2's cells for one of the two test sets, read from these files."""
    chosen = ["model=mistral-7b", "method=fedex_lora", "seed=0", f"data.name=metamath-{test_set}"]
    own = [f"data.path={path}", f"data.test_path={test_path}", "data.sample=null"]
    (cell,) = sweep("fedex_arithmetic").cells([*chosen, *own])
    return load_config(cell.arguments).data


def train_prompt(question: str) -> str:
    task = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    return f"{task}\n\n### Instruction:\n{question}\n\n### Response:"


def write(name: str, row: Mapping[str, str]) -> str:
    Path(name).write_text(json.dumps(row) + "\n", encoding="utf-8")
    return name
