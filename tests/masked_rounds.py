"""A round of secure aggregation over vectors of integers, on as many processes as are asked for, in one process."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from fedlit.secure import SecureAggregation
from fedlit.secure.channel import MaskedChannel

INT64 = 2**63


def vectors_of(clients: Collection[int], num: int, seed: int = 0) -> dict[int, Tensor]:
    """Return integers from the whole range of 64 bits for every client."""
    generator = torch.Generator().manual_seed(seed)
    return {client: torch.randint(-INT64, INT64 - 1, (num,), generator=generator) for client in sorted(clients)}


def plain_sum(vectors: Mapping[int, Tensor], num: int) -> Tensor:
    """Return the sum modulo 2**64."""
    return sum(vectors.values(), start=torch.zeros(num, dtype=torch.int64))


def masked(channel: MaskedChannel, client: int, vector: Tensor, sum_index: int = 0, size: int = 2**15) -> Tensor:
    """Return what a client sends, whole, from pieces of one size."""
    pieces = [vector[start : start + size] for start in range(0, len(vector), size)]
    sent = list(channel.sent(client, pieces, sum_index))
    assert [len(piece) for piece in sent] == [len(piece) for piece in pieces]
    return torch.cat(sent)


def run_round(
    settings: SecureAggregation,
    invited: Sequence[int],
    vectors: Mapping[int, Tensor],
    *,
    round_idx: int = 0,
    num_processes: int = 1,
    sum_index: int = 0,
) -> tuple[Tensor | None, str | None]:
    """Return the total of the vectors' clients, or None and why the round is void; each process takes masks off its own
    buffer before the buffers are added.
    """
    num = len(next(iter(vectors.values()))) if vectors else 5
    total = torch.zeros(num, dtype=torch.int64)
    for process in range(num_processes):
        channel = MaskedChannel(settings, round_idx, invited, sorted(vectors))
        buffer = torch.zeros(num, dtype=torch.int64)
        for client in sorted(vectors)[process::num_processes]:
            buffer += masked(channel, client, vectors[client], sum_index)
        reason = channel.close(sorted(vectors))
        if reason is not None:
            return None, reason
        channel.before_reduce(buffer, sum_index, process, num_processes)
        total += buffer
    return total, None
