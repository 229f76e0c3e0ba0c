"""LoRA adapters as peft stores them: adapter_config.json and adapter_model.safetensors, read one layer at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fedlit.data.json_files import read_json_file, require_no_pointer
from fedlit.errors import UserError
from fedlit.rules.configured import CONFIG, Layout, read_layout
from fedlit.rules.factors import Factors

WEIGHTS = "adapter_model.safetensors"

_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class _Header:
    """What the head of a file says of one tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class AdapterFolder(Mapping[str, Factors]):
    """An adapter by the names of its layers, whose tensors are read when they are asked for.

    path: the folder. config: adapter_config.json. layout: which tensors are whose. headers: shapes and types by key.
    """

    path: Path
    config: Mapping[str, Any]
    layout: Layout
    headers: Mapping[str, _Header]

    def __getitem__(self, name: str) -> Factors:
        """Return a layer's factors.

        Raises:
            UserError: an entry is not finite.
        """
        a, b, scaling = self.factors[name]
        return Factors(self.tensor(a), self.tensor(b), scaling)

    def __contains__(self, name: object) -> bool:
        return name in self.factors  # the mixin would read the layer

    def __iter__(self) -> Iterator[str]:
        return iter(self.factors)

    def __len__(self) -> int:
        return len(self.factors)

    @property
    def factors(self) -> Mapping[str, tuple[str, str, float]]:
        """Keys of A and B and the scaling, by layer name."""
        return self.layout.factors

    @property
    def others(self) -> tuple[str, ...]:
        """Keys of what was trained whole beside the factors: modules_to_save and biases."""
        return self.layout.others

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that a person should read about it."""
        return self.layout.notices

    def tensor(self, key: str) -> Tensor:
        """Return one tensor by its key in the file.

        Raises:
            UserError: an entry is not finite.
        """
        # A file that stays open stays mapped: all that was ever read of it would count as this process's memory.
        with safe_open(self.path / WEIGHTS, framework="pt") as file:
            tensor: Tensor = file.get_tensor(key)
        if not tensor.isfinite().all():
            raise UserError(f"{self.path}: {key} holds a NaN or an infinity; take that adapter out, or train it again")
        return tensor

    def shape(self, key: str) -> tuple[int, ...]:
        """Return a tensor's shape, from the header."""
        return self.headers[key].shape

    @property
    def dtype(self) -> torch.dtype:
        """The finest type among the factors."""
        keys = [key for a, b, _ in self.factors.values() for key in (a, b)]
        return reduce(torch.promote_types, {self.headers[key].dtype for key in keys})

    @property
    def backbone(self) -> str | None:
        """The model that it was trained on, as peft notes it."""
        return self.config.get("base_model_name_or_path") or None


def read_adapter_folder(path: Path) -> AdapterFolder:
    """Return the LoRA adapter in a folder that peft wrote.

    Raises:
        UserError: names the folder and what is wrong: no adapter, another kind than LoRA, tensors that do not fit its
            configuration.
    """
    config = _read_config(path)
    # Of another kind the configuration is enough to say so, whatever its tensors are.
    headers = _read_headers(path) if config.get("peft_type") == "LORA" else {}
    layout = read_layout({key: header.shape for key, header in headers.items()}, config, str(path))
    return AdapterFolder(path, config, layout, headers)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise UserError(f"{path} is no folder; give the folder of an adapter, with {CONFIG} in it")
    if not (path / CONFIG).is_file():
        inside = sorted(entry.parent.name for entry in path.glob(f"*/{CONFIG}"))
        hint = f"give one of the folders in it, such as {inside[0]}" if inside else "give the folder of an adapter"
        what = "a whole model" if (path / "config.json").is_file() else f"no {CONFIG}"
        raise UserError(f"{path} holds {what}, no adapter of peft; {hint}")
    config = read_json_file(path / CONFIG, "adapter", "peft's configuration of an adapter is expected")
    if not isinstance(config, dict):
        raise UserError(f"{path / CONFIG} is no object; save the adapter again")
    return config


def _read_headers(path: Path) -> dict[str, _Header]:
    file = path / WEIGHTS
    if not file.is_file():
        pickled = next(iter(sorted(path.glob("*.bin"))), None)
        what = f"{pickled.name}, a pickle, which may run code when it is read" if pickled else f"no {WEIGHTS}"
        raise UserError(f"{path} holds {what}; save the adapter with safe_serialization=True")
    require_no_pointer(file, str(file))
    headers = {}
    try:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118  it is no mapping
                slices = opened.get_slice(key)
                if (kind := slices.get_dtype()) not in _FLOATS:
                    raise UserError(f"{path}: {key} holds {kind}, no floating-point numbers; give an adapter of floats")
                headers[key] = _Header(tuple(slices.get_shape()), _FLOATS[kind])
    except SafetensorError as error:
        raise UserError(f"{file} cannot be read ({error}); copy it again") from None
    return headers
