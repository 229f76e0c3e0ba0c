"""Padding and labels go by position."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlit.data.collation import Batch, Example, collate, pad_left, pad_right

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
    lengths = torch.tensor([len(example.token_ids) for example in examples])
    is_token = (torch.arange(width) < lengths[:, None]).flatten()
    assert is_token[batch.label_positions].all()
    following = batch.label_positions + 1
    assert (following // width == batch.label_positions // width).all()
    assert is_token[following].all()
    assert (batch.token_ids.flatten()[following] == batch.label_ids).all()


def test_a_small_batch() -> None:
    examples = [
        Example(token_ids=(1, 5, 6, 7, 2), num_prompt_tokens=3, prompt="", response="", truncated=False),
        Example(token_ids=(8, 2), num_prompt_tokens=0, prompt="", response="", truncated=False),
    ]
    batch = collate(examples, PAD, loss_on="response")
    assert batch.token_ids.tolist() == [[1, 5, 6, 7, 2], [8, 2, PAD, PAD, PAD]]
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
    assert len(tensors) == 3
    assert all(getattr(moved, name).device.type == "meta" for name in tensors)
    assert moved.num_labels == batch.num_labels
