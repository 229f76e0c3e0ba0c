"""LoRA layers as the two files of a PEFT adapter, which peft.PeftModel.from_pretrained reads without this package.

Shapes: W (out, in), A (r, in), B (out, r). peft adds alpha / r * B @ A (alpha / sqrt(r) with rsLoRA) to W.
"""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from fedlit.adapters.peft_import import LoraConfig, PeftModel, without_bitsandbytes
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank


@dataclass(frozen=True, slots=True)
class _Factors:
    """What the files hold of one layer."""

    a: Tensor
    b: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]


def write_peft_adapter(
    folder: Path,
    layers: Sequence[LoraLayer],
    tensors: Mapping[str, Tensor],
    changes: Mapping[str, LowRank],
    *,
    backbone_path: str,
    task_type: str | None = "CAUSAL_LM",
    client_id: int | None = None,
) -> None:
    """Write adapter_config.json and adapter_model.safetensors into an existing folder.

    Without changes and cores the factors are written bit for bit, with their rank, alpha and rsLoRA. Otherwise every
    layer becomes the equal LoRA of its own rank in float32: change + scaling * B @ A, factored, with the scale inside B
    and alpha = r.

    Args:
        folder: where the files go.
        layers: the LoRA layers, of one kind.
        tensors: the parameters that the layers name.
        changes: by layer name, what the backbone's weight (out, in) has more than the pretrained one.
        backbone_path: the pretrained model, as peft notes it.
        task_type: peft's, None for a model without one.
        client_id: whose factors these are, where clients differ in rank; None for the server's.
    """
    assert layers and len({layer.use_rslora for layer in layers}) == 1
    literal = not changes and all(layer.core is None for layer in layers)
    build = _literal if literal else _equal
    factors = {layer.name: build(layer, tensors, changes.get(layer.name), client_id) for layer in layers}
    rank = _most_common([one.rank for one in factors.values()])
    alpha = _most_common([one.alpha for one in factors.values()])
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        rank_pattern={_pattern(name): one.rank for name, one in factors.items() if one.rank != rank},
        alpha_pattern={_pattern(name): one.alpha for name, one in factors.items() if one.alpha != alpha},
        use_rslora=literal and layers[0].use_rslora,
        fan_in_fan_out=any(layer.transposed for layer in layers),
        target_modules=list(factors),
        task_type=task_type,
        base_model_name_or_path=backbone_path,
        inference_mode=True,
    )
    config.target_modules = sorted(factors)  # peft keeps a set, which would be written in another order each time
    config.save_pretrained(folder)
    save_file(_named(factors), folder / "adapter_model.safetensors", metadata={"format": "pt"})


def load_peft_adapter(model: Any, folder: Path) -> None:
    """Put peft's layers with the factors of an adapter's files around the layers of a model, in place."""
    with warnings.catch_warnings(), without_bitsandbytes():
        # peft asks transformers by an old name; nothing a user of this package could change.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        # Targets of both layouts, as in Lora.attach.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        PeftModel.from_pretrained(model, str(folder))  # in place; the shell it returns is not needed


def _literal(
    layer: LoraLayer, tensors: Mapping[str, Tensor], change: LowRank | None, client_id: int | None
) -> _Factors:
    """Return A and B as they are; of a client of smaller rank the rows and columns that it has."""
    assert change is None
    rank = layer.rank_of(client_id)
    return _Factors(tensors[layer.a][:rank], tensors[layer.b][:, :rank], layer.alpha)


def _equal(layer: LoraLayer, tensors: Mapping[str, Tensor], change: LowRank | None, client_id: int | None) -> _Factors:
    """Return a LoRA at scaling 1 that adds `change` and the layer's own, at the numerical rank of the sum."""
    total = layer.change(tensors, client_id)
    if change is not None:
        total = total + change.to(total.left.dtype)
        # Singular vectors for rows and columns also keep the entries of both factors far from the limits of float32.
        total = total.truncated(max(1, total.rank()))
    return _Factors(total.right.float(), total.left.float(), float(total.width))


def _named(factors: Mapping[str, _Factors]) -> dict[str, Tensor]:
    """Return the tensors under peft's names, which begin at its shell, two attributes above the model."""
    named = {}
    for name, one in factors.items():
        for factor, tensor in (("A", one.a), ("B", one.b)):
            named[f"base_model.model.{name}.lora_{factor}.weight"] = tensor.detach().to("cpu", copy=True).contiguous()
    return named


def _pattern(name: str) -> str:
    """Return the regular expression by which peft finds one module's rank: it would take a suffix for the module."""
    return "^" + name.replace(".", r"\.")


def _most_common(values: Sequence[int] | Sequence[float]) -> int | float:
    return Counter(values).most_common(1)[0][0]
