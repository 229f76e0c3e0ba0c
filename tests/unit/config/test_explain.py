"""`fedlit run --explain`: every value that is not a default says where it came from."""

import json
from pathlib import Path

import pytest

from fedlit.config import RunConfig, load_config, to_yaml
from fedlit.config.explain import explain, explanation, explanation_json
from fedlit.config.house import _short_name
from fedlit.config.loading import Resolved, resolve_words
from fedlit.config.record import flat_values
from fedlit.recipes import options_taken


def lines(config_dir: Path, *words: str) -> list[str]:
    return [line.strip() for line in explanation(resolve_words(words, config_dir)).splitlines()]


def test_a_value_and_what_it_hides(config_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("experiment: both\ndata.sample: 100\n", encoding="utf-8")
    found = lines(config_dir, "my.yaml", "local.lr=0.01", "seed=0", "data.sample=50")
    assert "local.lr = 0.01  (command line; configs/experiment/both.yaml says 0.5)" in found
    hidden = "my.yaml says 100; configs/experiment/both.yaml says 200; configs/data/questions.yaml says 300"
    assert f"data.sample = 50  (command line; {hidden})" in found
    assert "num_rounds = 7  (configs/experiment/both.yaml)" in found
    assert "method.galore.rank = 2  (configs/experiment/both.yaml; configs/method/nested.yaml says 16)" in found
    assert not any(line.startswith("method.flag") for line in found)
    assert not any(line.startswith("seed") for line in found)
    assert found[found.index("files:") + 1 : -2] == [
        "data = questions  (configs/experiment/both.yaml)",
        "model = tiny  (default)",
        "method = nested  (configs/experiment/both.yaml)",
        "experiment = both  (my.yaml)",
    ]
    assert found[-1] == "run folder: runs/nested-questions-tiny-seed0"


def test_a_default_that_hides_another_value_is_told(config_dir: Path) -> None:
    found = lines(config_dir, "experiment=both", "num_rounds=5", "method=fedit")
    assert RunConfig().num_rounds == 5
    assert "num_rounds = 5  (command line; configs/experiment/both.yaml says 7)" in found
    assert "method = fedit  (command line; configs/experiment/both.yaml says nested)" in found


def test_what_the_house_sets_says_why(config_dir: Path) -> None:
    (config_dir / "data/nameless.yaml").write_text("label: null\n", encoding="utf-8")
    words = ["data=nameless", "model=hf", "model.path=some/gpt", "experiment=passes", "local.steps=4"]
    found = lines(config_dir, *words)
    assert "partition.name = iid  (because data.label=null)" in found
    assert "model.name = gpt  (the last part of model.path; command line)" in found
    assert "data.name = nameless  (the name of the file; command line)" in found
    hidden = "configs/experiment/passes.yaml says 3"
    assert f"local.epochs = null  (because local.steps is given; command line; {hidden})" in found
    hidden = "because local.epochs is given; configs/experiment/passes.yaml says null"
    assert f"local.steps = 4  (command line; {hidden})" in found


def test_a_whole_configuration_is_where_all_comes_from(
    config_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(to_yaml(load_config(["experiment=both"], config_dir)), encoding="utf-8")
    found = lines(config_dir, "config.yaml", "data=pydoc")
    assert "num_rounds = 7  (config.yaml)" in found
    assert "method.name = nested  (config.yaml)" in found
    assert "data = pydoc  (command line)" in found
    assert "none: a whole configuration needs none" in lines(config_dir, "config.yaml")


@pytest.mark.parametrize("words", [[], ["experiment=both"], ["method=nested", "local.epochs=2", "data.label=null"]])
def test_nothing_is_left_out(config_dir: Path, words: list[str]) -> None:
    resolved = resolve_words(words, config_dir)
    values, _ = explain(resolved)
    told = {entry.key: entry.above.value for entry in values}
    options = options_taken(resolved.config.method)
    defaults = flat_values(RunConfig()) | {f"method.{name}": option.default for name, option in options.items()}
    for key, value in flat_values(resolved.config).items():
        assert told.get(key, value) == value
        assert key in told or value == defaults[key], key
    assert all(entry.above.origin != "default" for entry in values)


def test_the_json_form_says_the_same(config_dir: Path) -> None:
    resolved: Resolved = resolve_words(["experiment=both", "local.lr=0.25"], config_dir)
    content = json.loads(explanation_json(resolved))
    assert content["values"]["local.lr"] == {
        "value": 0.25,
        "from": "command line",
        "overrides": [{"value": 0.5, "from": "configs/experiment/both.yaml"}],
    }
    assert content["groups"]["experiment"]["value"] == "both"
    assert content["folder"] == "runs/nested-questions-tiny-seed0"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/first/adapter", "first-adapter"),
        ("/x/first/adapter/client-00001", "first-adapter-client-00001"),
        ("adapter", "adapter"),
        ("/models/adapter/llama", "llama"),
        ("owner/llama-adapter", "llama-adapter"),
    ],
)
def test_a_backbone_is_called_by_its_path(path: str, name: str) -> None:
    assert _short_name(Path(path)) == name
