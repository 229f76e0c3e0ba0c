"""metrics.csv and TensorBoard's files hold the record, every round once, also after a kill; loggers go side by side."""

import csv
import io
import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import LAYERS, NUM_ROUNDS, MadeUpRun, record_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedlit.config import LoggingConfig, RunConfig
from fedlit.lab.analysis.costs import cumulative_costs
from fedlit.lab.callbacks import Callback, numbers
from fedlit.lab.callbacks.csv_log import CsvLog, to_csv
from fedlit.lab.callbacks.loggers import make_loggers
from fedlit.lab.callbacks.tensorboard_log import TensorBoardLog
from fedlit.lab.callbacks.wandb_run import WandbRun
from fedlit.tasks import Sample

MakeRun = Callable[..., MadeUpRun]
ALL_RECORDS = [record_of(number) for number in range(NUM_ROUNDS + 1)]


def chosen(run: MadeUpRun) -> list[Callback]:
    return make_loggers(run.config, run.folder)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return every curve as TensorBoard reads it."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize(
    ("names", "wandb", "kinds"),
    [
        (["wandb"], "offline", [WandbRun]),
        (["wandb", "csv"], "disabled", [CsvLog]),
        (["csv", "tensorboard", "csv", "wandb"], "auto", [CsvLog, TensorBoardLog, WandbRun]),
        ([], "auto", []),
    ],
)
def test_the_loggers_of_a_run(names: list[str], wandb: str, kinds: list[type[Callback]], tmp_path: Path) -> None:
    config = RunConfig(logging=LoggingConfig(loggers=names, wandb=wandb))
    assert [type(logger) for logger in make_loggers(config, tmp_path)] == kinds


def test_two_loggers_survive_kills_side_by_side(made_up: MakeRun) -> None:
    run = made_up(chosen, loggers=["csv", "tensorboard"])
    assert run.attempt(die_in=2, told=False) == -signal.SIGKILL
    assert run.attempt(die_in=4) == -signal.SIGKILL
    with (run.folder / "metrics.csv").open(newline="") as file:
        assert [row["round"] for row in csv.DictReader(file)] == ["0", "1", "2", "3", "4"]
    assert run.attempt() == 0
    assert (run.folder / "metrics.csv").read_text() == to_csv(ALL_RECORDS)
    curves = scalars(run.folder / "tensorboard")
    assert [step for step, _ in curves["global/loss"]] == list(range(NUM_ROUNDS + 1))
    assert [value for _, value in curves["global/loss"]] == [record["global/loss"] for record in ALL_RECORDS]
    assert curves["cost/tokens"] == [(number, 100.0 * number) for number in range(NUM_ROUNDS + 1)]
    expected = {key for i in range(NUM_ROUNDS + 1) for key in numbers(ALL_RECORDS[: i + 1], "causal_lm")}
    assert set(curves) == expected
    assert run.attempt() == 0  # a finished run, once more
    assert scalars(run.folder / "tensorboard") == curves


def test_an_earlier_event_file_that_stays_is_voided(made_up: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a run is killed before it removes the file, or while TensorBoard reads it."""
    monkeypatch.setattr(Path, "unlink", lambda self: None)
    run = made_up(chosen, loggers=["tensorboard"])

    class Dies(Exception):
        pass

    class DiesInRound3(Callback):
        def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
            if record["round"] == 3:
                raise Dies

    run.make_callbacks = lambda run: [*chosen(run), DiesInRound3()]
    with pytest.raises(Dies):
        run.run()
    first = next((run.folder / "tensorboard").iterdir())
    first.rename(first.with_name(first.name.replace("tfevents.", "tfevents.0")))  # of an earlier second
    run.make_callbacks = chosen
    run.run()
    assert len(list((run.folder / "tensorboard").iterdir())) == 2
    assert [step for step, _ in scalars(run.folder / "tensorboard")["round"]] == list(range(NUM_ROUNDS + 1))


def test_the_table_has_the_union_of_columns_and_empty_cells() -> None:
    records = [*ALL_RECORDS[:2], {**ALL_RECORDS[2], "global/confusion_matrix": [[1]], "late": 1e-9}]
    rows = list(csv.DictReader(io.StringIO(to_csv(records))))
    columns = list(rows[0])
    assert columns[0] == "round"
    assert "global/confusion_matrix" not in columns
    assert columns[-6:] == list(cumulative_costs(records)[-1])
    assert [row["late"] for row in rows] == ["", "", "1e-09"]
    assert [row[f"lora/deviation/{LAYERS[0]}"] for row in rows] == ["", "1e-06", "2e-06"]
    assert [float(row["cost/uploaded_mb"]) for row in rows] == [0, 1, 2]
    assert rows[1]["eval/protocol"] == "generate"
    assert to_csv([]) == "round\n"


def test_epsilon_is_a_cost_of_private_runs_alone() -> None:
    private = [ALL_RECORDS[0], *({**ALL_RECORDS[i], "privacy/epsilon": 1.0 + i} for i in (1, 2))]
    rows = list(csv.DictReader(io.StringIO(to_csv(private))))
    assert [row["cost/epsilon"] for row in rows] == ["0.0", "2.0", "3.0"]
    assert numbers(private, "causal_lm")["cost/epsilon"] == 3.0
    for records in (ALL_RECORDS[:1], ALL_RECORDS):
        assert "cost/epsilon" not in to_csv(records)
        assert "cost/epsilon" not in numbers(records, "causal_lm")


def test_values_survive_the_table() -> None:
    value = 0.1 + 0.2
    assert float(next(csv.DictReader(io.StringIO(to_csv([{"round": 0, "x": value}]))))["x"]) == value


def test_images_have_no_tokens() -> None:
    untrained = [record_of(0)]
    assert "cost/tokens" in numbers(untrained, "causal_lm")
    assert "cost/tokens" not in numbers(untrained, "image_classification")
    assert json.dumps(numbers(untrained, "causal_lm"), allow_nan=False)
