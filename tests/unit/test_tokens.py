"""A client reports the tokens that it trained on: those of its rows, each time a row was in a step, without padding."""

from collections.abc import Callable
from typing import Any

import pytest

from fedlit.algebra.tensors import snapshot
from fedlit.client.trainer import ClientState, LocalTrainer
from fedlit.data.collation import training_order
from fedlit.methods import Method
from fedlit.round.server import Download
from fedlit.tasks.causal_lm import CausalLM
from fedlit.tasks.image_classification import ImageExample


def train(trainer: LocalTrainer, rows: list[Any], round_idx: int = 0) -> dict[str, float]:
    """Return what client 3 reports of a round."""
    method: Method = trainer.method
    download = Download(shared=snapshot(method.shared(trainer.module.model)))
    result = trainer.train(3, rows, download, ClientState(), round_idx, lambda: True)
    assert result is not None
    return result[0].metrics


@pytest.mark.parametrize("local", [{"steps": 5}, {"steps": None, "epochs": 2}, {"steps": 2, "accumulate": 2}])
def test_tokens_are_those_of_the_rows_of_every_step(
    make_trainer: Callable[..., LocalTrainer],
    make_task: Callable[..., CausalLM],
    rows: list[Any],
    local: dict[str, Any],
) -> None:
    trainer = make_trainer(**local)
    lengths = [len(example.token_ids) for example in make_task().encode(rows)]
    for round_idx in (0, 1):
        num_steps = trainer.num_steps(len(rows))
        order = training_order(
            len(rows), trainer.num_step_rows, trainer.seed, 3, skip=round_idx * num_steps, num_steps=num_steps
        )
        expected = sum(lengths[row] for step in order for row in step)
        found = train(trainer, rows, round_idx)["num_tokens"]
        assert found == expected
        assert isinstance(found, int)


def test_two_passes_are_twice_one(make_trainer: Callable[..., LocalTrainer], rows: list[Any]) -> None:
    once, twice = (train(make_trainer(steps=None, epochs=n), rows)["num_tokens"] for n in (1, 2))
    assert twice == 2 * once


def test_an_image_has_no_tokens() -> None:
    assert ImageExample(cell=None, target=0).num_tokens is None
