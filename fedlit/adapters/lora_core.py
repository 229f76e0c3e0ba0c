"""LoRA with a core: a frozen weight W (out, in) plus scaling * B @ C @ A, of which only C (r, r) trains and travels.

Singhal et al., Fed-SB, arXiv 2502.15436, on the layer and the initialisation of LoRA-SB (Ponkshe et al., arXiv
2411.19557, algorithm 1). A (r, in) and B (out, r) are the same everywhere and never change, so scaling * B @ C @ A is
linear in C and the mean of the cores is the exact mean of the clients' weights, at r * r numbers a layer.

With init=update, as published, the model starts one step away from the pretrained one: A, B and C are the truncated SVD
of the first step that full fine-tuning would take. Differs from the released code in: the SVD is that of float32 and,
up to EXACT_SIDE, exact rather than randomised and rounded to bfloat16; the gradient is a mean over batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedlit.adapters.base import Adapter, Calibration
from fedlit.adapters.options import INITS_OF_CORES as INITS
from fedlit.adapters.options import LoraCoreOptions
from fedlit.adapters.targets import is_conv1d, linear_targets
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.merging import merged_weights
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.models import Projections

EXACT_SIDE = 1024
"""Matrices with a smaller side above this get a randomised SVD: the exact one of a 7B model would take hours."""


class CoreLayer(nn.Module):
    """A frozen linear layer with its frozen factors and its core, in float32 or finer over any base type.

    client_weights: parameters that several clients in one forward pass have of their own, and the method that computes
    a product with each (`client/together`).
    """

    client_weights: ClassVar[Mapping[str, str]] = {"sb_C": "through_core"}

    def __init__(self, base_layer: nn.Module, rank: int, scaling: float, *, transposed: bool) -> None:
        super().__init__()
        weight: Tensor = base_layer.weight  # type: ignore[assignment]
        num_outputs, num_inputs = reversed(weight.shape) if transposed else weight.shape
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self.base_layer = base_layer
        self.scaling = scaling
        self.transposed = transposed
        self.sb_A = nn.Parameter(weight.new_zeros(rank, num_inputs, dtype=dtype), requires_grad=False)
        self.sb_B = nn.Parameter(weight.new_zeros(num_outputs, rank, dtype=dtype), requires_grad=False)
        self.sb_C = nn.Parameter(weight.new_zeros(rank, rank, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) in the type of the base layer's output, for x (..., in)."""
        base: Tensor = self.base_layer(x)
        core = self.through_core(functional.linear(x.to(self.sb_A.dtype), self.sb_A))
        return (base + functional.linear(core, self.sb_B) * self.scaling).to(base.dtype)

    def through_core(self, x: Tensor) -> Tensor:
        """Return (..., r) for x (..., r)."""
        return functional.linear(x, self.sb_C)


@dataclass(frozen=True, kw_only=True)
class LoraCore(LoraCoreOptions, Adapter):
    """Fed-SB's adapter on the target modules.

    lora_rank: r, the same for all clients. lora_alpha: scaling = alpha / r (the paper has alpha = r).
    target_modules: see Projections.select and Projections.find.
    init: where A and B come from, and C.
        `update`: the top r singular vectors of -init_lr * sign(G), the first step of Adam, with G the mean gradient of
        W over the calibration batches; C holds the singular values over the scaling, so that scaling * B @ C @ A is
        the best rank-r approximation of that step (the paper). The model before the first round is not the pretrained.
        `gradient`: the top r singular vectors of G; C is zero and the model starts as pretrained.
        `weights`: the top r singular vectors of W; C is zero. `random`: orthonormal; C is zero.
    lr, init_lr: the local learning rate, and the one of the step that init=update takes (None for the same, as in the
        paper). A core may want a larger rate than all weights at once would bear.
    """

    lr: float = 1e-3

    def __post_init__(self) -> None:
        if not isinstance(self.lora_rank, int):
            raise UserError(f"method.lora_rank={self.lora_rank}: cores are averaged as they are; give one number")
        if self.lora_rank < 1:
            raise UserError(f"method.lora_rank={self.lora_rank} must be 1 or more")
        if not self.lora_alpha > 0:
            raise UserError(f"method.lora_alpha={self.lora_alpha} must be above 0")
        if self.init_lr is not None and not self.init_lr > 0:
            raise UserError(f"method.init_lr={self.init_lr} must be above 0, or null for local.lr")
        if self.init not in INITS:
            raise UserError(f"method.init={self.init} is not known; valid are {', '.join(INITS)}")

    @property
    def shares_backbone(self) -> bool:
        """The core stands beside it."""
        return True

    @property
    def looks_at_rows(self) -> bool:
        """With init=update and gradient."""
        return self.init in ("update", "gradient")

    def attach(
        self, model: nn.Module, projections: Projections, calibration: Calibration | None = None
    ) -> dict[str, float]:
        """Wrap the target layers in place; on the meta device only shapes are made.

        Returns:
            init/captured_energy: the part of the squared Frobenius norm of the matrix behind A and B that lies in their
            r directions, and init/change_norm: the Frobenius norm of scaling * B @ C @ A, both over all layers.
        """
        targets = self._targets(model, projections)
        gradients: dict[str, Tensor] = {}
        meta = any(layer.weight.device.type == "meta" for layer in targets.values())
        if self.init in ("update", "gradient") and not meta:
            if calibration is None:
                raise UserError(
                    f"method.init={self.init} needs the gradient of a few training batches, and none are given; "
                    "use method.init=weights or random"
                )
            gradients = _mean_gradients(model, {name: layer.weight for name, layer in targets.items()}, calibration)
        model.requires_grad_(False)
        energy = captured = change = 0.0
        for name, base in targets.items():
            layer = self._wrap(model, name, base)
            if meta:
                continue
            source = self._source(base.weight.data, gradients.pop(name, None), transposed=layer.transposed)
            values = self._fill(layer, source)
            captured += float(values.square().sum())
            energy += float(source.square().sum()) if source is not None else 0.0
            change += float((layer.scaling * layer.sb_C.data).square().sum())  # A and B are orthonormal
        if meta:
            return {}
        report = {"init/change_norm": change**0.5}
        return report | ({"init/captured_energy": captured / energy} if energy > 0 else {})

    def shared(self, model: nn.Module) -> TensorDict:
        """Return the cores."""
        return {f"{name}.sb_C": layer.sb_C.data for name, layer in _wrapped(model).items()}

    def fixed(self, model: nn.Module) -> TensorDict:
        """Return A and B, which come from data: a run that goes on elsewhere must have the same."""
        return {
            f"{name}.{part}": getattr(layer, part).data
            for name, layer in _wrapped(model).items()
            for part in ("sb_A", "sb_B")
        }

    def layers(self, model: nn.Module) -> tuple[LoraLayer, ...]:
        """Return the adapted layers in the model's order."""
        return tuple(
            LoraLayer(
                name=name,
                a=f"{name}.sb_A",
                b=f"{name}.sb_B",
                core=f"{name}.sb_C",
                weight=f"{name}.base_layer.weight",
                rank=self.lora_rank,
                alpha=self.lora_alpha,
                transposed=layer.transposed,
            )
            for name, layer in _wrapped(model).items()
        )

    def merged(self, model: nn.Module) -> TensorDict:
        """Return W + scaling * B @ C @ A of every adapted layer, in float32 or finer and in W's layout."""
        return merged_weights(self.layers(model), dict(model.named_parameters()))

    def _targets(self, model: nn.Module, projections: Projections) -> dict[str, Any]:
        """Return the layers to wrap by name, every one linear and of at least rank r."""
        found: dict[str, Any] = linear_targets(model, projections, self.target_modules)
        for name, layer in found.items():
            if self.lora_rank > (side := min(layer.weight.shape)):
                raise UserError(
                    f"method.lora_rank={self.lora_rank} but {name} has {side} orthogonal directions; lower it"
                )
        return {name: module for name, module in model.named_modules() if name in found}

    def _wrap(self, model: nn.Module, name: str, base: nn.Module) -> CoreLayer:
        layer = CoreLayer(base, self.lora_rank, self.lora_alpha / self.lora_rank, transposed=is_conv1d(base))
        model.set_submodule(name, layer)
        return layer

    def _source(self, weight: Tensor, gradient: Tensor | None, *, transposed: bool) -> Tensor | None:
        """Return the matrix (out, in) whose singular vectors A and B are; None if they are random."""
        if self.init == "random":
            return None
        source = _as_fine(weight)
        if gradient is not None:
            step = self.lr if self.init_lr is None else self.init_lr
            source = -step * gradient.sign() if self.init == "update" else gradient
        return source.T if transposed else source

    @torch.no_grad()
    def _fill(self, layer: CoreLayer, source: Tensor | None) -> Tensor:
        """Set A, B and C; return the singular values (r,) behind them, none for random ones."""
        if source is None:
            nn.init.orthogonal_(layer.sb_A)
            nn.init.orthogonal_(layer.sb_B)
            return torch.zeros(0)
        u, s, vh = _top_singular(source, self.lora_rank)
        layer.sb_B.copy_(u)
        layer.sb_A.copy_(vh)
        if self.init == "update":
            layer.sb_C.copy_(torch.diag(s / layer.scaling))
        return s


def _mean_gradients(model: nn.Module, weights: Mapping[str, nn.Parameter], calibration: Calibration) -> TensorDict:
    """Return the mean gradient of the weights over the calibration batches, (shape of each), float32 or finer.

    Each gradient is added up and dropped as soon as the backward pass has it, so that no more than one batch's largest
    is held beside the sums. The parameters are left as they were.
    """
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    sums = {
        name: torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        for name, weight in weights.items()
    }
    names = {id(weight): name for name, weight in weights.items()}

    def collect(weight: Tensor) -> None:
        assert weight.grad is not None
        sums[names[id(weight)]] += weight.grad
        weight.grad = None

    model.requires_grad_(False)
    hooks = []
    num_batches = 0
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
            hooks.append(weight.register_post_accumulate_grad_hook(collect))  # type: ignore[no-untyped-call]
        for loss in calibration():
            loss.backward()  # type: ignore[no-untyped-call]
            num_batches += 1
    finally:
        for hook in hooks:
            hook.remove()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(wanted[name])
    assert num_batches > 0, "calibration yields at least one loss"
    for name, total in sums.items():
        if not total.isfinite().all():
            raise UserError(
                f"the gradient of {name} on the calibration batches is not finite; use method.init=weights or random"
            )
    return {name: total / num_batches for name, total in sums.items()}


def _top_singular(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (out, r), S (r,) descending and Vh (r, in) of the top singular triples of a matrix (out, in).

    The entry of largest magnitude in a column of U is positive: a core that was trained on one machine and goes on on
    another would otherwise meet directions of the other sign.
    """
    if min(matrix.shape) <= EXACT_SIDE:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    else:
        # Oversampling and power iterations as Halko et al., arXiv 0909.4061, advise for a spectrum that falls slowly.
        u, s, v = torch.svd_lowrank(matrix, q=min(rank + 16, *matrix.shape), niter=10)
        vh = v.T
    u, s, vh = u[:, :rank], s[:rank], vh[:rank]
    signs = u.gather(0, u.abs().argmax(0, keepdim=True)).sign()  # (1, r)
    return u * signs, s, signs.T * vh


def _wrapped(model: nn.Module) -> dict[str, CoreLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, CoreLayer)}


def _as_fine(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
