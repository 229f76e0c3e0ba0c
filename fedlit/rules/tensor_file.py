"""A safetensors file that is written one tensor after the other, so that not all of them are in memory at once.

safetensors itself writes what it is given as a whole. The form is the length of a JSON header (8 bytes, little-endian),
the header, and the numbers without gaps. As in safetensors wider types come first, so that every tensor begins at a
multiple of the size of its numbers and can be mapped.
"""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO

import torch
from torch import Tensor

_KINDS = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class TensorFile:
    """The file is there once the context is left without an error; until then its numbers lie beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = ExitStack()
        self._parts: dict[int, IO[bytes]] = {}
        self._entries: dict[int, dict[str, tuple[str, list[int], int]]] = {}

    def __enter__(self) -> "TensorFile":
        return self

    def add(self, key: str, tensor: Tensor) -> None:
        """Write a tensor of floating-point numbers."""
        width = tensor.element_size()
        if width not in self._parts:
            self._parts[width] = self._files.enter_context(self._part(width).open("w+b"))
        self._parts[width].write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        entry = (_KINDS[tensor.dtype], list(tensor.shape), tensor.numel() * width)
        self._entries.setdefault(width, {})[key] = entry

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._files:
            if error is None:
                self._join()
        for width in self._parts:
            self._part(width).unlink(missing_ok=True)

    def _part(self, width: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{width}")

    def _join(self) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        widths = sorted(self._parts, reverse=True)
        for width in widths:
            for key, (kind, shape, size) in self._entries[width].items():
                header[key] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
                end += size
        text = json.dumps(header, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        with self._path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for width in widths:
                self._parts[width].seek(0)
                shutil.copyfileobj(self._parts[width], file, 2**20)
