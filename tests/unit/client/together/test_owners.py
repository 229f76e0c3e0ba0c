"""Whose the rows of a forward pass are, in whatever form a layer sees them."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedlit.client.together.owners import Owners
from fedlit.client.together.possible import _draws
from fedlit.config import RunConfig
from fedlit.errors import DivergenceError, UserError
from fedlit.round.client_models import split_metrics

TRAINING = Owners(slots=(0, 2), rows=(2, 1), widths=(3, 5), labels=(4, 2))


def test_rows_tokens_and_labels_have_their_owners() -> None:
    assert TRAINING.along(torch.zeros(3, 5, 8)) == (0, (2, 1))
    assert TRAINING.along(torch.zeros(3, 8)) == (0, (2, 1))
    assert TRAINING.along(torch.zeros(1, 6, 8)) == (1, (4, 2))
    assert TRAINING.along(torch.zeros(15, 8)) == (0, (10, 5)), "some models put all tokens in one line"
    assert Owners(slots=(1,), rows=(2,)).along(torch.zeros(1, 7, 8)) == (0, (1,))
    with pytest.raises(UserError, match=r"sees \(7, 8\), which is not 2 clients' rows"):
        TRAINING.along(torch.zeros(7, 8))


def test_a_part_is_without_the_padding_for_others() -> None:
    parts = {slot: part.shape for slot, part in TRAINING.parts(torch.zeros(3, 5, 8))}
    assert parts == {0: (2, 3, 8), 2: (1, 5, 8)}


def test_rows_that_leave_are_taken_from_their_clients() -> None:
    evaluation = Owners(slots=(0, 1, 2))
    left = evaluation.after([0, 3, 4], num_before=6)
    assert (left.slots, left.rows) == ((0, 1, 2), (1, 1, 1))
    fewer = left.after([1, 2], num_before=3)
    assert (fewer.slots, fewer.rows) == ((1, 2), (1, 1))


@pytest.mark.parametrize("name", ["attention_dropout", "drop_prob", "layerdrop", "router_jitter_noise"])
def test_what_draws_for_a_whole_batch_is_found(name: str) -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2))
    assert not list(_draws(RunConfig(), model))
    setattr(model[0], name, 0.1)
    assert list(_draws(RunConfig(), model))


class Summing:
    """A metric that refuses values above 1."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def update(self, values: Tensor, _names: list[str]) -> None:
        if float(values.max()) > 1:
            raise DivergenceError(what="the loss", value=float(values.max()))
        self.seen += values.tolist()


def test_a_metric_s_values_are_divided_and_a_fault_names_its_client() -> None:
    by_client: Any = {3: {"loss": Summing()}, 7: {"loss": Summing()}}
    shared = split_metrics(by_client)
    shared["loss"].update(torch.tensor([0.1, 0.2, 0.3, 0.4]), ["a", "b", "c", "d"])
    assert [len(by_client[client]["loss"].seen) for client in (3, 7)] == [2, 2]
    with pytest.raises(DivergenceError) as caught:
        shared["loss"].update(torch.tensor([0.1, 5.0]), ["a", "b"])
    assert caught.value.client_id == 7
    with pytest.raises(UserError, match="no values of single examples"):
        shared["loss"].update(torch.tensor(1.0), ["a", "b"])
    with pytest.raises(UserError, match="SimpleNamespace"):
        shared["loss"].update(SimpleNamespace(), ["a", "b"])
