"""The published experiments: every file and every cell loads, the grids are those of the papers' tables, and a cell of
every model is built on the meta device from the model's published configuration.
"""

import functools
import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from fedlit.assembly import make_plan
from fedlit.config import CONFIG_DIR, RunConfig, load_config, loading, no_effect_warnings
from fedlit.config.loading import list_choices
from fedlit.config.record import fingerprint
from fedlit.config.sweep import Sweep, load_sweep
from fedlit.data.classes import class_names
from fedlit.data.row_checks import check_row
from fedlit.data.shards import make_shards
from fedlit.inputs import Inputs
from fedlit.methods import build_method
from fedlit.sizing import Sizes, measure

PUBLISHED_MODELS = Path(__file__).parents[2] / "published_configs"

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
}
"""The sides of every published table, or of its blocks."""

NUM_SEEDS = {name: 3 if name.startswith("fedex") else 1 for name in TABLES}
"""FedEx-LoRA's scores are means of three runs; the other papers have one."""

EPOCHS = {"scl_table1": 10, "scl_table2": 10, **{f"fedftg_table{number}": 3 for number in (1, 2, 3, 4)}}
"""Passes over a shard in the papers that aggregate after some steps, with a score after each pass."""

FILES = ("images.npz", "train.jsonl", "test.jsonl", "gsm8k_test.jsonl", "math_test.jsonl")
"""What the user brings where no hub has it."""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the user brings, empty, in the folder where the command is given."""
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        Path(name).touch()


_parse_yaml = functools.cache(loading.parse_yaml)
_read_choice = functools.cache(loading.read_choice)
_TREES: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def files_and_defaults_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse each YAML file and build each tree of defaults once, for the hundreds of cells made of them."""
    build = OmegaConf.structured

    def structured(defaults: Any) -> Any:
        if repr(defaults) not in _TREES:
            _TREES[repr(defaults)] = build(defaults)
        return deepcopy(_TREES[repr(defaults)])

    monkeypatch.setattr(loading, "read_choice", _read_choice)
    monkeypatch.setattr(loading, "parse_yaml", lambda text, origin: deepcopy(_parse_yaml(text, origin)))
    monkeypatch.setattr(OmegaConf, "structured", structured)


@functools.cache
def sweep(name: str) -> Sweep:
    return load_sweep(name)


def own_files(name: str) -> list[str]:
    """Return the arguments that an experiment leaves to the user."""
    text = list_choices(CONFIG_DIR, "experiment")[name].read_text(encoding="utf-8")
    wanted = {"data.path": "images.npz" if "data: brain_tumor" in text else "train.jsonl"}
    if "data.test_path:" not in list_choices(CONFIG_DIR, "sweep")[name].read_text(encoding="utf-8"):
        wanted["data.test_path"] = "test.jsonl"
    return [f"{key}={path}" for key, path in wanted.items() if f"{key}: ???" in text]


def test_there_is_a_sweep_for_every_published_experiment() -> None:
    published = set(list_choices(CONFIG_DIR, "experiment")) - {"demo"}
    assert published == set(TABLES)
    assert set(list_choices(CONFIG_DIR, "sweep")) == published | {"demo"}
    assert all(sweep(name).experiment == name for name in (*TABLES, "demo"))


@pytest.mark.parametrize("name", TABLES)
def test_the_grid_is_that_of_the_papers_table(name: str) -> None:
    size = sum(map(math.prod, TABLES[name]))
    whole = sweep(name)
    assert len(whole.cells(["seed=0"])) == size
    assert len(whole.cells()) == size * NUM_SEEDS[name]


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_is_a_configuration_of_its_own_whose_method_builds(name: str) -> None:
    own = own_files(name)
    first = [load_config(cell.arguments).seed for cell in sweep(name).cells(own)[: NUM_SEEDS[name]]]
    assert len(set(first)) == NUM_SEEDS[name], "the seed does not vary fastest"
    cells = sweep(name).cells([*own, f"seed={first[0]}"])
    configs = [load_config(cell.arguments) for cell in cells]
    assert len({json.dumps(fingerprint(config), sort_keys=True) for config in configs}) == len(cells)
    for config in configs:
        assert build_method(config).name == config.method.name


@pytest.mark.parametrize(("name", "num_epochs"), EPOCHS.items())
def test_rounds_make_the_papers_epochs(name: str, num_epochs: int) -> None:
    for cell in sweep(name).cells(own_files(name)):
        config = load_config(cell.arguments)
        assert config.data.sample is not None
        shard, rest = divmod(config.data.sample, config.num_clients)
        num_train = shard - math.ceil(config.partition.test_fraction * shard)
        assert rest == 0
        assert config.local.steps is not None
        assert config.eval.every == num_train // (config.local.steps * config.local.batch_size)
        assert config.num_rounds == num_epochs * config.eval.every


@pytest.mark.parametrize("name", [*TABLES, "demo"])
def test_an_experiment_runs_by_itself(name: str) -> None:
    arguments = own_files(name) if name in TABLES else []
    if name == "fedex_arithmetic":
        arguments.append("data.test_path=gsm8k_test.jsonl")
    config = load_config([f"experiment={name}", *arguments])
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
    rows = [check_row(made_up_row(i, config), f"row {i}", config.data) for i in range(120)]
    kept = [row for row in rows if row is not None]
    assert len(kept) == len(rows)
    shards = make_shards(kept, config.data, config.partition, config.num_clients, config.seed)
    return measure(make_plan(Inputs(config=config, rows=kept, shards=shards, classes=class_names(kept, config.data))))


@pytest.mark.parametrize("name", TABLES)
def test_a_cell_of_every_model_is_built_on_the_meta_device(name: str) -> None:
    cells = sweep(name).cells([*own_files(name), "data.sample=null", "model.tokenizer=tiny"])
    by_model: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        picks = dict(argument.split("=", maxsplit=1) for argument in cell.arguments)
        by_model.setdefault(picks.get("model", ""), {})[picks.get("method", "")] = cell.arguments
    for turn, by_method in enumerate(by_model.values(), start=list(TABLES).index(name)):  # methods take turns
        arguments = list(by_method.values())[turn % len(by_method)]
        folder = PUBLISHED_MODELS / load_config(arguments).model.name
        config = load_config([*arguments, f"model.path={folder}"])
        sizes = sizes_of(config)
        assert 0 < sizes.num_trainable < sizes.num_frozen
        assert sizes.uplink_bytes > 0 or build_method(config).pooled


@pytest.mark.parametrize(
    ("name", "picks", "num_trainable"),
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
def test_sizes_are_those_of_the_paper(name: str, picks: list[str], num_trainable: int) -> None:
    fixed = ["data.sample=null", "model.tokenizer=tiny", *own_files(name), *picks]
    arguments = sweep(name).cells(fixed)[0].arguments
    folder = PUBLISHED_MODELS / load_config(arguments).model.name
    config = load_config([*arguments, f"model.path={folder}"])
    assert sizes_of(config).num_trainable == num_trainable
