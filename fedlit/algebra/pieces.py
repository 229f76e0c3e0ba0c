"""Many tensors as one flat sequence, walked in pieces that fit the cache.

An element-wise pass over a whole model reads and writes memory once for each operation; piece by piece the second
operation finds what the first one left in the cache. A tensor larger than a piece is cut; small ones share a piece, so
that hundreds of thin factors do not cost a dozen calls each.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch._C._nn import flatten_dense_tensors, unflatten_dense_tensors

CPU_PIECE = 2**15
"""Scalars of a piece on the CPU: 256 KiB in float64, of which a core's own cache holds some."""

DEVICE_PIECE = 2**22
"""On an accelerator, where a call costs more and the cache less."""

Parts = list[Tensor]
"""Tensors that make up a piece, one after the other: whole small ones, or one flat slice of a large one."""


def pieces(*columns: Iterable[Tensor]) -> Iterator[tuple[Parts, ...]]:
    """Yield the parts of each piece, one list a column.

    Args:
        columns: tensors of the same numbers of scalars in the same order, on one device. Their parts are detached views
            of them; of a large tensor that is not contiguous, slices of its copy.
    """
    filled = 0
    held: tuple[Parts, ...] = tuple([] for _ in columns)
    for row in zip(*columns, strict=True):
        num, size = row[0].numel(), _piece_size(row[0])
        if filled and filled + num > size:
            yield held
            held, filled = tuple([] for _ in columns), 0
        if num > size:
            flats = [tensor.detach().reshape(-1) for tensor in row]
            yield from zip(*([[part] for part in flat.split(size)] for flat in flats), strict=True)
        elif num:
            for parts, tensor in zip(held, row, strict=True):
                parts.append(tensor.detach() if tensor.requires_grad else tensor)
            filled += num
    if filled:
        yield held


def _piece_size(tensor: Tensor) -> int:
    return CPU_PIECE if tensor.device.type == "cpu" else DEVICE_PIECE


def num_scalars(parts: Parts) -> int:
    """Return the size of a piece."""
    return sum(part.numel() for part in parts)


def joined(parts: Parts) -> Tensor:
    """Return a piece as one flat tensor, to be read only: it may be a view of its part."""
    return parts[0].reshape(-1) if len(parts) == 1 else flatten_dense_tensors(parts)


def in_double(parts: Parts) -> Tensor:
    """Return a piece as a new flat float64 tensor, which may be written to."""
    return joined(parts).to(torch.float64, copy=len(parts) == 1)


def write(piece: Tensor, parts: Parts) -> None:
    """Write a flat tensor into the parts in place, each in its own type."""
    if len(parts) == 1:
        parts[0].copy_(piece.view(parts[0].shape))
    else:
        torch._foreach_copy_(parts, list(unflatten_dense_tensors(piece, parts)))


def largest(tensors: Iterable[Tensor]) -> Tensor | None:
    """Return the largest magnitude in all tensors, a float64 scalar where they are; NaN if one holds a NaN, None if no
    tensor holds anything. Nothing waits for the device.
    """
    bounds = [bound for (parts,) in pieces(tensors) for bound in torch.aminmax(joined(parts))]
    return torch.stack([bound.double() for bound in bounds]).abs().amax() if bounds else None
