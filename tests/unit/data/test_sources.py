import gzip
import json
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fedlit.config.help import first_comment, option_comments
from fedlit.config.loading import CONFIG_DIR, list_choices
from fedlit.config.schema import DataConfig
from fedlit.data.columns import column_values
from fedlit.data.prompts import render
from fedlit.data.sources import load_rows, load_test_rows, load_validation_rows, read_data
from fedlit.errors import UserError
from fedlit.tasks.registry import task_spec

REPO = Path(__file__).parents[3]
SHARED = REPO.parent / "shared" / "data"


def write(path: Path, rows: list[Any]) -> str:
    lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(lines)
    else:
        path.write_text(lines, encoding="utf-8")
    return str(path)


def row(i: int = 0, label: Any = "a", **more: Any) -> dict[str, Any]:
    return {"prompt": f"p{i}", "response": f"r{i}", "label": label} | more


def fails(config: DataConfig, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        load_rows(config, 0)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def from_yaml(name: str, **more: Any) -> DataConfig:
    node = OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.load(REPO / f"configs/data/{name}.yaml"), more)
    config = OmegaConf.to_object(node)
    assert isinstance(config, DataConfig)
    return config


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_local_file_keeps_rows_and_their_order(tmp_path: Path, name: str) -> None:
    rows = [row(i, text="naïve ✓\u2028x") for i in range(20)]
    assert load_rows(DataConfig(path=write(tmp_path / name, rows)), 0) == rows


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\ufeff" + json.dumps(row(0)) + "\r\n\n  \n" + json.dumps(row(1)), encoding="utf-8")
    assert load_rows(DataConfig(path=str(path)), 0) == [row(0), row(1)]


def test_line_numbers_count_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(), "", "{not json"])
    fails(DataConfig(path=path), "rows.jsonl, line 3", "not JSON", "column 2", "one object per line")


@pytest.mark.parametrize(("bad", "kind"), [("[1]", "list"), ("3", "int"), ("null", "NoneType")])
def test_not_an_object(tmp_path: Path, bad: str, kind: str) -> None:
    path = write(tmp_path / "rows.jsonl", [row(), bad])
    fails(DataConfig(path=path), f"rows.jsonl, line 2: {kind}, not an object", "write each row as")


def test_missing_file_folder_and_wrong_ending(tmp_path: Path) -> None:
    fails(DataConfig(path=str(tmp_path / "none.jsonl")), "none.jsonl", "no such file", "check the path")
    fails(DataConfig(path=str(tmp_path / "none.jsonl.gz")), "no such file")
    (tmp_path / "folder.jsonl").mkdir()
    fails(DataConfig(path=str(tmp_path / "folder.jsonl")), "folder.jsonl: a folder without a table", "it is empty")
    write(tmp_path / "rows.md", [row()])
    fails(DataConfig(path=str(tmp_path / "rows.md")), "rows.md: no table by its ending", ".jsonl", "compressed or not")


def test_broken_gzip(tmp_path: Path) -> None:
    whole = Path(write(tmp_path / "rows.jsonl.gz", [row(i, label=str(i * 7919)) for i in range(9000)])).read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    fails(DataConfig(path=str(tmp_path / "cut.jsonl.gz")), "cut.jsonl.gz: broken gzip file after line", "again")
    (tmp_path / "plain.jsonl.gz").write_text(json.dumps(row()))
    fails(DataConfig(path=str(tmp_path / "plain.jsonl.gz")), "broken gzip file after line 0", "Not a gzipped file")
    (tmp_path / "bad.jsonl.gz").write_bytes(whole[:400] + b"\xff" * 60 + whole[460:])
    fails(DataConfig(path=str(tmp_path / "bad.jsonl.gz")), "broken gzip file")


def test_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(row()).encode() + b'\n{"prompt": "caf\xe9"}\n')
    fails(DataConfig(path=str(path)), "rows.jsonl, line 2: not UTF-8", "byte 15", "save the file as UTF-8")


def test_no_rows(tmp_path: Path) -> None:
    fails(DataConfig(path=write(tmp_path / "rows.jsonl", [])), "rows.jsonl: no rows", "data.path")
    path = write(tmp_path / "void.jsonl", [row(0, response=""), row(1, response=None)])
    fails(DataConfig(path=path, drop_empty=True), "void.jsonl: all 2 rows have an empty 'response'", "data.response")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"required": ["prompt", "promt"]}, ["no column 'promt'", "data.required", "the nearest is 'prompt'"]),
        (
            {"prompt": "q", "required": ["prompt"]},
            ["no column 'q' (asked for by data.prompt)", "give data.prompt=<column>"],
        ),
        ({"response": "reponse"}, ["no column 'reponse'", "data.response", "the nearest is 'response'"]),
        ({"label": "Label"}, ["no column 'Label'", "data.label", "the nearest is 'label'"]),
        (
            {"template": "{prompt} {context}"},
            ["no column 'context'", "data.template", "['prompt', 'response', 'label']"],
        ),
    ],
)
def test_missing_column_names_option_and_nearest(tmp_path: Path, change: dict[str, Any], parts: list[str]) -> None:
    path = write(tmp_path / "rows.jsonl", [row()])
    fails(DataConfig(path=path, **change), "rows.jsonl, line 1", *parts)


def test_column_missing_from_a_later_row_only(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(), {"prompt": "p", "label": "a"}])
    fails(DataConfig(path=path), "rows.jsonl, line 2: no column 'response'")
    fails(DataConfig(path=path, drop_empty=True), "rows.jsonl, line 2: no column 'response'")


@pytest.mark.parametrize("blank", ["", " \n", None])
def test_blank_required_column_and_empty_response(tmp_path: Path, blank: str | None) -> None:
    path = write(tmp_path / "rows.jsonl", [row(), row(prompt=blank)])
    fails(DataConfig(path=path), "rows.jsonl, line 2: column 'prompt' is blank", "leave the row out")
    fails(DataConfig(path=path, required=["prompt"]), "take it off data.required")
    path = write(tmp_path / "rows.jsonl", [row(0), row(1, response=blank), row(2)])
    fails(DataConfig(path=path), "rows.jsonl, line 2: column 'response'", "is empty", "data.drop_empty=true")
    assert load_rows(DataConfig(path=path, drop_empty=True), 0) == [row(0), row(2)]


@pytest.mark.parametrize("column", ["prompt", "response"])
def test_text_must_be_a_string(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "rows.jsonl", [row(), row(**{column: 7})])
    fails(DataConfig(path=path), f"rows.jsonl, line 2: column '{column}'", "holds 7, not a string", "as a string")


@pytest.mark.parametrize("label", [None, "", " ", ["a"], {}])
def test_label_must_be_a_plain_value(tmp_path: Path, label: Any) -> None:
    path = write(tmp_path / "rows.jsonl", [row(), row(label=label)])
    fails(DataConfig(path=path), "rows.jsonl, line 2: column 'label' (data.label)", "not a label")
    assert len(load_rows(DataConfig(path=path, label=None), 0)) == 2


def test_labels_may_be_numbers(tmp_path: Path) -> None:
    rows = load_rows(DataConfig(path=write(tmp_path / "rows.jsonl", [row(0, 1), row(1, "1"), row(2, 0)])), 0)
    assert column_values(rows, "label", "data.label") == ["1", "1", "0"]


def test_source_must_exist_and_have_its_option() -> None:
    fails(DataConfig(source="pydocs"), "data.source=pydocs", "pydoc, digits, table, jsonl, images, hub")
    fails(DataConfig(source="jsonl"), "data.source=jsonl without a file", "data.path=")
    fails(DataConfig(source="hub"), "data.source=hub without a data set", "data.hub_id=", "data.path=")


def test_pydoc_is_read_without_options() -> None:
    rows = load_rows(DataConfig(), 0)
    assert len(rows) > 100
    assert all(render(row, DataConfig())[0].strip() for row in rows)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_hub_folder(tmp_path: Path, kind: str) -> None:
    rows = [row(0), row(1, response=None), row(2)]
    folder = tmp_path / "set"
    folder.mkdir()
    if kind == "jsonl":
        write(folder / "train.jsonl", rows)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")
    config = DataConfig(source="hub", hub_id=str(folder), drop_empty=True)
    assert load_rows(config, 0) == [row(0), row(2)]
    config.drop_empty = False
    fails(config, "set[train], row 1: column 'response'", "data.drop_empty=true")
    config.hub_split = "test"
    fails(config, "data.hub_split=test", "train", "data.path=")


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("form", ["train.jsonl", "train.json", "train.jsonl.gz"])
def test_dates_in_quotes_stay_as_they_are_written(tmp_path: Path, form: str) -> None:
    """The hub's reader takes them for timestamps and would lose how they were written."""
    texts = ["2020-01-01", "2021-05-05T11:11", "2021-05-05 11:11:00"]
    rows = [{"prompt": text, "response": text, "label": text, "seen": text} for text in texts]
    (tmp_path / "set").mkdir()
    if form == "train.json":
        (tmp_path / "set" / form).write_text(json.dumps(rows))
    else:
        write(tmp_path / "set" / form, rows)
    found = load_rows(DataConfig(source="hub", hub_id=str(tmp_path / "set")), 0)
    assert [(row["prompt"], row["response"], row["label"]) for row in found] == [(text, text, text) for text in texts]


@pytest.mark.usefixtures("hub_cache")
def test_dates_that_are_dates_are_told(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    table = pyarrow.table({"prompt": [datetime(2020, 1, 1)], "response": ["r"], "label": ["a"]})
    pyarrow.parquet.write_table(table, tmp_path / "set" / "train.parquet")
    fails(DataConfig(source="hub", hub_id=str(tmp_path / "set")), "row 0: column 'prompt'", "with data.path")


@pytest.mark.usefixtures("hub_cache")
def test_the_split_that_is_trained_on_is_no_test_set(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", [row(0), row(1)])
    config = DataConfig(source="hub", hub_id=str(tmp_path / "set"), hub_test_split="train")
    with pytest.raises(UserError, match=r"data\.hub_test_split=train: the rows that are trained on"):
        load_test_rows(config)


@pytest.mark.usefixtures("hub_cache")
def test_hub_configuration_and_test_split(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    names = {"a_train": [row(0), row(1)], "a_test": [row(2)], "b_train": [row(3)]}
    for name, rows in names.items():
        write(folder / f"{name}.jsonl", rows)
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: a\n  data_files:\n"
        "  - {split: train, path: a_train.jsonl}\n  - {split: test, path: a_test.jsonl}\n"
        "- config_name: b\n  data_files:\n  - {split: train, path: b_train.jsonl}\n---\n"
    )
    config = DataConfig(source="hub", hub_id=str(folder), hub_config="a", hub_test_split="test")
    assert (load_rows(config, 0), load_test_rows(config)) == ([row(0), row(1)], [row(2)])
    config.hub_config = "b"
    assert load_rows(config, 0) == [row(3)]
    with pytest.raises(UserError, match=r"data\.hub_split=test"):
        load_test_rows(config)
    config.hub_config = None
    fails(config, "data.hub_id=", "hub_config")


def test_a_test_set_of_its_own(tmp_path: Path) -> None:
    """A local file takes the place of the hub's test split too: local rows are never tested on the hub's."""
    train, test = write(tmp_path / "train.jsonl", [row(0)]), write(tmp_path / "test.jsonl.gz", [row(1), row(2)])
    config = DataConfig(source="hub", hub_id="some/set", hub_test_split="test", path=train)
    assert load_test_rows(config) == []
    config.test_path = test
    assert (load_rows(config, 0), load_test_rows(config)) == ([row(0)], [row(1), row(2)])
    config.test_path = write(tmp_path / "bad.jsonl", [row(1), {"prompt": "p"}])
    with pytest.raises(UserError, match=r"bad\.jsonl, line 2: no column 'response'"):
        load_test_rows(config)


def test_a_test_set_with_other_columns(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [row(0)])
    test = write(tmp_path / "test.jsonl", [{"question": "q", "answer": "a", "label": "l"}])
    config = DataConfig(path=train, test_path=test, test_columns=["prompt=question", "response=answer"])
    (found,) = load_test_rows(config)
    assert (found["prompt"], found["response"]) == ("q", "a")
    assert load_rows(config, 0) == [row(0)]
    wrong = {"prompt=q": "no column 'q' (asked for by data.test_columns)", "prompt": "write <here>=<there>"}
    for column, part in wrong.items():
        config.test_columns = [column]
        with pytest.raises(UserError) as caught:
            load_test_rows(config)
        assert part in str(caught.value)


@pytest.mark.usefixtures("hub_cache")
def test_the_test_split_of_another_hub_data_set(tmp_path: Path) -> None:
    for name, rows in {"mine": [row(0)], "theirs": [row(1)]}.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.jsonl", rows)
    config = DataConfig(source="hub", hub_id=str(tmp_path / "mine"), hub_test_id=str(tmp_path / "theirs"))
    config.hub_test_split = "train"
    assert (load_rows(config, 0), load_test_rows(config)) == ([row(0)], [row(1)])


@pytest.mark.usefixtures("hub_cache")
def test_hub_errors_suggest_a_local_file(tmp_path: Path) -> None:
    fails(DataConfig(source="hub", hub_id="no-such/set"), "data.hub_id=no-such/set", "reach", "network", "data.path=")
    fails(DataConfig(source="hub", hub_id="./nowhere"), "data.hub_id=./nowhere", "data.path=")
    (tmp_path / "bad").mkdir()
    write(tmp_path / "bad" / "train.jsonl", ["{"])
    fails(DataConfig(source="hub", hub_id=str(tmp_path / "bad")), "data.path=")


def test_bad_templates_fail_before_anything_is_read() -> None:
    fails(DataConfig(template="{prompt!r}", path="/nowhere.jsonl"), "{prompt!r} is not a plain field")


def test_null_in_a_template_column_counts_as_blank(tmp_path: Path) -> None:
    rows = [{"instruction": "Do", "context": None, "response": "r", "category": "a"}]
    config = from_yaml("dolly", path=write(tmp_path / "rows.jsonl", rows))
    assert render(load_rows(config, 0)[0], config)[0] == "### Instruction:\nDo\n\n### Response:\n"


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=8), data=st.data())
def test_sample_is_proportional_seeded_and_ordered(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], data: st.DataObject
) -> None:
    labels = data.draw(st.permutations([str(k) for k, count in enumerate(counts) for _ in range(count)]))
    num = data.draw(st.integers(1, len(labels)))
    path = write(tmp_path_factory.mktemp("s") / "rows.jsonl", [row(i, label) for i, label in enumerate(labels)])
    rows = load_rows(DataConfig(path=path, sample=num), 1)
    numbers = [int(r["prompt"][1:]) for r in rows]
    assert len(numbers) == num
    assert numbers == sorted(set(numbers))
    drawn = Counter(r["label"] for r in rows)
    for k, count in enumerate(counts):
        share = count * num / len(labels)
        assert int(share + 1e-9) <= drawn[str(k)] <= min(count, int(share + 1e-9) + 1)
    assert rows == load_rows(DataConfig(path=path, sample=num), 1)


def test_sample_gives_the_largest_remainders_one_more(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(i, "a" if i < 3 else "b") for i in range(10)])
    drawn = Counter(r["label"] for r in load_rows(DataConfig(path=path, sample=8), 0))
    assert drawn == {"a": 2, "b": 6}  # of 2.4 and 5.6


def test_sample_depends_on_the_seed_and_not_on_labels_being_there(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(i) for i in range(100)])
    draws = [str(load_rows(DataConfig(path=path, sample=50), seed)) for seed in range(5)]
    assert len(set(draws)) == 5
    assert len(load_rows(DataConfig(path=path, sample=50, label=None), 0)) == 50


@pytest.mark.parametrize("num", [0, -1, 4])
def test_sample_size_must_fit(tmp_path: Path, num: int) -> None:
    path = write(tmp_path / "rows.jsonl", [row(i) for i in range(3)])
    fails(DataConfig(path=path, sample=num), f"data.sample={num}", "rows.jsonl has 3 rows", "choose 1 to 3")


@pytest.mark.parametrize("name", list_choices(CONFIG_DIR, "data"))
def test_every_key_of_a_data_yaml_exists_and_has_a_comment(name: str) -> None:
    text = (CONFIG_DIR / f"data/{name}.yaml").read_text()
    assert first_comment(text), "the help shows the first line"
    comments = option_comments(text, prefix="")
    assert set(comments) <= set(DataConfig.__dataclass_fields__)
    assert [key for key, comment in comments.items() if not comment] == []


def test_yaml_for_own_data(tmp_path: Path) -> None:
    fails(from_yaml("jsonl"), "data.path=")
    assert load_rows(from_yaml("jsonl", path=write(tmp_path / "own.jsonl", [row()])), 0) == [row()]


def shared(path: str) -> str:
    if not (SHARED / path).exists():
        pytest.skip(f"needs the shared data set {path}")
    return str(SHARED / path)


def test_medquad() -> None:
    config = from_yaml("medquad", path=shared("medquad/medquad.jsonl.gz"))
    rows = load_rows(config, 0)
    assert len(rows) == 16_407
    counts = Counter(r["question_type"] for r in rows)
    assert (len(counts), counts["information"], counts["support groups"]) == (16, 4535, 1)
    assert render(rows[0], config)[0] == (
        "### Question:\nWhat is (are) Adult Acute Lymphoblastic Leukemia ?\n\n### Answer:\n"
    )
    config.sample = 15_000
    sample = load_rows(config, 0)
    assert len(sample) == 15_000
    drawn = Counter(r["question_type"] for r in sample)
    assert all(abs(drawn[label] - 15_000 * count / 16_407) < 1 for label, count in counts.items())


def test_medquad_without_answers_has_no_rows() -> None:
    path = shared("medquad/medquad_void.jsonl.gz")
    fails(from_yaml("medquad", path=path), "line 1: no column 'answer' (asked for by data.response)")


def test_dolly() -> None:
    config = from_yaml("dolly", path=shared("dolly15k/dolly15k.jsonl.gz"))
    rows = load_rows(config, 0)
    assert len(rows) == 15_011
    assert len(set(column_values(rows, "category", "data.label"))) == 8
    without = [r for r in rows if not r["context"].strip()]
    assert len(without) == 10_544
    assert all(render(r, config)[0] == f"### Instruction:\n{r['instruction']}\n\n### Response:\n" for r in without)


def test_a_validation_set_of_its_own(tmp_path: Path) -> None:
    train, other = write(tmp_path / "train.jsonl", [row(0)]), write(tmp_path / "dev.jsonl", [{**row(1), "label": None}])
    config = DataConfig(path=train, validation_path=other)
    assert [r["prompt"] for r in load_validation_rows(config)] == ["p1"], "the partition's label is not looked at"
    assert load_validation_rows(DataConfig(path=train, hub_validation_split="dev")) == []
    for key, change in {"trained on": {"path": other}, "tested on": {"test_path": other}}.items():
        with pytest.raises(UserError, match=rf"data\.validation_path=.*dev\.jsonl: the rows that are {key}; give"):
            load_validation_rows(replace(config, **change))


@pytest.mark.usefixtures("hub_cache")
def test_a_validation_split_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for i, split in enumerate(("train", "validation", "test")):
        write(tmp_path / "set" / f"{split}.jsonl", [row(i)])
    config = DataConfig(source="hub", hub_id=str(tmp_path / "set"), hub_validation_split="validation")
    assert load_validation_rows(config) == [row(1)]
    with pytest.raises(UserError, match=r"data\.hub_validation_split=validation: the rows that are tested on"):
        load_validation_rows(replace(config, hub_test_split="validation"))
    with pytest.raises(UserError, match=r"data\.hub_validation_split=train: the rows that are trained on"):
        load_validation_rows(replace(config, hub_validation_split="train"))


def write_configurations(folder: Path, names: dict[str, list[Any]]) -> None:
    folder.mkdir()
    lines = ["---", "configs:"]
    for name, rows in names.items():
        write(folder / f"{name}.jsonl", rows)
        lines += [f"- config_name: {name}", "  data_files:", f"  - {{split: train, path: {name}.jsonl}}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


@pytest.mark.usefixtures("hub_cache")
def test_configurations_of_the_hub_are_clients(tmp_path: Path) -> None:
    write_configurations(tmp_path / "set", {"fr": [row(0), row(1)], "de": [row(2)], "en": [row(3)]})
    config = DataConfig(source="hub", hub_id=str(tmp_path / "set"), hub_config=["fr", "de"])
    read = read_data(config)
    assert (read.rows, read.files) == ([row(0), row(1), row(2)], ("fr", "fr", "de"))
    assert read_data(replace(config, hub_config="fr")).files == ()
    fails(replace(config, hub_config=["fr", "fr"]), "data.hub_config=['fr', 'fr']: names fr twice")
    fails(replace(config, hub_config=[]), "data.hub_config=[]: names none")


@pytest.mark.usefixtures("hub_cache")
def test_classes_of_the_hub_keep_their_names_and_their_order(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["spam", "ham", "never"]
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=names))
    (tmp_path / "set").mkdir()
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    data.to_parquet(tmp_path / "set" / "train.parquet")
    on_hub = DataConfig(source="hub", hub_id=str(tmp_path / "set"), task="sequence_classification")
    for config in (on_hub, DataConfig(path=str(tmp_path / "set"), task="sequence_classification")):
        read = read_data(config)
        assert [row["label"] for row in read.rows] == ["ham", "spam"]
        found = task_spec(config.task).class_names(read.rows, config)
        assert read.in_order(found) == ("spam", "ham"), "by their numbers, as before they had names"
        assert read.in_order(("x", "spam")) == ("x", "spam")
        given_names = replace(config, classes=["no", "yes", "maybe"])
        assert [row["label"] for row in read_data(given_names).rows] == [1, 0]


def test_rows_of_which_nothing_is_left_are_told_by_what_they_lack(tmp_path: Path) -> None:
    path = write(tmp_path / "chats.jsonl", [{"messages": [{"role": "user", "content": "hi"}]}])
    chats = DataConfig(path=path, messages="messages", drop_empty=True, label=None)
    fails(chats, "all 1 rows have an empty 'messages'", "check data.messages")
    path = write(tmp_path / "texts.jsonl", [{"text": " "}])
    fails(DataConfig(path=path, text="text", drop_empty=True, label=None), "an empty 'text'", "check data.text")
