"""A LoRA adapter as the two files that `PeftModel.from_pretrained` reads, without importing peft."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from fedlit.rules.configured import CONFIG
from fedlit.rules.factors import Factors
from fedlit.rules.folders import WEIGHTS, AdapterFolder
from fedlit.rules.state_dicts import options_of, written_alpha
from fedlit.rules.tensor_file import TensorFile

_NOT_OURS = ("exclude_modules", "layers_to_transform", "layers_pattern", "eva_config", "loftq_config", "auto_mapping")
"""Options by which the first adapter chose or initialised its layers: the result names its layers one by one."""


class AdapterWriter:
    """Writes adapter_config.json and adapter_model.safetensors into an existing folder, one layer after the other.

    folder: where to. like: the adapter whose configuration and names of tensors the result takes over. backbone: the
    model that the result belongs to; None for that of `like`. whole: whether tensors that were trained whole come too.
    """

    def __init__(self, folder: Path, like: AdapterFolder, *, backbone: str | None = None, whole: bool = True) -> None:
        self._folder, self._like = folder, like
        self._backbone, self._whole = backbone or like.backbone, whole
        self._sizes: dict[str, tuple[int, float]] = {}
        self._file = TensorFile(folder / WEIGHTS)

    def __enter__(self) -> "AdapterWriter":
        return self

    def add(self, name: str, factors: Factors) -> None:
        """Write a layer, in the type that it has."""
        key_a, key_b, _ = self._like.factors[name]
        self._file.add(key_a, factors.a)
        self._file.add(key_b, factors.b)
        self._sizes[name] = (factors.rank, factors.scaling)

    def add_other(self, key: str, tensor: Tensor) -> None:
        """Write what was trained whole, by its key."""
        self._file.add(key, tensor)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)
        if error is None:
            text = json.dumps(self._config(), indent=2, sort_keys=True)
            (self._folder / CONFIG).write_text(text + "\n", encoding="utf-8")

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            **self._like.config,
            **options_of(self._sizes),
            "init_lora_weights": True,
            "inference_mode": True,
            "base_model_name_or_path": self._backbone,
        }
        if not self._whole:
            config |= {"modules_to_save": None, "bias": "none"}
        return config | {key: {} if key == "loftq_config" else None for key in _NOT_OURS if key in config}


def write_adapter(
    folder: Path,
    like: AdapterFolder,
    layers: Mapping[str, Factors],
    others: Mapping[str, Tensor],
    *,
    backbone: str | None = None,
) -> None:
    """Write adapter_config.json and adapter_model.safetensors into an existing folder.

    Args:
        folder: where to.
        like: the adapter whose configuration and names of tensors the result takes over.
        layers: the result by layer name, in the type in which it is written.
        others: what was trained whole beside it, by its key.
        backbone: the model that the result belongs to; None for that of `like`.
    """
    with AdapterWriter(folder, like, backbone=backbone) as writer:
        for name, factors in layers.items():
            writer.add(name, factors)
        for key, tensor in others.items():
            writer.add_other(key, tensor)


def cast(factors: Factors, dtype: torch.dtype) -> Factors:
    """Return factors in another type, with the scaling that they will have once they are read again."""
    alpha = written_alpha(factors.rank, factors.scaling)
    return Factors(factors.a.to(dtype), factors.b.to(dtype), float(alpha / factors.rank))
