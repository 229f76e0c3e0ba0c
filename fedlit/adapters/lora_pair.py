"""Two LoRAs side by side in one layer, one that comes from the server and one that is its client's own.

Shapes: W (out, in) frozen, A (r, in) and B (out, r) of either, scaling s = alpha / r or alpha / sqrt(r):
    y = W x + s (u(x) * B_shared @ A_shared @ x + v(x) * B_private @ A_private @ x),
with weights u(x), v(x) that depend on the input (`lora_rest`, `lora_dual`). No W' computes this, so the two cannot be
merged into one weight; what `merged` returns is W + s B_shared @ A_shared, the model without a client.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedlit.adapters.base import Adapter, Calibration
from fedlit.adapters.options import LoraPairOptions
from fedlit.adapters.targets import is_conv1d, linear_targets
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.merging import merged_weights
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.models import Projections

SHARED, PRIVATE = "shared", "private"


class PairLayer(nn.Module):
    """A frozen linear layer with two LoRAs, in float32 or finer over any base type.

    Both see one draw of dropout, the base none. The layers of a product are nn.Linear, so that several clients in one
    forward pass may have their own (`client/together`).
    """

    def __init__(self, base_layer: nn.Module, rank: int, scaling: float, dropout: float) -> None:
        super().__init__()
        weight: Tensor = base_layer.weight  # type: ignore[assignment]
        self.transposed = is_conv1d(base_layer)
        outputs, inputs = reversed(weight.shape) if self.transposed else weight.shape
        if hasattr(base_layer, "in_features"):  # of a weight in 4 bits the shape says nothing
            outputs, inputs = int(base_layer.out_features), int(base_layer.in_features)  # type: ignore[arg-type]
        self.base_layer = base_layer
        self.scaling = scaling
        made: dict[str, Any] = {
            "bias": False,
            "device": weight.device,
            "dtype": torch.promote_types(weight.dtype, torch.float32),
        }
        self.lora_A = nn.ModuleDict({name: nn.Linear(inputs, rank, **made) for name in (SHARED, PRIVATE)})
        self.lora_B = nn.ModuleDict({name: nn.Linear(rank, outputs, **made) for name in (SHARED, PRIVATE)})
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(dropout) if dropout else nn.Identity()})
        for name in (SHARED, PRIVATE):  # as peft
            nn.init.kaiming_uniform_(self.lora_A[name].weight, a=math.sqrt(5))  # type: ignore[arg-type]
            nn.init.zeros_(self.lora_B[name].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) in the type of the base layer's output, for x (..., in)."""
        base: Tensor = self.base_layer(x)
        change = self.mixed(x.to(self.lora_A[SHARED].weight.dtype))  # type: ignore[arg-type]
        return base if change is None else (base + change * self.scaling).to(base.dtype)

    def mixed(self, x: Tensor) -> Tensor | None:
        """Return the weighted sum of both products (..., out), without the scaling; None for nothing."""
        raise NotImplementedError

    def product(self, name: str, x: Tensor) -> Tensor:
        """Return B @ A @ x of one of them, (..., out), for x after dropout."""
        result: Tensor = self.lora_B[name](self.lora_A[name](x))
        return result

    def frozen_product(self, name: str, x: Tensor) -> Tensor:
        """Return the same; its factors get no gradient."""
        a, b = (self.get_submodule(f"lora_{factor}.{name}").weight for factor in "AB")
        assert isinstance(a, Tensor) and isinstance(b, Tensor)
        return functional.linear(functional.linear(x, a.detach()), b.detach())


@dataclass(frozen=True, kw_only=True)
class LoraPair(LoraPairOptions, Adapter):
    """What two LoRAs on the target modules have in common; options as of `Lora`, one rank for all."""

    def __post_init__(self) -> None:
        if not isinstance(self.lora_rank, int) or self.lora_rank < 1:
            raise UserError(
                f"method.lora_rank={self.lora_rank}: two LoRAs of one rank stand side by side; give one number, 1 or "
                "more"
            )
        if not self.lora_alpha > 0:
            raise UserError(f"method.lora_alpha={self.lora_alpha} must be above 0")
        if not 0 <= self.lora_dropout < 1:
            raise UserError(f"method.lora_dropout={self.lora_dropout} must be in [0, 1)")

    @property
    def shares_backbone(self) -> bool:
        """Both stand beside it."""
        return True

    @property
    def stands_beside(self) -> bool:
        """Nothing is done to the pretrained weights."""
        return True

    @property
    def mixes_by_input(self) -> bool:
        """Both LoRAs are weighted by what they see."""
        return True

    @property
    def scaling(self) -> float:
        """alpha / r, or alpha / sqrt(r)."""
        return self.lora_alpha / (self.lora_rank**0.5 if self.use_rslora else self.lora_rank)

    def attach(
        self, model: nn.Module, projections: Projections, calibration: Calibration | None = None
    ) -> dict[str, float]:
        """Wrap the target layers in place."""
        self.put_into(model, tuple(linear_targets(model, projections, self.target_modules)))
        return {}

    def put_into(self, model: nn.Module, names: Sequence[str]) -> None:
        """Wrap the layers of these names in place, in their order; all else is frozen."""
        model.requires_grad_(False)
        for name in names:
            model.set_submodule(name, self.layer_around(model, name))

    def layer_around(self, model: nn.Module, name: str) -> PairLayer:
        """Return what takes a layer's place."""
        raise NotImplementedError

    def shared(self, model: nn.Module) -> TensorDict:
        """Return the factors of the LoRA that comes from the server."""
        return factors(model, SHARED)

    def private(self, model: nn.Module) -> TensorDict:
        """Return the factors of the client's own, and what weighs the two."""
        return factors(model, PRIVATE) | self.weighing(model)

    def weighing(self, model: nn.Module) -> TensorDict:
        """Return the live tensors that make the weights of the two."""
        raise NotImplementedError

    def described(self, model: nn.Module, name: str = SHARED) -> tuple[LoraLayer, ...]:
        """Return one of the two LoRAs as layers that files of peft can hold."""
        return tuple(
            LoraLayer(
                name=path,
                a=f"{path}.lora_A.{name}.weight",
                b=f"{path}.lora_B.{name}.weight",
                weight=f"{path}.base_layer.weight",
                rank=self.lora_rank,
                alpha=self.lora_alpha,
                use_rslora=self.use_rslora,
                transposed=layer.transposed,
            )
            for path, layer in pair_layers(model)
        )

    def merged(self, model: nn.Module) -> TensorDict:
        """Return W + scaling * B @ A of every adapted layer with the server's LoRA alone, in float32 or finer."""
        return merged_weights(self.described(model), dict(model.named_parameters()))


def pair_layers(model: nn.Module) -> Iterator[tuple[str, PairLayer]]:
    """Yield the layers with two LoRAs and their names."""
    for name, module in model.named_modules():
        if isinstance(module, PairLayer):
            yield name, module


def factors(model: nn.Module, which: str) -> TensorDict:
    """Return the live A and B of one of the two LoRAs by parameter name."""
    found = {}
    for name, layer in pair_layers(model):
        for factor, modules in (("A", layer.lora_A), ("B", layer.lora_B)):
            weight = modules[which].weight
            assert isinstance(weight, Tensor)
            found[f"{name}.lora_{factor}.{which}.weight"] = weight.data
    return found


def twin(name: str) -> str:
    """Return the name of the same factor of the other LoRA."""
    old, new = (SHARED, PRIVATE) if name.endswith(f".{SHARED}.weight") else (PRIVATE, SHARED)
    return f"{name.removesuffix(f'{old}.weight')}{new}.weight"


def is_factor(name: str) -> bool:
    """Tell whether a parameter is a factor of one of the two."""
    return ".lora_A." in name or ".lora_B." in name


def twins_of(shared: Mapping[str, Tensor], private: Mapping[str, Tensor]) -> TensorDict:
    """Return the private factors under the names of the shared."""
    return {name: private[twin(name)] if is_factor(name) else tensor for name, tensor in shared.items()}
