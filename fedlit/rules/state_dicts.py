"""Adapters as state dicts: what peft's `get_peft_model_state_dict` gives and `set_peft_model_state_dict` takes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fedlit.errors import UserError
from fedlit.rules.configured import PREFIX, read_layout
from fedlit.rules.factors import Adapter, Factors


def from_state_dict(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Factors]:
    """Return the adapter in a state dict, with the scaling that peft has for each layer. Nothing is copied.

    Args:
        tensors: what `get_peft_model_state_dict(model)` gives.
        config: `model.peft_config["default"].to_dict()`, or the object in adapter_config.json.

    Raises:
        UserError: another kind than plain LoRA, tensors that do not fit the configuration, or tensors that were
            trained whole beside the factors (modules_to_save, biases): their mean is that of the tensors.
    """
    place = "the state dict"
    layout = read_layout({key: tuple(tensor.shape) for key, tensor in tensors.items()}, config, place)
    if layout.others:
        raise UserError(
            f"{place} has {layout.others[0]}, which is no factor ({len(layout.others)} such); take the mean of such "
            "tensors, and give the others"
        )
    return {name: Factors(tensors[a], tensors[b], scaling) for name, (a, b, scaling) in layout.factors.items()}


def to_state_dict(
    adapter: Adapter, like: Iterable[str] = (), *, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Return an adapter as a state dict that `set_peft_model_state_dict` takes, for a model of `lora_options`.

    Args:
        adapter: by the names of its layers.
        like: the keys of an adapter of this model, where factors of embeddings or names of another form are among
            them; else the keys are those of linear layers.
        dtype: of the tensors.
    """
    named: dict[tuple[str, str], str] = {}
    for key in like:
        for factor in "AB":
            for form in (f".lora_{factor}.weight", f".lora_embedding_{factor}"):
                if key.endswith(form):
                    named[key.removesuffix(form).removeprefix(PREFIX), factor] = key
    tensors = {}
    for name, (a, b, _) in adapter.items():
        for factor, tensor in (("A", a), ("B", b)):
            key = named.get((name, factor), f"{PREFIX}{name}.lora_{factor}.weight")
            tensors[key] = tensor.to(dtype).contiguous()
    return tensors


def lora_options(adapter: Adapter) -> dict[str, Any]:
    """Return the options of peft's LoraConfig for an adapter: ranks, alphas and the names of its layers.

    Without rsLoRA: alpha is scaling * rank, which may be no integer. The patterns name each layer from its start to its
    end, so that no order of them matters.
    """
    return options_of({name: (a.shape[0], scaling) for name, (a, _, scaling) in adapter.items()})


def options_of(sizes: Mapping[str, tuple[int, float]]) -> dict[str, Any]:
    """Return the same from the rank and the scaling of each layer."""
    alphas = {name: written_alpha(rank, scaling) for name, (rank, scaling) in sizes.items()}
    ranks = {name: rank for name, (rank, _) in sizes.items()}
    rank, alpha = Counter(ranks.values()).most_common(1)[0][0], Counter(alphas.values()).most_common(1)[0][0]
    return {
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": False,
        "rank_pattern": {_pattern(name): each for name, each in ranks.items() if each != rank},
        "alpha_pattern": {_pattern(name): each for name, each in alphas.items() if each != alpha},
        "target_modules": sorted(sizes),
    }


def written_alpha(rank: int, scaling: float) -> float:
    """Return the alpha that stands in the configuration: a whole number where it is one but for rounding."""
    alpha = scaling * rank
    return round(alpha) if abs(alpha - round(alpha)) <= 1e-12 * abs(alpha) else alpha


def _pattern(name: str) -> str:
    """Return the regular expression by which peft finds one module alone: it would take a suffix for the module."""
    return "^" + name.replace(".", r"\.")
