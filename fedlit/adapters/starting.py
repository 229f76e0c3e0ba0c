"""Factors from an adapter's files as the first state of a run's own LoRA layers.

A (r, in) and B (out, r) of every layer; the same layers, ranks and scalings on both sides, or one line that tells both
and how to bring them together.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fedlit.adapters.options import LoraOptions
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.errors import UserError
from fedlit.models import AdapterStart


@torch.no_grad()
def start_layers(model: nn.Module, layers: Sequence[LoraLayer], options: LoraOptions, start: AdapterStart) -> None:
    """Give LoRA layers the factors of an adapter, in place; on the meta device they are only held against each other.

    Where clients have several ranks, each takes up the first rows of A and columns of B: there the factors are those of
    the same product in the order of its singular values, so that the first are the best.

    Args:
        model: with the layers.
        layers: of the method, in the model's order.
        options: of the method.
        start: the adapter.

    Raises:
        UserError: other layers, ranks or scalings, shapes that are not the base's, or entries that are not finite.
    """
    _require_same_layers(layers, options, start)
    _require_same_sizes(layers, options, start)
    parameters = dict(model.named_parameters())
    for layer in layers:
        a, b = parameters[layer.a], parameters[layer.b]
        stored_a, stored_b, _ = start.adapter.factors[layer.name]
        for parameter, key in ((a, stored_a), (b, stored_b)):
            if (found := start.adapter.shape(key)) != tuple(parameter.shape):
                raise UserError(
                    f"{start.key}: {key} is {found}, and {tuple(parameter.shape)} over the base {start.base}; give the "
                    "base that the adapter was trained on"
                )
        if a.is_meta:
            continue
        factors = start.adapter[layer.name]
        if len(set(layer.client_ranks)) > 1:
            best = factors.change().truncated(layer.rank)
            a.copy_(best.right)
            b.copy_(best.left / layer.scaling())
        else:
            a.copy_(factors.a)
            b.copy_(factors.b)


def _require_same_layers(layers: Sequence[LoraLayer], options: LoraOptions, start: AdapterStart) -> None:
    stored, own = set(start.adapter), {layer.name for layer in layers}
    if stored == own:
        return
    other = min(stored ^ own)
    where = "the adapter" if other in stored else "the method"
    raise UserError(
        f"{start.key} has factors at {len(stored)} layers and method.target_modules={_shown(options.target_modules)} "
        f"at {len(own)} ({other} in {where} alone); give method.target_modules=[{','.join(_ends(stored))}], or "
        f"{start.merge}"
    )


def _require_same_sizes(layers: Sequence[LoraLayer], options: LoraOptions, start: AdapterStart) -> None:
    ranks = {layer.name: start.adapter.shape(start.adapter.factors[layer.name][0])[0] for layer in layers}
    scalings = {layer.name: start.adapter.factors[layer.name][2] for layer in layers}
    if all(
        ranks[layer.name] == layer.rank and math.isclose(scalings[layer.name], layer.scaling(), rel_tol=1e-12)
        for layer in layers
    ):
        return
    own = layers[0]
    facts = (
        f"{start.key} has rank {_span(ranks.values())} and scaling {_span(scalings.values())}, and the method rank "
        f"{own.rank} and scaling {own.scaling():g}"
    )
    merge = f"to keep the method's, {start.merge}"
    if len(set(ranks.values())) > 1 or len(set(scalings.values())) > 1:
        raise UserError(f"{facts}, one for all layers; {merge}")
    rank, scaling = next(iter(ranks.values())), next(iter(scalings.values()))
    raise UserError(f"{facts}; give {_settings(rank, scaling, start.adapter.config, options)}, or, {merge}")


def _settings(rank: int, scaling: float, config: Mapping[str, Any], options: LoraOptions) -> str:
    """Return the options under which the method's layers are the adapter's."""
    rslora = bool(config.get("use_rslora"))
    alpha = scaling * (rank**0.5 if rslora else rank)
    chosen = {
        "lora_rank": (rank, options.lora_rank),
        "lora_alpha": (float(f"{alpha:.12g}"), options.lora_alpha),
        "use_rslora": (rslora, options.use_rslora),
    }
    differing = {key: value for key, (value, own) in chosen.items() if value != own}
    return " ".join(
        f"method.{key}={str(value).lower() if value is rslora else f'{value:g}'}" for key, value in differing.items()
    )


def _span(values: Collection[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _ends(names: Collection[str]) -> list[str]:
    """Return the last parts of layers' names, each once."""
    return sorted({name.rpartition(".")[2] for name in names})


def _shown(target_modules: str | Sequence[str]) -> str:
    text = target_modules if isinstance(target_modules, str) else f"[{','.join(map(str, target_modules))}]"
    return text[:60]
