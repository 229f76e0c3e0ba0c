"""Token sequences and how they become batches.

Shapes: n rows in a batch, T tokens in its longest row, L positions of the batch that carry a label.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One row as tokens: prompt and response in one sequence, and the texts they came from.

    truncated: prompt or response lost tokens. learned: places from and to, in order, of the tokens that are labels,
    where these are not all tokens after the prompt. Of test rows alone: other_references, further right responses to
    the same prompt; group, the value by which scores are told apart; options, the valid answers that the prompt names;
    candidates, the tokens of the response that each option would make, and right_option, the place among them of the
    row's own.
    """

    token_ids: tuple[int, ...]
    num_prompt_tokens: int
    prompt: str
    response: str
    truncated: bool
    learned: tuple[tuple[int, int], ...] = ()
    other_references: tuple[str, ...] = ()
    group: str | None = None
    options: tuple[str, ...] = ()
    candidates: tuple[tuple[int, ...], ...] = ()
    right_option: int = 0

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Tokens of the prompt."""
        return self.token_ids[: self.num_prompt_tokens]

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and response."""
        return len(self.token_ids)

    @property
    def references(self) -> tuple[str, ...]:
        """All right responses, the one in `token_ids` first."""
        return (self.response, *self.other_references)

    def packed(self) -> bytes:
        """Return what a training example has beside its texts, as 32-bit integers: prompt tokens, whether it is
        truncated, number and places of the spans that are learned, tokens.
        """
        places = [place for span in self.learned for place in span]
        head = (self.num_prompt_tokens, self.truncated, len(self.learned), *places)
        return array("i", (*head, *self.token_ids)).tobytes()

    @classmethod
    def unpacked(cls, data: bytes) -> "Example":
        """Return the example of such bytes, without its texts."""
        numbers = array("i")
        numbers.frombytes(data)
        begin = 3 + 2 * numbers[2]
        places = numbers[3:begin]
        return cls(
            token_ids=tuple(numbers[begin:]),
            num_prompt_tokens=numbers[0],
            prompt="",
            response="",
            truncated=bool(numbers[1]),
            learned=tuple(zip(places[::2], places[1::2], strict=True)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows padded to one length.

    token_ids (n, T), padded on the right, without a mask: nothing of a causal model looks to the right.
    label_positions (L,) are flat indices into n x T of the positions whose *next* token is a label, label_ids (L,)
    those next tokens, in row order; num_labels counts them by row. input_ends: the place of each row's last token of
    the prompt.
    """

    token_ids: Tensor
    label_positions: Tensor
    label_ids: Tensor
    num_labels: tuple[int, ...]
    input_ends: tuple[int, ...] = ()

    @property
    def num_targets(self) -> int:
        """Labels of all rows together."""
        return sum(self.num_labels)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return Batch(
            token_ids=self.token_ids.to(device, non_blocking=True),
            label_positions=self.label_positions.to(device, non_blocking=True),
            label_ids=self.label_ids.to(device, non_blocking=True),
            num_labels=self.num_labels,
            input_ends=self.input_ends,
        )


def pad_right(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return (ids, mask), both (n, T) int64, of sequences padded on the right."""
    longest = max(map(len, sequences))
    ids = [[*sequence, *[pad_id] * (longest - len(sequence))] for sequence in sequences]
    mask = [[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in sequences]
    return torch.tensor(ids), torch.tensor(mask)


def pad_left(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return (ids, mask), both (n, T) int64, of sequences padded on the left, as generation needs them."""
    ids, mask = pad_right([sequence[::-1] for sequence in sequences], pad_id)
    return ids.flip(1), mask.flip(1)


def collate(examples: Sequence[Example], pad_id: int, *, loss_on: str) -> Batch:
    """Return the training batch of `examples`, with labels on their responses, or on what of them is `learned`, or, by
    loss_on="all", on every token.

    The positions are found here, on the CPU, because finding them from a mask on a GPU would make every step wait.
    """
    token_ids, _ = pad_right([example.token_ids for example in examples], pad_id)
    width = token_ids.shape[1]
    positions: list[int] = []
    labels: list[int] = []
    counts: list[int] = []
    for row, example in enumerate(examples):
        before = len(labels)
        for start, stop in _label_spans(example, loss_on):
            positions.extend(range(row * width + start - 1, row * width + stop - 1))
            labels.extend(example.token_ids[start:stop])
        counts.append(len(labels) - before)
    return Batch(
        token_ids=token_ids,
        label_positions=torch.tensor(positions, dtype=torch.int64),
        label_ids=torch.tensor(labels, dtype=torch.int64),
        num_labels=tuple(counts),
        input_ends=tuple(max(example.num_prompt_tokens, 1) - 1 for example in examples),
    )


def join(batches: Sequence[Batch], pad_id: int) -> Batch:
    """Return batches as one, row after row, padded to the longest."""
    width = max(batch.token_ids.shape[1] for batch in batches)
    starts = accumulate((batch.token_ids.shape[0] for batch in batches), initial=0)
    return Batch(
        token_ids=pad_together([batch.token_ids for batch in batches], pad_id),
        label_positions=torch.cat([_moved(batch, start, width) for batch, start in zip(batches, starts, strict=False)]),
        label_ids=torch.cat([batch.label_ids for batch in batches]),
        num_labels=tuple(count for batch in batches for count in batch.num_labels),
        input_ends=tuple(end for batch in batches for end in batch.input_ends),
    )


def _moved(batch: Batch, first_row: int, width: int) -> Tensor:
    """Return a batch's positions where its rows begin at `first_row` of rows of `width` tokens."""
    own = batch.token_ids.shape[1]
    rows, places = batch.label_positions // own, batch.label_positions % own
    return (first_row + rows) * width + places


def pad_together(parts: Sequence[Tensor], value: int) -> Tensor:
    """Return tensors (n_i, T_i) as one (sum of n_i, the largest T_i), filled on the right."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([functional.pad(part, (0, width - part.shape[1]), value=value) for part in parts])


def segment_means(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the mean of each of k successive segments of values (n,), as (k,): each as it would be alone."""
    return torch.stack([part.mean() for part in torch.split(values, list(counts))])


def _label_spans(example: Example, loss_on: str) -> list[tuple[int, int]]:
    """Return places from and to of a row's labels; its first token is none, since nothing comes before it."""
    if loss_on != "response":
        return [(1, len(example.token_ids))]
    spans = example.learned or ((example.num_prompt_tokens, len(example.token_ids)),)
    return [(max(start, 1), stop) for start, stop in spans if stop > 1]
