"""Token sequences and how they become batches.

Shapes: n rows in a batch, T tokens in its longest row, L positions of the batch that carry a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows padded to one length.

    token_ids (n, T), padded on the right, without a mask: nothing of a causal model looks to the right. label_positions
    (L,) are flat indices into n x T of the positions whose *next* token is a label, label_ids (L,) those next tokens,
    in row order; num_labels counts them by row.
    """

    token_ids: Tensor
    label_positions: Tensor
    label_ids: Tensor
    num_labels: tuple[int, ...]

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
    )


def _label_spans(example: Example, loss_on: str) -> list[tuple[int, int]]:
    """Return places from and to of a row's labels; its first token is none, since nothing comes before it."""
    if loss_on != "response":
        return [(1, len(example.token_ids))]
    spans = example.learned or ((example.num_prompt_tokens, len(example.token_ids)),)
    return [(max(start, 1), stop) for start, stop in spans if stop > 1]
