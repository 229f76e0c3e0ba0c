"""Many tensors as one flat sequence, walked in pieces that fit the cache.

An element-wise pass over a whole model reads and writes memory once for each operation; piece by piece the second
operation finds what the first one left in the cache. A tensor larger than a piece is cut; small ones share a piece, so
that hundreds of thin factors do not cost a dozen calls each.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

CPU_PIECE = 2**15
"""Scalars of a piece on the CPU: 256 KiB in float64, of which a core's own cache holds some."""

DEVICE_PIECE = 2**22
"""On an accelerator, where a call costs more and the cache less."""

Parts = list[Tensor]
"""Flat tensors, one after the other: whole small ones, or one slice of a large one."""


def pieces(*columns: Iterable[Tensor]) -> Iterator[tuple[Parts, ...]]:
    """Yield the parts of each piece, one list a column.

    Args:
        columns: tensors of the same numbers of scalars in the same order, on one device. Their parts are views of them,
            detached; of a tensor that is not contiguous, a slice of its copy.
    """
    filled = 0
    held: tuple[Parts, ...] = tuple([] for _ in columns)
    for row in zip(*columns, strict=True):
        flats = [tensor.detach().reshape(-1) for tensor in row]
        num, size = flats[0].numel(), _piece_size(flats[0])
        if filled and filled + num > size:
            yield held
            held, filled = tuple([] for _ in columns), 0
        if num > size:
            yield from zip(*([[part] for part in flat.split(size)] for flat in flats), strict=True)
        elif num:
            for parts, flat in zip(held, flats, strict=True):
                parts.append(flat)
            filled += num
    if filled:
        yield held


def _piece_size(tensor: Tensor) -> int:
    return CPU_PIECE if tensor.device.type == "cpu" else DEVICE_PIECE


def joined(parts: Parts) -> Tensor:
    """Return a piece as one flat tensor, to be read only: a single part is returned itself."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def in_double(parts: Parts) -> Tensor:
    """Return a piece as a new flat float64 tensor, which may be written to."""
    return parts[0].to(torch.float64, copy=True) if len(parts) == 1 else torch.cat(parts).double()


def write(piece: Tensor, parts: Parts) -> None:
    """Write a flat tensor into the parts in place, each in its own type."""
    if len(parts) == 1:
        parts[0].copy_(piece)
    else:
        torch._foreach_copy_(parts, piece.split([part.numel() for part in parts]))


def largest(tensors: Iterable[Tensor]) -> Tensor | None:
    """Return the largest magnitude in all tensors, a float64 scalar where they are; NaN if one holds a NaN, None if no
    tensor holds anything. Nothing waits for the device.
    """
    bounds = [bound for (parts,) in pieces(tensors) for bound in torch.aminmax(joined(parts))]
    return torch.stack([bound.double() for bound in bounds]).abs().amax() if bounds else None
