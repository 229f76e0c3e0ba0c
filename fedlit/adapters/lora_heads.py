"""LoRA with heads: a frozen weight W (out, in) plus scaling * sum_h s_h B_h @ H_h @ A_h, of which H_h and s_h train.

Raje et al., Ravan: Multi-Head Low-Rank Adaptation for Federated Fine-Tuning, arXiv 2506.05568 (NeurIPS 2025). A_h
(r, in) and B_h (out, r) are the same everywhere and never change; every H_h (r, r) begins at 0, every s_h at 1. With
h r^2 trained numbers the change has the rank h r, where one core of as many numbers (Fed-SB) has sqrt(h) r. A client
sends s_h H_h (`round/transforms/scaled_heads.py`), in which the layer is linear, so that the mean is the exact mean of
the clients' weights, and s_h is 1 again in the next round.

Not here: clients that train some of the heads alone, for which every head's mean would be one over other clients.

Shapes: A (h r, in), B (out, h r) hold all heads side by side, H (h r, r) one below the other, s (h,).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedlit.adapters.base import Adapter, Calibration
from fedlit.adapters.options import INITS_OF_HEADS as INITS
from fedlit.adapters.options import LoraHeadsOptions
from fedlit.adapters.targets import is_conv1d, linear_targets
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.merging import merged_weights
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.models import Projections


class HeadsLayer(nn.Module):
    """A frozen linear layer with the frozen factors, the cores and the scales of its heads, in float32 or finer.

    client_weights: parameters that several clients in one forward pass have of their own, and the method that computes
    a product with them (`client/together`). made_of: by method, the parameters that `matrix_of` makes its matrix of.
    """

    client_weights: ClassVar[Mapping[str, str]] = {"heads_H": "through_heads", "heads_s": "through_heads"}
    made_of: ClassVar[Mapping[str, tuple[str, ...]]] = {"through_heads": ("heads_H", "heads_s")}

    def __init__(self, base_layer: nn.Module, num_heads: int, rank: int, scaling: float, *, transposed: bool) -> None:
        super().__init__()
        weight: Tensor = base_layer.weight  # type: ignore[assignment]
        num_outputs, num_inputs = reversed(weight.shape) if transposed else weight.shape
        width = num_heads * rank
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self.base_layer = base_layer
        self.scaling = scaling
        self.transposed = transposed
        self.heads_A = nn.Parameter(weight.new_zeros(width, num_inputs, dtype=dtype), requires_grad=False)
        self.heads_B = nn.Parameter(weight.new_zeros(num_outputs, width, dtype=dtype), requires_grad=False)
        self.heads_H = nn.Parameter(weight.new_zeros(width, rank, dtype=dtype))
        self.heads_s = nn.Parameter(weight.new_ones(num_heads, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) in the type of the base layer's output, for x (..., in)."""
        base: Tensor = self.base_layer(x)
        heads = self.through_heads(functional.linear(x.to(self.heads_A.dtype), self.heads_A))
        return (base + functional.linear(heads, self.heads_B) * self.scaling).to(base.dtype)

    def through_heads(self, x: Tensor) -> Tensor:
        """Return (..., h r) for x (..., h r)."""
        return functional.linear(x, self.matrix_of(self.heads_H, self.heads_s))

    @staticmethod
    def matrix_of(cores: Tensor, scales: Tensor) -> Tensor:
        """Return the block-diagonal matrix of all s_h H_h, (..., h r, h r).

        Args:
            cores: (..., h r, r).
            scales: (..., h).

        One product with it is faster than a small one for each head, and small beside those with A and B.
        """
        num_heads = scales.shape[-1]
        width, rank = cores.shape[-2:]
        blocks = cores.view(*cores.shape[:-2], num_heads, rank, rank) * scales[..., None, None]
        eye = torch.eye(num_heads, dtype=blocks.dtype, device=blocks.device)
        whole: Tensor = blocks.unsqueeze(-2) * eye[:, None, :, None]  # (..., h, r, h, r)
        return whole.reshape(*cores.shape[:-2], width, width)


@dataclass(frozen=True, kw_only=True)
class LoraHeads(LoraHeadsOptions, Adapter):
    """Ravan's adapter on the target modules.

    num_heads: h. lora_rank: r of one head, the same for all. lora_alpha: scaling = alpha / r; the paper has no
    scaling, alpha = r.
    target_modules: see Projections.select and Projections.find.
    init: where A_h and B_h come from. `orthogonal`: the rows of all A_h together are orthonormal, and so are the
        columns of all B_h, as Gram and Schmidt make them of normal ones. `normal`: independent, of variance 1 / in and
        1 / out, so that rows and columns have a length of about 1 there, too.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.lora_rank, int):
            raise UserError(f"method.lora_rank={self.lora_rank}: heads are averaged as they are; give one number")
        for name in ("lora_rank", "num_heads"):
            if getattr(self, name) < 1:
                raise UserError(f"method.{name}={getattr(self, name)} must be 1 or more")
        if not self.lora_alpha > 0:
            raise UserError(f"method.lora_alpha={self.lora_alpha} must be above 0")
        if self.init not in INITS:
            raise UserError(f"method.init={self.init} is not known; valid are {', '.join(INITS)}")

    @property
    def shares_backbone(self) -> bool:
        """The heads stand beside it."""
        return True

    @property
    def sends(self) -> frozenset[str]:
        """Heads."""
        return frozenset("H")

    def attach(
        self, model: nn.Module, projections: Projections, calibration: Calibration | None = None
    ) -> dict[str, float]:
        """Wrap the target layers in place; the model computes what it did before."""
        targets = self._targets(model, projections)
        model.requires_grad_(False)
        for name, base in targets.items():
            scaling = self.lora_alpha / self.lora_rank
            layer = HeadsLayer(base, self.num_heads, self.lora_rank, scaling, transposed=is_conv1d(base))
            model.set_submodule(name, layer)
            if base.weight.device.type != "meta":
                self._draw(layer)
        return {}

    def shared(self, model: nn.Module) -> TensorDict:
        """Return the cores and the scales."""
        return {
            f"{name}.{part}": getattr(layer, part).data
            for name, layer in _wrapped(model).items()
            for part in ("heads_H", "heads_s")
        }

    def layers(self, model: nn.Module) -> tuple[LoraLayer, ...]:
        """Return the adapted layers in the model's order; their rank is that of all heads together."""
        return tuple(
            LoraLayer(
                name=name,
                a=f"{name}.heads_A",
                b=f"{name}.heads_B",
                core=f"{name}.heads_H",
                scale=f"{name}.heads_s",
                weight=f"{name}.base_layer.weight",
                rank=self.num_heads * self.lora_rank,
                alpha=self.num_heads * self.lora_alpha,
                transposed=layer.transposed,
            )
            for name, layer in _wrapped(model).items()
        )

    def merged(self, model: nn.Module) -> TensorDict:
        """Return W + scaling * sum_h s_h B_h @ H_h @ A_h of every adapted layer, in float32 or finer, in W's layout."""
        return merged_weights(self.layers(model), dict(model.named_parameters()))

    def _targets(self, model: nn.Module, projections: Projections) -> dict[str, Any]:
        """Return the layers to wrap by name, every one linear and with room for orthogonal heads."""
        found: dict[str, Any] = linear_targets(model, projections, self.target_modules)
        width = self.num_heads * self.lora_rank
        for name, layer in found.items():
            if self.init == "orthogonal" and width > (side := min(layer.weight.shape)):
                raise UserError(
                    f"method.num_heads={self.num_heads} times method.lora_rank={self.lora_rank} is {width}, and {name} "
                    f"has {side} orthogonal directions; lower one of them, or give method.init=normal"
                )
        return {name: module for name, module in model.named_modules() if name in found}

    @torch.no_grad()
    def _draw(self, layer: HeadsLayer) -> None:
        """Set A and B."""
        for factor in (layer.heads_A, layer.heads_B.T):
            if self.init == "orthogonal":
                nn.init.orthogonal_(factor)
            else:
                nn.init.normal_(factor, std=max(factor.shape[1], 1) ** -0.5)


def _wrapped(model: nn.Module) -> dict[str, HeadsLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, HeadsLayer)}
