"""A round is chosen on the validation set, whose test scores are in its record, and it is the one that is exported."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from safetensors.torch import load_file
from tiny_federations import assert_equal, results

from fedlit import assembly, planning
from fedlit.config import load_config
from fedlit.data.own_rows import own_rows
from fedlit.inputs import gather_inputs
from fedlit.round.loop import Federation

SMALL = (
    *("data=jsonl", "data.source=memory", "data.label=null", "model=tiny", "method=fedit", "num_clients=2"),
    *("num_rounds=4", "local.steps=3", "local.batch_size=4", "local.lr=0.02", "partition.min_test_rows=2"),
    *("eval.protocol=teacher_forced", "eval.score=loss", "logging.wandb=disabled", "run.keep_checkpoints=1"),
    "analysis=[]",
)
ALIKE, OTHER = "the list of values", "Zq#9 !!xw 7%~"
"""What is trained on and what is not: the loss on the one falls with every round, that on the other rises."""


def rows(response: str, num: int, name: str) -> list[dict[str, Any]]:
    return [{"prompt": f"{name} {number}", "response": response} for number in range(num)]


def federation(folder: Path, name: str, *words: str, validation: str | None = OTHER, test: str = ALIKE) -> Federation:
    """Return a federation in the run folder `name`, resumed if it has a checkpoint."""
    given = {word.split("=")[0] for word in words}
    defaults = [word for word in SMALL if word.split("=")[0] not in given]
    config = load_config([*defaults, *words, f"run.dir={folder}", f"run.name={name}"])
    train = rows(ALIKE, 24, "train")
    chosen = None if validation is None else own_rows(rows(validation, 4, "validation"), "validation_rows")
    inputs = gather_inputs(config, own_rows(train, "rows"), own_rows(rows(test, 4, "test"), "test_rows"), chosen)
    built, _ = assembly.assemble(planning.make_plan(inputs), Fabric(accelerator="cpu", devices=1))
    built.folder.prepare(inputs.partition_record(), "cpu")
    built.resume()
    return built


def records(built: Federation) -> list[dict[str, Any]]:
    """Return the records without what a clock says."""
    return [
        {key: value for key, value in record.items() if not key.startswith("time/")}
        for record in built.folder.records()
    ]


def scored(built: Federation, key: str) -> dict[int, float]:
    return {record["round"]: record[key] for record in records(built) if key in record}


@torch.no_grad()
def loss_of_the_exported(built: Federation, folder: Path) -> float:
    """Return the test loss of the adapter that lies in the run folder, in a model that nothing else has trained."""
    fresh = federation(folder, "fresh")
    names = {name.replace(".default", ""): parameter for name, parameter in fresh.host.model.named_parameters()}
    exported = load_file(built.folder.adapter / "adapter_model.safetensors")
    assert exported
    for name, tensor in exported.items():
        names[name.removeprefix("base_model.model.")].copy_(tensor)
    return float(fresh.evaluator.together()[0]["loss"])


def test_the_round_that_validation_chose_is_exported(tmp_path: Path) -> None:
    built = federation(tmp_path, "chosen", "run.result=best")
    built.run()
    built.export()
    on_validation = scored(built, "validation/loss")
    assert list(on_validation) == [0, 1, 2, 3, 4]
    assert min((1, 2, 3, 4), key=on_validation.__getitem__) == 1 == built.best.number
    on_test = scored(built, "global/loss")
    assert list(on_test) == [0, 1, 4]  # before training, the best, the last
    assert on_test[4] < on_test[1], "the test set would have chosen the last round"
    assert built.server.round_idx == 1
    assert loss_of_the_exported(built, tmp_path) == pytest.approx(on_test[1], abs=1e-6)
    assert on_test[1] - on_test[4] > 1e-3


def test_the_test_set_chooses_by_name_alone(tmp_path: Path) -> None:
    built = federation(tmp_path, "by-test", "run.result=best", "eval.choose_on=test")
    built.run()
    built.export()
    assert list(scored(built, "global/loss")) == [0, 1, 2, 3, 4]  # whatever chooses has to be scored
    assert (built.best.number, built.best.key, built.server.round_idx) == (4, "global/loss", 4)


def test_every_evaluation_may_score_the_test_set_and_chooses_alike(tmp_path: Path) -> None:
    chosen, every = (federation(tmp_path, test, f"eval.test={test}") for test in ("chosen", "every"))
    for built in (chosen, every):
        built.run()
    assert list(scored(every, "global/loss")) == [0, 1, 2, 3, 4]
    assert scored(chosen, "global/loss").items() <= scored(every, "global/loss").items()
    assert scored(chosen, "validation/loss") == scored(every, "validation/loss")
    assert (chosen.best.number, chosen.best.value) == (every.best.number, every.best.value)
    assert_equal(results(chosen), results(every))


def test_a_validation_set_changes_no_bit_of_training_and_testing(tmp_path: Path) -> None:
    words = ("eval.max_examples=2", "eval.test=every")
    without, having = federation(tmp_path, "without", words[0], validation=None), federation(tmp_path, "with", *words)
    for built in (without, having):
        built.run()
    assert scored(without, "global/loss") == scored(having, "global/loss")
    assert_equal(results(without), results(having))


RESUMED_ON_PUSH = [("fedit", "global", 0), ("fedsa_lora", "clients", 1), ("fedit", "clients", 2)]
RESUMED = [*product(("fedit", "fedsa_lora"), ("global", "clients"), (0, 1, 2))]


@pytest.mark.parametrize(
    ("method", "on", "stop_after"),
    [case if case in RESUMED_ON_PUSH else pytest.param(*case, marks=pytest.mark.slow) for case in RESUMED],
)
def test_a_resumed_run_has_the_records_of_the_whole_one(method: str, on: str, stop_after: int, tmp_path: Path) -> None:
    words = (f"method={method}", "data.sample=20", "eval.patience=2", "run.result=best", f"eval.on={on}")
    if on == "clients":
        words = (*words, "partition.validation_fraction=0.2")
    validation = OTHER if on == "global" else None
    whole = federation(tmp_path, "whole", *words, validation=validation)
    whole.run()
    first = federation(tmp_path, "halves", *words, validation=validation)

    class Killed(Exception):
        pass

    def die(event: Any, *_: Any) -> None:
        if [record["round"] for record in first.folder.records()[-1:]] == [stop_after]:
            raise Killed

    object.__setattr__(first, "tell", die)
    with pytest.raises(Killed):
        first.run()
    second = federation(tmp_path, "halves", *words, validation=validation)
    assert second.server.round_idx == stop_after
    second.run()
    for built in (whole, second):
        built.export()
    assert json.dumps(records(second)) == json.dumps(records(whole))
    assert_equal(results(second), results(whole))
    if on == "global":
        losses = scored(whole, "validation/loss")
        bests = [number for number in losses if number and losses[number] == min(list(losses.values())[1 : number + 1])]
        assert list(scored(whole, "global/loss")) == sorted({0, *bests, max(losses)})
        assert method != "fedit" or len(scored(whole, "global/loss")) < len(losses)
    else:
        assert "validation/loss_std" in records(whole)[0]
        assert "client/1/validation/loss" in records(whole)[0]
        assert "own/loss" in records(whole)[-1]


def test_models_of_their_own_are_scored_on_the_common_validation_set(tmp_path: Path) -> None:
    built = federation(tmp_path, "own", "method=local_only", "num_rounds=1")
    built.run()
    last = records(built)[-1]
    losses = [last[f"client/{client}/validation/loss"] for client in (0, 1)]
    assert last["validation/loss"] == pytest.approx(sum(losses) / 2)
    assert last["validation/loss_std"] > 0


def test_the_validation_subset_has_a_stream_of_its_own(tmp_path: Path) -> None:
    """Of equal sizes, other rows are drawn for validation than for testing."""
    built = federation(tmp_path, "subset", "eval.max_examples=2")
    assert built.validator is not None
    of_test, of_validation = (
        sorted(example.prompt.split()[-1] for batch in evaluator.batches for example in batch)
        for evaluator in (built.evaluator, built.validator)
    )
    assert len(of_test) == len(of_validation) == 2
    assert of_test != of_validation
