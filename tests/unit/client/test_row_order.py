"""A client walks through all its rows, pass after pass, from any point on; by epochs a round is whole passes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from fedlit.client.row_order import epoch_order, steps_of_epochs, training_order

ROWS = st.integers(1, 30)
SIZE = st.integers(1, 12)
SEED = st.integers(0, 2**40)


def walk(num_rows: int, size: int, seed: int, *, skip: int = 0, num_steps: int, client_id: int = 4) -> list[list[int]]:
    return list(training_order(num_rows, size, seed, client_id, skip=skip, num_steps=num_steps))


@given(ROWS, SIZE, SEED, st.integers(1, 4))
def test_the_walk_sees_every_row_once_in_a_pass(num_rows: int, size: int, seed: int, num_passes: int) -> None:
    batches = walk(num_rows, size, seed, num_steps=-(-num_rows * num_passes // min(size, num_rows)))
    assert all(len(batch) == min(size, num_rows) for batch in batches)
    flat = [row for batch in batches for row in batch]
    for start in range(0, num_passes * num_rows, num_rows):
        assert sorted(flat[start : start + num_rows]) == list(range(num_rows))


@given(ROWS, SIZE, SEED, st.lists(st.integers(0, 7), min_size=1, max_size=6))
def test_rounds_of_any_length_cut_the_same_walk(num_rows: int, size: int, seed: int, rounds: list[int]) -> None:
    whole = walk(num_rows, size, seed, num_steps=sum(rounds))
    pieces: list[list[int]] = []
    for num_steps in rounds:
        pieces += walk(num_rows, size, seed, skip=len(pieces), num_steps=num_steps)
    assert pieces == whole


@given(ROWS, SIZE, SEED)
def test_the_walk_is_pure(num_rows: int, size: int, seed: int) -> None:
    first = walk(num_rows, size, seed, num_steps=5)
    torch.manual_seed(0)
    walk(num_rows, size, seed, num_steps=3, client_id=5)
    assert walk(num_rows, size, seed, num_steps=5) == first
    assert all(type(row) is int for batch in first for row in batch)


def test_passes_clients_and_seeds_differ() -> None:
    walks = [
        walk(40, 40, 0, num_steps=1),
        walk(40, 40, 0, skip=1, num_steps=1),
        walk(40, 40, 0, num_steps=1, client_id=5),
        walk(40, 40, 1, num_steps=1),
    ]
    assert len({tuple(batches[0]) for batches in walks}) == 4
    assert all(batches[0] != list(range(40)) for batches in walks)


@pytest.mark.parametrize("num_rows", [1, 3])
def test_fewer_rows_than_the_batch(num_rows: int) -> None:
    for batch in walk(num_rows, 8, 0, num_steps=6):
        assert sorted(batch) == list(range(num_rows))


def passes(
    num_rows: int, size: int, seed: int, *, num_epochs: int = 1, round_idx: int = 0, client_id: int = 4
) -> list[list[int]]:
    return list(epoch_order(num_rows, size, seed, client_id, round_idx=round_idx, num_epochs=num_epochs))


@given(ROWS, st.integers(1, 40), SEED, st.integers(1, 4), st.integers(0, 5))
def test_epochs_are_those_of_a_loader(num_rows: int, size: int, seed: int, num_epochs: int, round_idx: int) -> None:
    """Every row once in each of them, as many batches as torch's DataLoader takes, and of the same lengths."""
    batches = passes(num_rows, size, seed, num_epochs=num_epochs, round_idx=round_idx)
    loader = DataLoader(range(num_rows), batch_size=size, shuffle=True, drop_last=False)  # type: ignore[arg-type]
    assert [len(batch) for batch in batches] == num_epochs * [len(batch) for batch in loader]
    assert len(batches) == num_epochs * len(loader) == steps_of_epochs(num_rows, size, num_epochs)
    flat = [row for batch in batches for row in batch]
    assert all(type(row) is int for row in flat)
    for epoch in range(num_epochs):
        assert sorted(flat[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3))
def test_accumulated_batches_of_an_epoch_are_those_of_a_loader(
    num_rows: int, size: int, accumulate: int, num_epochs: int
) -> None:
    """An optimizer step takes `accumulate` batches; the one in which an epoch ends takes what is left of it."""
    steps = passes(num_rows, size * accumulate, 0, num_epochs=num_epochs)
    batches = [len(step[start : start + size]) for step in steps for start in range(0, len(step), size)]
    loader = DataLoader(range(num_rows), batch_size=size)  # type: ignore[arg-type]
    assert batches == num_epochs * [len(batch) for batch in loader]
    assert len(steps) == num_epochs * -(-len(loader) // accumulate)


@pytest.mark.parametrize(
    ("num_rows", "size", "num_epochs", "num_steps"), [(40, 32, 1, 2), (250, 32, 1, 8), (830, 128, 3, 21), (5, 8, 2, 2)]
)
def test_the_number_of_steps_of_epochs(num_rows: int, size: int, num_epochs: int, num_steps: int) -> None:
    assert steps_of_epochs(num_rows, size, num_epochs) == num_steps


def test_epochs_rounds_clients_and_seeds_differ() -> None:
    first, second = passes(40, 40, 0, num_epochs=2)
    others = [passes(40, 40, 0, round_idx=1), passes(40, 40, 0, client_id=5), passes(40, 40, 1)]
    assert len({tuple(batch) for batch in (first, second, list(range(40)), *(batches[0] for batches in others))}) == 6
    assert passes(40, 40, 0) == [first], "an epoch does not depend on how many follow"
