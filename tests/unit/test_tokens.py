"""A client reports the tokens that it trained on: those of its rows, each time a row was in a step, without padding."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from client_rounds import make_job, train_client

from fedlit.client.row_order import training_order
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.round.jobs import ClientState
from fedlit.tasks.causal_lm.task import CausalLM
from fedlit.tasks.image_classification.task import ImageExample


def train(trainer: SerialTrainer, rows: list[Any], round_idx: int = 0) -> Mapping[str, float]:
    """Return what client 3 reports of a round."""
    shared, _ = trainer.host.take()
    return train_client(trainer, make_job(trainer, 3, rows, shared, ClientState(), round_idx)).metrics


@pytest.mark.parametrize("local", [{"steps": 5}, {"steps": 2, "accumulate": 2}])
def test_tokens_are_those_of_the_rows_of_every_step(
    make_trainer: Callable[..., SerialTrainer],
    make_task: Callable[..., CausalLM],
    rows: list[Any],
    local: dict[str, Any],
) -> None:
    trainer = make_trainer(**local)
    lengths = [len(example.token_ids) for example in make_task().encode(rows)]
    for round_idx in (0, 1):
        num_steps = trainer.num_steps(len(rows))
        order = training_order(
            len(rows), trainer._num_step_rows, trainer.seed, 3, skip=round_idx * num_steps, num_steps=num_steps
        )
        expected = sum(lengths[row] for step in order for row in step)
        found = train(trainer, rows, round_idx)["num_tokens"]
        assert found == expected
        assert isinstance(found, int)


@pytest.mark.parametrize("size", [4, 5])
def test_an_epoch_trains_on_every_token_once(
    make_trainer: Callable[..., SerialTrainer], make_task: Callable[..., CausalLM], rows: list[Any], size: int
) -> None:
    """Also where the last batch is short."""
    every = sum(len(example.token_ids) for example in make_task().encode(rows))
    for epochs in (1, 2):
        trainer = make_trainer(steps=None, epochs=epochs, batch_size=size)
        assert [train(trainer, rows, round_idx)["num_tokens"] for round_idx in (0, 3)] == [epochs * every] * 2


def test_an_image_has_no_tokens() -> None:
    assert ImageExample(cell=None, target=0).num_tokens is None
