"""A LoRA adapter as the two files that `PeftModel.from_pretrained` reads, without importing peft."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fedlit.rules.factors import Factors
from fedlit.rules.folders import CONFIG, WEIGHTS, AdapterFolder

_NOT_OURS = ("exclude_modules", "layers_to_transform", "layers_pattern", "eva_config", "loftq_config", "auto_mapping")
"""Options by which the first adapter chose or initialised its layers: the result names its layers one by one."""


def written_scaling(factors: Factors) -> tuple[float, float]:
    """Return the alpha that stands in the configuration for a layer, and the scaling that peft makes of it."""
    alpha = factors.scaling * factors.rank
    alpha = round(alpha) if abs(alpha - round(alpha)) <= 1e-12 * abs(alpha) else alpha
    return alpha, float(alpha / factors.rank)


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
    alphas = {name: written_scaling(factors)[0] for name, factors in layers.items()}
    ranks = {name: factors.rank for name, factors in layers.items()}
    rank, alpha = Counter(ranks.values()).most_common(1)[0][0], Counter(alphas.values()).most_common(1)[0][0]
    config: dict[str, Any] = {
        **like.config,
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": False,
        "rank_pattern": {_pattern(name): each for name, each in ranks.items() if each != rank},
        "alpha_pattern": {_pattern(name): each for name, each in alphas.items() if each != alpha},
        "target_modules": sorted(layers),
        "init_lora_weights": True,
        "inference_mode": True,
        "base_model_name_or_path": backbone or like.backbone,
    }
    config |= {key: {} if key == "loftq_config" else None for key in _NOT_OURS if key in config}
    tensors = dict(others)
    for name, factors in layers.items():
        key_a, key_b, _ = like.factors[name]
        tensors |= {key_a: factors.a.contiguous(), key_b: factors.b.contiguous()}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def cast(factors: Factors, dtype: torch.dtype) -> Factors:
    """Return factors in another type, with the scaling that they will have once they are read again."""
    return Factors(factors.a.to(dtype), factors.b.to(dtype), written_scaling(factors)[1])


def _pattern(name: str) -> str:
    """Return the regular expression by which peft finds one module alone: it would take a suffix for the module."""
    return "^" + name.replace(".", r"\.")
