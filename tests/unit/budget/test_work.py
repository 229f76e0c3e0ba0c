"""The work of whole runs: it grows with rounds, steps, rows and models as it should."""

import pytest

from fedlit.budget.dry_runs import DryRuns
from fedlit.budget.work import Work, share
from fedlit.config import RunConfig, load_config

SMALL = (
    "data=pydoc",
    "num_clients=3",
    "num_rounds=4",
    "local.steps=3",
    "eval.max_examples=12",
    "eval.max_new_tokens=8",
)
RUNS = DryRuns()


def config_of(*options: str) -> RunConfig:
    """Return the small run's configuration, in which an option given twice is the last."""
    return load_config([*{word.partition("=")[0]: word for word in (*SMALL, *options)}.values()])


def work(*options: str) -> Work:
    return RUNS.of(config_of(*options)).work


def test_steps_and_rounds_multiply_training() -> None:
    once, twice = work("method=fedit"), work("method=fedit", "local.steps=6")
    assert once.num_steps == 4 * 3 * 3
    assert twice.num_steps == 2 * once.num_steps
    assert twice.train.flops == pytest.approx(2 * once.train.flops)
    assert twice.train.operations == pytest.approx(2 * once.train.operations)
    assert twice.evaluate == once.evaluate
    rounds = work("method=fedit", "num_rounds=8")
    assert rounds.train.flops == pytest.approx(2 * once.train.flops)
    assert rounds.evaluate.flops == pytest.approx(9 / 5 * once.evaluate.flops), "the untrained model is scored once"


def test_a_larger_batch_is_wider_and_one_of_several_is_another_pass() -> None:
    one, more = (
        work("method=fedit", "local.batch_size=4"),
        work("method=fedit", "local.batch_size=4", "local.accumulate=2"),
    )
    assert more.train.flops == pytest.approx(2 * one.train.flops)
    assert more.num_steps == one.num_steps
    larger = work("method=fedit", "local.batch_size=16")
    assert larger.train.operations == pytest.approx(one.train.operations)
    assert 3 < larger.train.flops / one.train.flops < 6, "four times the rows, of other widths"


def test_epochs_are_steps_of_the_clients_rows() -> None:
    config = config_of("local.steps=null", "local.epochs=2")
    sizes = [shard.num_examples for shard in RUNS._inputs_of(config).shards]
    expected = 4 * sum(2 * -(-size // config.local.batch_size) for size in sizes)
    assert RUNS.of(config).work.num_steps == expected


def test_clients_models_are_scored_one_by_one() -> None:
    """Before the first round all are one model: 1 + 4 x 3 in place of 1 + 4."""
    shared, private = work("method=fedit"), work("method=fedsa_lora")
    assert private.evaluate.flops / shared.evaluate.flops == pytest.approx(13 / 5)
    assert private.evaluate_units == 3


def test_everybody_s_rows_in_one_place_are_as_many_steps() -> None:
    pooled, apart = work("method=centralized"), work("method=fedit")
    assert pooled.num_steps == apart.num_steps
    assert pooled.train_units == 1
    assert pooled.train.flops == pytest.approx(apart.train.flops, rel=0.2), "of other rows"


def test_what_is_generated_counts_to_its_longest() -> None:
    short, long, longest = (work("method=fedit", f"eval.max_new_tokens={number}") for number in (8, 40, 72))
    assert long.evaluate.flops > short.evaluate.flops
    assert longest.evaluate.flops - long.evaluate.flops == pytest.approx(long.evaluate.flops - short.evaluate.flops)
    forced = work("method=fedit", "eval.protocol=teacher_forced")
    assert forced.evaluate.flops < short.evaluate.flops


def test_a_weight_that_is_frozen_has_no_gradient() -> None:
    assert work("method=ffa_lora").train.flops < work("method=fedit").train.flops < work("method=full").train.flops * 2


def test_images_are_counted_too() -> None:
    found = RUNS.of(load_config(["data=digits", "model=vit-small", "method=fedit", "num_clients=3", "num_rounds=1"]))
    assert found.work.train.flops > 0 < found.work.evaluate.flops
    assert found.storage.peak >= found.storage.stays > found.sizes.stored_bytes["result"]


@pytest.mark.parametrize(
    ("units", "processes", "part"), [(4, 1, 1.0), (4, 2, 0.5), (3, 2, 2 / 3), (1, 8, 1.0), (0, 2, 1)]
)
def test_processes_share_what_can_be_shared(units: int, processes: int, part: float) -> None:
    assert share(units, processes) == pytest.approx(part)
