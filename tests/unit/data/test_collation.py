"""Padding and labels go by position; a client walks through all its rows, pass after pass, from any point on."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlit.data.collation import Batch, Example, collate, pad_left, pad_right, steps_of_epochs, training_order

PAD = 3
TOKEN = st.integers(0, 9)  # the padding's id may be a token of the text as well


@st.composite
def an_example(draw: st.DrawFn) -> Example:
    prompt = draw(st.lists(TOKEN, max_size=6))
    response = draw(st.lists(TOKEN, min_size=1, max_size=6))
    return Example(
        token_ids=(*prompt, *response), num_prompt_tokens=len(prompt), prompt="", response="", truncated=False
    )


EXAMPLES = st.lists(an_example(), min_size=1, max_size=6)
SEQUENCES = st.lists(st.lists(TOKEN, min_size=1, max_size=8), min_size=1, max_size=5)


@given(SEQUENCES)
def test_padding_is_on_the_side_it_is_named_after(sequences: list[list[int]]) -> None:
    longest = max(map(len, sequences))
    for pad, right in ((pad_right, True), (pad_left, False)):
        ids, mask = pad(sequences, PAD)
        assert ids.shape == mask.shape == (len(sequences), longest)
        assert ids.dtype == mask.dtype == torch.int64
        for row, row_mask, sequence in zip(ids.tolist(), mask.tolist(), sequences, strict=True):
            filling = longest - len(sequence)
            assert row == ([*sequence, *[PAD] * filling] if right else [*[PAD] * filling, *sequence])
            assert row_mask == ([1] * len(sequence) + [0] * filling if right else [0] * filling + [1] * len(sequence))


def naive_labels(examples: Sequence[Example], width: int, *, everywhere: bool) -> torch.Tensor:
    """Return (n, T) labels as transformers wants them: -100 where a token is not to be learnt."""
    labels = torch.full((len(examples), width), -100)
    for row, example in enumerate(examples):
        for place, token in enumerate(example.token_ids):
            if everywhere or place >= example.num_prompt_tokens:
                labels[row, place] = token
    return labels


@given(EXAMPLES, st.sampled_from(["response", "all"]))
def test_labels_are_the_next_tokens(examples: list[Example], loss_on: str) -> None:
    batch = collate(examples, PAD, loss_on=loss_on)
    width = batch.token_ids.shape[1]
    next_labels = naive_labels(examples, width, everywhere=loss_on == "all")[:, 1:]
    rows, places = (next_labels != -100).nonzero(as_tuple=True)
    assert batch.label_positions.tolist() == (rows * width + places).tolist()
    assert batch.label_ids.tolist() == next_labels[rows, places].tolist()
    assert batch.num_labels == tuple((next_labels != -100).sum(1).tolist())


@given(EXAMPLES)
def test_no_label_is_padding_or_of_another_row(examples: list[Example]) -> None:
    batch = collate(examples, PAD, loss_on="all")
    width = batch.token_ids.shape[1]
    assert (batch.attention_mask.flatten()[batch.label_positions] == 1).all()
    following = batch.label_positions + 1
    assert (following // width == batch.label_positions // width).all()
    assert (batch.attention_mask.flatten()[following] == 1).all()
    assert (batch.token_ids.flatten()[following] == batch.label_ids).all()


def test_a_small_batch() -> None:
    examples = [
        Example(token_ids=(1, 5, 6, 7, 2), num_prompt_tokens=3, prompt="", response="", truncated=False),
        Example(token_ids=(8, 2), num_prompt_tokens=0, prompt="", response="", truncated=False),
    ]
    batch = collate(examples, PAD, loss_on="response")
    assert batch.token_ids.tolist() == [[1, 5, 6, 7, 2], [8, 2, PAD, PAD, PAD]]
    assert batch.attention_mask.tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
    assert batch.label_positions.tolist() == [2, 3, 5]
    assert batch.label_ids.tolist() == [7, 2, 2]  # nothing comes before the first token of a row
    assert batch.num_labels == (2, 1)
    everywhere = collate(examples, PAD, loss_on="all")
    assert everywhere.label_positions.tolist() == [0, 1, 2, 3, 5]
    assert everywhere.num_labels == (4, 1)


def test_what_an_example_is_made_of() -> None:
    example = Example(token_ids=(1, 5, 2), num_prompt_tokens=2, prompt="p", response="r", truncated=False)
    assert (example.prompt_ids, example.references, example.options) == ((1, 5), ("r",), ())
    assert replace(example, other_references=("s", "r")).references == ("r", "s", "r")


def test_a_batch_moves_whole() -> None:
    examples = [Example(token_ids=(1, 2), num_prompt_tokens=1, prompt="", response="", truncated=False)]
    batch = collate(examples, PAD, loss_on="all")
    moved = batch.to(torch.device("meta"))
    tensors = [name for name in Batch.__slots__ if isinstance(getattr(batch, name), torch.Tensor)]
    assert len(tensors) == 4
    assert all(getattr(moved, name).device.type == "meta" for name in tensors)
    assert moved.num_labels == batch.num_labels


ROWS = st.integers(1, 30)
SIZE = st.integers(1, 12)
SEED = st.integers(0, 2**40)


def walk(num_rows: int, size: int, seed: int, *, skip: int = 0, num_steps: int, client_id: int = 4) -> list[list[int]]:
    return list(training_order(num_rows, size, seed, client_id, skip=skip, num_steps=num_steps))


@given(ROWS, SIZE, SEED, st.integers(1, 4))
def test_every_row_once_in_a_pass(num_rows: int, size: int, seed: int, num_passes: int) -> None:
    steps = steps_of_epochs(num_rows, size, num_passes)
    batches = walk(num_rows, size, seed, num_steps=steps)
    assert all(len(batch) == min(size, num_rows) for batch in batches)
    flat = [row for batch in batches for row in batch]
    for start in range(0, num_passes * num_rows, num_rows):
        assert sorted(flat[start : start + num_rows]) == list(range(num_rows))
    assert len(flat) - num_passes * num_rows < min(size, num_rows), "no step more than needed"


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


@given(ROWS, SIZE, st.integers(1, 5))
def test_steps_of_epochs_are_just_enough(num_rows: int, size: int, num_epochs: int) -> None:
    steps = steps_of_epochs(num_rows, size, num_epochs)
    batch = min(size, num_rows)
    assert (steps - 1) * batch < num_rows * num_epochs <= steps * batch
