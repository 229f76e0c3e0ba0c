import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedlit.config import CONFIG_DIR, load_config, load_sweep
from fedlit.config.loading import list_choices
from fedlit.errors import UserError
from fedlit.lab.prefetch import HubData, HubModel, Item, LocalPath, hub, look_up, needs_of, require_space, run_configs
from fedlit.lab.prefetch.hub import model_files
from fedlit.models import PACKAGED


def needs(*words: str) -> list[object]:
    return list(needs_of(run_configs(words)))


@pytest.mark.parametrize("name", PACKAGED)
def test_what_is_inside_the_package_is_not_fetched(name: str) -> None:
    assert needs("model=hf", f"model.path={name}") == []


def test_a_model_and_both_sets_of_its_data() -> None:
    assert needs("data=metamath", "model=gpt2") == [
        HubModel("openai-community/gpt2", weights=True),
        HubData("meta-math/MetaMathQA", None, ("train",)),
        HubData("openai/gsm8k", "main", ("test",)),
    ]


def test_two_splits_of_one_data_set_are_one_need() -> None:
    assert needs("data=gsm8k") == [HubData("openai/gsm8k", "main", ("train", "test"))]


def test_random_weights_need_no_weights_and_a_tokenizer_of_its_own_none() -> None:
    words = ("model=gpt2", "model.weights=random", "model.tokenizer=nobody/words")
    assert needs(*words) == [HubModel("openai-community/gpt2", False), HubModel("nobody/words", False)]
    with_weights = load_config(["model=gpt2"])
    assert needs_of([load_config(words), with_weights])[0] == HubModel("openai-community/gpt2", True)


def test_local_files_take_the_place_of_the_hub(tmp_path: Path) -> None:
    model, rows, test = tmp_path / "model", tmp_path / "rows.jsonl", tmp_path / "test.jsonl"
    model.mkdir()
    rows.write_text("{}\n")
    test.write_text("{}\n")
    words = ["data=gsm8k", f"data.path={rows}", f"data.test_path={test}", "model=hf", f"model.path={model}"]
    found = needs(*words)
    assert found == [
        LocalPath("model.path", str(model)),
        LocalPath("data.path", str(rows)),
        LocalPath("data.test_path", str(test)),
    ]
    assert look_up(LocalPath("data.path", str(rows))) == Item(
        need=LocalPath("data.path", str(rows)), state="present", num_bytes=3, path=rows
    )
    # A test set of its own beside the hub's rows, whose own test split is then not read.
    assert needs("data=gsm8k", f"data.test_path={test}")[1] == HubData("openai/gsm8k", "main", ("train",))


@pytest.mark.parametrize("key", ["model.path", "data.path", "partition.path"])
def test_a_path_that_is_not_there_is_told_in_one_line(key: str) -> None:
    with pytest.raises(UserError, match=rf"{key}=nowhere/at/all: no such .* check the path") as caught:
        look_up(LocalPath(key, "nowhere/at/all"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["scl_table2", "fedex_rank"])
def test_cells_left_out_need_nothing_else(name: str) -> None:
    """Of the cells that read the same there is one, and what all cells read is what those read."""
    picked = run_configs([name, "seed=0"])
    cells = load_sweep(name).cells(["seed=0"])
    assert len(picked) < len(cells)
    # One method is enough to see every model and data set.
    by_method: dict[str, list[list[str]]] = {}
    for cell in cells:
        by_method.setdefault(str(cell.settings.get("method")), []).append(cell.arguments)
    largest = max(by_method.values(), key=len)[:40]
    assert set(needs_of(load_config(arguments) for arguments in largest)) <= set(needs_of(picked))
    assert set(needs_of(run_configs([name]))) == set(needs_of(picked))


@pytest.mark.parametrize("name", sorted(list_choices(CONFIG_DIR, "experiment")))
def test_every_experiment_says_what_it_needs_or_what_the_user_brings(name: str) -> None:
    try:
        found = needs(name)
    except UserError as error:
        assert "add data.path=<value>" in str(error) or "add model.path=<value>" in str(error)
    else:
        assert found or name == "demo"


def test_a_sweep_may_be_given_by_its_file() -> None:
    assert run_configs([str(CONFIG_DIR / "sweep" / "demo.yaml")]) == run_configs(["demo"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fedex_glu"], "unknown experiment or sweep 'fedex_glu'; did you mean 'fedex_glue'?"),
        (["demo", "fedex_glue"], "fedex_glue is a second name beside demo"),
        (["fedftg_table2"], "add data.path=<value>"),
        (["data=hub"], "unknown choice data=hub"),
    ],
)
def test_a_wrong_name_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        run_configs(words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


BESIDE = ["config.json", "tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize(
    ("others", "weights"),
    [
        pytest.param(  # openai-community/gpt2
            [
                "64.tflite",
                "onnx/config.json",
                "flax_model.msgpack",
                "pytorch_model.bin",
                "rust_model.ot",
                "tf_model.h5",
            ],
            ["model.safetensors"],
            id="one_file",
        ),
        pytest.param(  # mistralai/Mistral-7B-v0.3, meta-llama
            ["consolidated.safetensors", "original/params.json", "original/consolidated.00.pth", "gemma-2b.gguf"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
            id="shards",
        ),
        pytest.param(
            ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"],
            ["model-00001-of-00001.safetensors", "model.safetensors.index.json"],
            id="both_forms_in_shards",
        ),
        pytest.param(["tf_model.h5", ".gitattributes", "README.md"], ["pytorch_model.bin"], id="no_safetensors"),
        pytest.param(
            ["training_args.bin", "optimizer.pt"],
            ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"],
            id="no_safetensors_in_shards",
        ),
    ],
)
def test_one_form_of_the_weights_and_nothing_of_other_frameworks(others: list[str], weights: list[str]) -> None:
    beside = [*BESIDE, "tokenizer.model", "vocab.txt", "chat_template.jinja"]
    names = [*others, *weights, *beside]
    assert sorted(model_files(names, weights=True)) == sorted([*weights, *beside])
    assert sorted(model_files(names, weights=False)) == sorted(beside)


def test_a_disk_that_is_too_small_is_told_before_the_first_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub, "cache_home", lambda: tmp_path / "not" / "made" / "yet")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2_000_000))
    make: Callable[[str, int], Item] = lambda state, size: Item(  # noqa: E731
        need=HubModel("nobody/large", True), state=state, num_bytes=size
    )
    require_space([make("missing", 1_500_000), make("present", 1_500_000)])
    with pytest.raises(UserError, match=r"3\.0 MB are to be downloaded and .* has 2\.0 MB free; .*HF_HOME"):
        require_space([make("missing", 1_500_000), make("missing", 1_500_000)])
