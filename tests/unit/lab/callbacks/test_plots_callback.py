"""Every run has its pictures: who holds what, with or without labels, curves by task, and a confusion matrix."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fedlit.config.schema import DataConfig, PartitionConfig, RunConfig
from fedlit.data.prompts import Row
from fedlit.lab.callbacks import RunSummary
from fedlit.lab.callbacks.plots import RunPlots, confusion_matrix
from fedlit.partition.shards import make_shards, partition_record

Record = dict[str, Any]
Calls = dict[str, tuple[tuple[Any, ...], dict[str, Any]]]
ROWS: list[Row] = [{"prompt": f"p{i}", "response": "r", "label": "ab"[i % 2]} for i in range(60)]
MATRIX = [[5, 1], [2, 4]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Collect what the pictures are drawn of, by the name of the file."""
    found: Calls = {}

    def record(*args: Any, **kwargs: Any) -> None:
        (path,) = [arg for arg in args if isinstance(arg, Path)]
        found[path.name] = (tuple(arg for arg in args if arg != path), kwargs)

    monkeypatch.setattr("fedlit.lab.analysis.labels.plot_label_distribution", record)
    monkeypatch.setattr("fedlit.lab.analysis.curves.plot_curves", record)
    monkeypatch.setattr("fedlit.lab.analysis.confusion.plot_confusion", record)
    return found


def start(
    folder: Path,
    data: DataConfig,
    partition: PartitionConfig,
    records: list[Record] | None = None,
    classes: tuple[str, ...] = (),
) -> RunPlots:
    run = folder / "scl-x-seed0"
    run.mkdir(exist_ok=True)
    shards = make_shards(ROWS, data, partition, 2, 0)
    (run / "partition.json").write_text(json.dumps(partition_record(ROWS, shards, data)))
    plots = RunPlots(run / "plots")
    summary = SimpleNamespace(config=RunConfig(data=data), folder=run, classes=classes, client_names=())
    plots.on_start(cast("RunSummary", summary), records or [], [])
    return plots


def test_labels_of_each_client_and_how_unlike_they_are(tmp_path: Path, calls: Calls) -> None:
    start(tmp_path, DataConfig(), PartitionConfig(name="natural", min_test_rows=3))
    (counts,), kwargs = calls["label_distribution.png"]
    assert counts == [{"a": 30}, {"b": 30}]
    assert kwargs["title"] == "scl-x-seed0: label of each client's rows (mean Jensen-Shannon divergence 0.31)"


def test_sizes_where_there_are_no_labels(tmp_path: Path, calls: Calls) -> None:
    start(tmp_path, DataConfig(label=None), PartitionConfig(name="quantity", alpha=1e-9, min_test_rows=3))
    (counts,), kwargs = calls["label_distribution.png"]
    assert sorted(bar["training"] for bar in counts) == [1, 53]
    assert [bar["test"] for bar in counts] == [3, 3]
    assert kwargs["title"] == "scl-x-seed0: rows of each client (coefficient of variation of sizes 0.87)"


def test_curves_have_the_scores_of_the_data_set(tmp_path: Path, calls: Calls) -> None:
    partition = PartitionConfig(name="iid")
    cases: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({}, ("rouge_l", "bleu_4")),
        ({"scores": ["exact_match"]}, ("exact_match",)),
        ({"task": "sequence_classification", "text": ["prompt"]}, ("accuracy", "f1_macro")),
        ({"task": "sequence_classification", "text": ["prompt"], "regression": True}, ("pearson", "spearman")),
    ]
    for options, scores in cases:
        plots = start(tmp_path, DataConfig(**options), partition, [{"round": 0, "own/loss": 2.0}])
        plots.on_round_end({"round": 1}, [])
        plots.close()
        (records,), kwargs = calls.pop("curves.png")
        assert records == [{"round": 0, "own/loss": 2.0}, {"round": 1}]
        assert tuple(kwargs["scores"]) == scores
        assert kwargs["title"] == "scl-x-seed0"
    assert "confusion_matrix.png" not in calls


def test_nothing_is_drawn_of_a_run_that_never_began(tmp_path: Path, calls: Calls) -> None:
    RunPlots(tmp_path).close()
    start(tmp_path, DataConfig(), PartitionConfig(name="iid"), [{"round": 0}]).close()
    assert set(calls) == {"label_distribution.png"}


def test_the_last_confusion_matrix_is_drawn(tmp_path: Path, calls: Calls) -> None:
    """With the names of the classes, also of those that were collected from the rows."""
    data = DataConfig(task="sequence_classification", text=["prompt"])
    first = {"round": 0, "global/confusion_matrix": [[0, 0], [9, 9]]}
    plots = start(tmp_path, data, PartitionConfig(name="iid"), [first], classes=("x", "y"))
    plots.on_round_end({"round": 2, "global/confusion_matrix": MATRIX}, [])
    plots.on_round_end({"round": 3}, [])
    plots.close()
    assert calls["confusion_matrix.png"] == ((MATRIX, ("x", "y"), "scl-x-seed0: round 2, global model"), {})


def test_matrices_of_clients_are_added_up() -> None:
    own = {f"client/{i}/own/confusion_matrix": MATRIX for i in range(3)}
    assert confusion_matrix(own) == ([[15, 3], [6, 12]], "sum over 3 clients on their own test rows")
    on_global = {"client/0/confusion_matrix": MATRIX, "client/11/confusion_matrix": [[0, 1], [0, 0]]}
    assert confusion_matrix(on_global | own) == ([[5, 2], [2, 4]], "sum over 2 clients on the global test set")
    assert confusion_matrix(own | {"global/confusion_matrix": MATRIX}) == (MATRIX, "global model")
    assert confusion_matrix({"round": 3}) == (None, "")


def test_real_pictures_are_written(tmp_path: Path) -> None:
    record = {"round": 0, "global/loss": 2.0, "global/confusion_matrix": MATRIX}
    start(tmp_path, DataConfig(), PartitionConfig(name="iid"), [record]).close()
    names = {path.name for path in (tmp_path / "scl-x-seed0" / "plots").iterdir()}
    assert names == {"label_distribution.png", "curves.png", "confusion_matrix.png"}


def test_pictures_name_the_clients(tmp_path: Path, calls: Calls) -> None:
    plots = start(
        tmp_path, DataConfig(), PartitionConfig(name="natural", min_test_rows=3), [{"round": 0, "global/loss": 2.0}]
    )
    plots.close()
    assert [calls[name][1]["names"] for name in ("label_distribution.png", "curves.png")] == [("a", "b")] * 2
