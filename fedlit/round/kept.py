"""The tensors of single clients until their round ends: in memory for a rule, in a file for what only observes.

Observing must not decide whether training fits: a hundred clients with 40 MB each would be 4 GB in memory.
"""

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from fedlit.algebra.tensors import TensorDict, on_cpu


class Kept(ABC):
    """Tensors by client and name, of the clients that this process trained."""

    @abstractmethod
    def put(self, client_id: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep a client's tensors, in addition to those that it has here."""

    @abstractmethod
    def get(self, client_id: int, name: str) -> Tensor:
        """Return a tensor that was put, on the device that it had."""

    @abstractmethod
    def clients(self) -> Collection[int]:
        """Return the clients of which there is something."""


class InMemory(Kept):
    """Keeps the tensors themselves."""

    def __init__(self) -> None:
        self._tensors: dict[int, TensorDict] = {}

    def put(self, client_id: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep a client's tensors."""
        self._tensors.setdefault(client_id, {}).update(tensors)

    def get(self, client_id: int, name: str) -> Tensor:
        """Return a tensor as it was put."""
        return self._tensors[client_id][name]

    def clients(self) -> Collection[int]:
        """Return the clients so far."""
        return self._tensors.keys()


class OnDisk(Kept):
    """Keeps the bytes in a file without a name, which is gone with the process however it ends.

    folder: where; None for the system's folder of temporary files.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed with the object
        self._places: dict[int, dict[str, tuple[int, Tensor]]] = {}
        self._size = 0

    def put(self, client_id: int, tensors: Mapping[str, Tensor]) -> None:
        """Write a client's tensors at the end of the file."""
        places = self._places.setdefault(client_id, {})
        copies = on_cpu(tensors)
        for name, tensor in tensors.items():
            data = copies[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            # Only its shape, type and device are kept.
            places[name] = (self._size, torch.empty((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape))
            self._size += self._file.write(data.data)
        self._file.flush()

    def get(self, client_id: int, name: str) -> Tensor:
        """Read a tensor."""
        offset, like = self._places[client_id][name]
        data = os.pread(self._file.fileno(), like.numel() * like.element_size(), offset)
        flat = torch.frombuffer(bytearray(data), dtype=like.dtype) if data else torch.empty(0, dtype=like.dtype)
        return flat.view(like.shape).to(like.device)

    def clients(self) -> Collection[int]:
        """Return the clients so far."""
        return self._places.keys()
