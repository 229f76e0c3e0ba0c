"""The validation rows of a run: a part of the clients', a file of nobody's, or rows from Python; leaks are told."""

import json
from pathlib import Path
from typing import Any

import pytest

import fedlit
from fedlit.config import load_config, to_yaml
from fedlit.data.own_rows import own_rows
from fedlit.inputs import Inputs, gather_inputs

TRAIN = [{"prompt": f"question {i}", "response": f"answer {i}"} for i in range(40)]
TEST = [{"prompt": f"asked {i}", "response": "yes"} for i in range(6)]
VALIDATION = [{"prompt": f"tried {i}", "response": "no"} for i in range(5)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def of_files(folder: Path, *words: str, validation: Any = VALIDATION, test: Any = TEST) -> Inputs:
    """Gather inputs of files; a set that is None has none."""
    paths = [f"data.path={write(folder / 'train.jsonl', TRAIN)}", f"run.dir={folder / 'runs'}"]
    for name, rows in (("test", test), ("validation", validation)):
        paths += [f"data.{name}_path={write(folder / f'{name}.jsonl', rows)}"] if rows else []
    plain = ["data=jsonl", "data.label=null", "partition.min_test_rows=2", "num_clients=2", "logging.wandb=disabled"]
    return gather_inputs(load_config([*plain, *paths, *words]))


def given(rows: Any, *words: str, test: Any = None, validation: Any = None) -> Inputs:
    """Gather inputs of rows from Python."""
    plain = ["data=jsonl", "data.label=null", "data.source=memory", "partition.min_test_rows=2", "num_clients=2"]
    others = [
        None if found is None else own_rows(found, name)
        for name, found in (("test_rows", test), ("validation_rows", validation))
    ]
    return gather_inputs(load_config([*plain, *words]), own_rows(rows, "rows"), *others)


def test_a_validation_set_of_nobody_leaves_the_clients_alone(tmp_path: Path) -> None:
    plain, inputs = of_files(tmp_path, validation=None), of_files(tmp_path)
    assert inputs.shards == plain.shards
    assert [row["prompt"] for row in inputs.validation_rows] == [row["prompt"] for row in VALIDATION]
    assert ([*plain.validation_rows], inputs.notices) == ([], ())
    before, after = plain.partition_record(), inputs.partition_record()
    assert len(after.pop("validation_rows_sha256")) == 64
    assert before == after


@pytest.mark.parametrize("test", [None, TEST])
def test_parts_of_the_clients_are_the_validation_set(tmp_path: Path, test: Any) -> None:
    plain = of_files(tmp_path, validation=None, test=test)
    inputs = of_files(tmp_path, "partition.validation_fraction=0.1", validation=None, test=test)
    assert [shard.test for shard in inputs.shards] == [shard.test for shard in plain.shards]
    assert [*inputs.test_rows] == [*plain.test_rows]
    assert [len(shard.validation) for shard in inputs.shards] == [2, 2]
    assert len(inputs.validation_rows) == 4


def test_leaks_are_told(tmp_path: Path) -> None:
    name = f"data.validation_path={tmp_path / 'validation.jsonl'}"
    trained = of_files(tmp_path, validation=[*VALIDATION, TRAIN[0]])
    assert trained.notices == (f"{name}: 1 of its 6 rows are training rows too",)
    tested = of_files(tmp_path, validation=[*VALIDATION, *TEST[:2]])
    assert tested.notices == (f"{name}: 2 of its 7 rows are test rows too",)
    with pytest.raises(
        fedlit.UserError, match=r"all of its 2 rows are test rows too; give other rows, or eval\.choose"
    ):
        of_files(tmp_path, validation=TEST[:2])
    with pytest.raises(fedlit.UserError, match=r"all of its 2 rows are training rows too"):
        of_files(tmp_path, validation=TRAIN[:2])
    leaky = [*TEST, *TRAIN[:30]]
    inputs = of_files(tmp_path, "partition.validation_fraction=0.2", validation=None, test=leaky)
    common = {row["prompt"] for row in inputs.validation_rows} & {row["prompt"] for row in leaky}
    assert common
    assert inputs.notices[1:] == (f"partition.validation_fraction: {len(common)} of its 8 rows are test rows too",)


def test_other_validation_rows_are_another_run(tmp_path: Path) -> None:
    inputs = of_files(tmp_path, "run.name=one")
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(inputs.config))
    (folder / "partition.json").write_text(json.dumps(inputs.partition_record()))
    of_files(tmp_path, "run.name=one")
    with pytest.raises(fedlit.UserError, match=r"began with other validation rows, or none, than"):
        of_files(tmp_path, "run.name=one", validation=VALIDATION[:4])
    with pytest.raises(fedlit.UserError, match=r"eval\.choose_on: validation in the folder, no validation set asked"):
        of_files(tmp_path, "run.name=one", validation=None)


def test_a_choice_is_refused_where_the_rows_bring_no_validation_set(tmp_path: Path) -> None:
    inputs = of_files(tmp_path, test=None, validation=None)
    path = tmp_path / "partition.json"
    path.write_text(json.dumps(inputs.partition_record()))
    words = ("partition.name=file", f"partition.path={path}", "run.result=best")
    with pytest.raises(fedlit.UserError, match=r"^run\.result=best chooses a round, and there is no validation set"):
        of_files(tmp_path, *words, test=None, validation=None)
    with pytest.raises(fedlit.UserError, match=r"^run\.result=best .* or validation_rows=, or eval\.choose_on=test"):
        given(TRAIN, "run.result=best")
    given(TRAIN, "run.result=best", validation=VALIDATION)
    having = of_files(tmp_path, "partition.validation_fraction=0.1", test=None, validation=None)
    path.write_text(json.dumps(having.partition_record()))
    assert of_files(tmp_path, *words, test=None, validation=None).shards == having.shards
    with pytest.raises(fedlit.UserError, match=r"^partition\.path: the clients of that run have validation parts"):
        of_files(tmp_path, *words, test=None)


PARTS = {"north": TRAIN[:20], "south": TRAIN[20:]}
EACH = ("partition.name=given",)


@pytest.mark.parametrize("test", [None, TEST, {"north": TEST[:3], "south": TEST[3:]}])
@pytest.mark.parametrize("validation", [None, VALIDATION, {"north": VALIDATION[:2], "south": VALIDATION[2:]}])
def test_rows_of_each_client_have_their_sets_in_any_form(test: Any, validation: Any) -> None:
    inputs = given(PARTS, *EACH, test=test, validation=validation)
    assert inputs.client_names == ("north", "south")
    prompts = {row["prompt"] for row in inputs.validation_rows}
    assert prompts == ({row["prompt"] for row in VALIDATION} if validation else set())
    own = isinstance(validation, dict)
    assert [len(shard.validation) for shard in inputs.shards] == ([2, 3] if own else [0, 0])
    trained = {inputs.rows[i]["prompt"] for shard in inputs.shards for i in shard.train}
    assert trained | {row["prompt"] for row in inputs.test_rows} >= {row["prompt"] for row in TRAIN}
    assert not trained & prompts
    assert ("validation_rows_sha256" in inputs.partition_record()) == isinstance(validation, list)


def test_given_rows_may_be_split_too() -> None:
    inputs = given(PARTS, *EACH, "partition.validation_fraction=0.1", test={"north": TEST[:3], "south": TEST[3:]})
    assert [len(shard.validation) for shard in inputs.shards] == [3, 3]
    assert [len(shard.test) for shard in inputs.shards] == [3, 3]


@pytest.mark.parametrize(
    ("rows", "validation", "words", "message"),
    [
        (
            TRAIN,
            VALIDATION,
            ("partition.validation_fraction=0.1",),
            r"^validation_rows= is given beside partition\.val",
        ),
        (TRAIN, [VALIDATION, VALIDATION], (), r"^validation_rows= is for each client, and rows= is one list"),
        (PARTS, [VALIDATION, VALIDATION], EACH, r"^validation_rows= has 2 clients and rows= has 2.*other names"),
        (TRAIN, [{"prompt": "a"}], (), r"^validation_rows, row 0: no column 'response'"),
        (TRAIN, TRAIN[:30], (), r"^validation_rows=: all of its 30 rows are training or test rows too"),
    ],
)
def test_a_mistake_in_given_rows_is_one_line(rows: Any, validation: Any, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(fedlit.UserError, match=message) as caught:
        given(rows, *words, validation=validation)
    assert "\n" not in str(caught.value)


def test_a_run_with_given_validation_rows_chooses_on_them(tmp_path: Path) -> None:
    settings = {
        **{"method": "fedit", "num_rounds": 2, "num_clients": 2, "local.steps": 1, "local.batch_size": 2},
        **{"eval.protocol": "teacher_forced", "logging.wandb": "disabled", "run.dir": str(tmp_path)},
        **{"run.result": "best", "partition.min_test_rows": 2},
    }
    result = fedlit.run(settings, rows=TRAIN, test_rows=TEST, validation_rows=VALIDATION)
    assert result.chosen_on == "validation"
    assert result.best is not None
    assert result.best["round"] == result.server.round_idx
    assert {"validation/loss", "global/loss"} <= result.best.keys()
    status = json.loads((result.folder / "status.json").read_text())
    assert (status["chosen_round"], status["chosen_on"]) == (result.best["round"], "validation")
    again = fedlit.run(settings, rows=TRAIN, test_rows=TEST, validation_rows=VALIDATION)
    assert again.records == result.records
    with pytest.raises(
        fedlit.UserError, match=r"eval\.choose_on: validation in the folder, test asked for\); give eval"
    ):
        fedlit.run({**settings, "eval.choose_on": "test"}, rows=TRAIN, test_rows=TEST, validation_rows=VALIDATION)
    with pytest.raises(fedlit.UserError, match=r"validation_rows= is given without rows="):
        fedlit.run(settings, validation_rows=VALIDATION)
