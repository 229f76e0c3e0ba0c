"""Named tensors: the state dicts that travel, stay or are folded, keyed by the model's own parameter names."""

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedlit.algebra.pieces import in_double, joined, largest, pieces

TensorDict = dict[str, Tensor]

ALIGNED = 64
"""Bytes at whose multiples torch's memory on the CPU begins."""


def num_parameters(tensors: Mapping[str, Tensor]) -> int:
    """Return the number of scalars in `tensors`."""
    return sum(tensor.numel() for tensor in tensors.values())


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the size of `tensors` in bytes, in their own types."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def snapshot(tensors: Mapping[str, Tensor], device: torch.device | str | None = None) -> TensorDict:
    """Return detached copies that no later step changes, on `device` (where they are if None)."""
    if device is None:
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}
    return {name: tensor.detach().to(device, copy=True) for name, tensor in tensors.items()}


@torch.no_grad()
def on_cpu(tensors: Mapping[str, Tensor]) -> TensorDict:
    """Return the tensors on the CPU: themselves where they are there, else copies of them all in one transfer for each
    type, since each transfer waits for the device.
    """
    away = {name: tensor.detach() for name, tensor in tensors.items() if tensor.device.type != "cpu"}
    copies: TensorDict = {}
    for dtype in {tensor.dtype for tensor in away.values()}:
        group = {name: tensor for name, tensor in away.items() if tensor.dtype == dtype}
        flat = torch.cat([tensor.reshape(-1) for tensor in group.values()]).cpu()
        parts = torch.split(flat, [tensor.numel() for tensor in group.values()])
        copies |= {name: part.view(tensor.shape) for (name, tensor), part in zip(group.items(), parts, strict=True)}
    return {name: copies.get(name, tensor) for name, tensor in tensors.items()}


@torch.no_grad()
def copy_into(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Write `values` into the tensors of the same names in place; names and shapes must agree."""
    assert parameters.keys() == values.keys(), f"names differ: {sorted(parameters.keys() ^ values.keys())[:3]}"
    for name, parameter in parameters.items():
        assert parameter.shape == values[name].shape, f"{name}: {parameter.shape}, {values[name].shape}"
    targets, sources = list(parameters.values()), [values[name] for name in parameters]
    devices = {tensor.device for tensor in (*targets, *sources)}
    if len(devices) == 1:
        torch._foreach_copy_(targets, sources)
    else:
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)


def standing_alone(tensor: Tensor) -> Tensor:
    """Return a tensor row by row, at the beginning of an allocation: itself, or a copy.

    Equal numbers that lie otherwise give products with other last bits: a transposed matrix takes another routine, and
    so does one that begins in the middle of an allocation.
    """
    stands = tensor.stride() == _rows_of(tensor.shape) and tensor.storage_offset() == 0
    if stands and (tensor.device.type != "cpu" or tensor.data_ptr() % ALIGNED == 0):
        return tensor
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _rows_of(shape: torch.Size) -> tuple[int, ...]:
    """Return the strides of new memory; `is_contiguous` does not look at those of sides of 1, which products do."""
    return tuple(math.prod(max(size, 1) for size in shape[place + 1 :]) for place in range(len(shape)))


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, given in sorted(on_cpu(tensors).items()):
        tensor = given.detach().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the first name whose tensor holds a NaN or an infinity, None if there is none; one wait for the device
    where all are finite.
    """
    peak = largest(tensors.values())
    if peak is None or math.isfinite(peak.item()):
        return None
    return next(name for name, tensor in tensors.items() if not tensor.isfinite().all())


def squared_distance(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the squares of left - right over all tensors, a float64 scalar where they are; nothing waits
    for the device.
    """
    names = sorted(left)
    squares = [
        in_double(ours).sub_(joined(theirs)).square_().sum()
        for ours, theirs in pieces((left[name] for name in names), (right[name] for name in names))
    ]
    return torch.stack(squares).sum() if squares else torch.zeros((), dtype=torch.float64)


def norm(tensors: Mapping[str, Tensor]) -> float:
    """Return the Euclidean norm over all tensors, summed in float64; one wait for the device."""
    squares = [in_double(parts).square_().sum() for (parts,) in pieces(tensors[name] for name in sorted(tensors))]
    return math.sqrt(torch.stack(squares).sum().item()) if squares else 0.0


def distance(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """Return the Euclidean norm of left - right over all tensors, summed in float64; one wait for the device."""
    return math.sqrt(squared_distance(left, right).item())
