"""Whatever a sweep file holds, and whatever words stand behind its name: cells, or one line."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedlit.config import load_config, load_sweep
from fedlit.config.reading import dump_yaml
from fedlit.errors import UserError
from fedlit.lines import printable

KEYS = st.sampled_from(
    ["experiment", "overrides", "axes", "grids", "exclude", "extra", "seed", "method", "local.lr", "method.lora_rank",
     "local", "data", "eval.stop", "a", "1", "null", "", "run.name", "cohort.options", "data.template", "model"]
)  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats(allow_nan=True)
    | st.sampled_from(["passes", "fedit", "nested", "pydoc", "x", "", "a, b", "${x}", "[", "\n", "é\x1b", "null", "1"])
)  # fmt: skip
CONTENT = st.recursive(LEAVES, lambda part: st.lists(part, max_size=3) | st.dictionaries(KEYS, part, max_size=4))


def outcome(config_dir: Path, data: bytes, *words: str) -> str:
    """Return the line of a refusal, empty where there are cells."""
    path = config_dir / "sweep" / "one.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    try:
        cells = load_sweep("one", config_dir).cells(words)
        assert len({cell.folder for cell in cells}) == len(cells)
    except UserError as mistake:
        line = str(mistake)
        assert printable(line) == line and len(line) <= 400 and "\n" not in line
        return line
    return ""


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"experiment: passes\n# caf\xe9\n", "configs/sweep/one.yaml, line 2: this is not UTF-8"),
        (b"experiment: passes\noverrides: {1: 2}\n", "unknown key '1'"),
        (b"experiment: passes\naxes: {seed: [010]}\n", "decimal digits"),
        (b"experiment: passes\naxes: {seed: [!!int x]}\n", "decimal digits"),
        (b"experiment: passes\naxes: {1: [2]}\n", "unknown key '1'"),
        (b"experiment: passes\nexclude: [{1: 2}]\n", "unknown key '1'"),
        (b"experiment: [passes]\n", "experiment"),
        (b"experiment: {a: passes}\n", "experiment"),
        (b"experiment: 1\n", "experiment"),
        (b"1: passes\n", "unknown key '1'"),
        (b"experiment: passes\naxes: " + b"[" * 5000, "deep"),
        (b"experiment: passes\naxes: {data: [[pydoc]]}\n", "data"),
        (b"", "no mapping"),
        (b"\xff\xfe", "not UTF-8"),
        (b'experiment: "a\\0b"\n', "NUL"),
    ],
    ids=lambda value: ascii(value[:30]),
)
def test_what_is_no_sweep_is_one_line(config_dir: Path, data: bytes, told: str) -> None:
    assert told in outcome(config_dir, data)


def test_texts_of_a_sweep_reach_the_run_as_they_stand(config_dir: Path) -> None:
    text = "experiment: passes\n"
    text += 'overrides: {eval.stop: ["a, b", "null", "\\n", "[x]"], data.template: "[{prompt}] 🙂\\n"}\n'
    path = config_dir / "sweep" / "one.yaml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    config = load_config(load_sweep("one", config_dir).cells()[0].arguments, config_dir)
    assert config.eval.stop == ["a, b", "null", "\n", "[x]"]
    assert config.data.template == "[{prompt}] 🙂\n"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(KEYS, CONTENT, max_size=4))
def test_any_file_is_cells_or_one_line(content: dict[str, Any], config_dir: Path) -> None:
    outcome(config_dir, dump_yaml({"experiment": "passes", **content}).encode())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.tuples(KEYS | st.text(max_size=3), st.text(max_size=5) | LEAVES.map(str)), max_size=3))
def test_any_words_are_cells_or_one_line(words: list[tuple[str, str]], config_dir: Path) -> None:
    text = b"experiment: passes\naxes: {method: [fedit, nested], seed: [0, 1]}\n"
    outcome(config_dir, text, *(f"{key}={value}" for key, value in words))


@pytest.mark.parametrize("name", ["\0", "x" * 5000, "~nobody-of-this-name/x.yaml", "caf\udce9", "/", ".", "a\nb"])
def test_any_name_is_a_sweep_or_one_line(config_dir: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        load_sweep(name, config_dir)
    assert printable(str(caught.value)) == str(caught.value) and len(str(caught.value)) <= 400


def test_a_folder_in_a_sweeps_place_is_not_offered_in_its_own_stead(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").mkdir()
    with pytest.raises(UserError) as error:
        load_sweep(str(tmp_path / "mine.yaml"))
    assert "is no YAML file" in str(error.value)
    assert "did you mean" not in str(error.value)
