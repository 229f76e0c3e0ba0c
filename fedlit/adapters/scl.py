"""SCL: a compression layer W_c before every down projection W, which gives way to W_2 = W W_c^+.

Mahla, Gupta and Sethi, Sequential Compression Layers, arXiv 2412.07021, equation 1. Nothing nonlinear stands between
the two layers, and both are trained and sent. In a gated MLP they follow the gate, y = W_2 W_c (act(g) * u): no other
place has fitting shapes. The paper gives neither d nor the spread of a Gaussian W_c; the spread cancels in W_2 W_c and
sets only how fast either layer learns.

W_2 W_c is W projected on the row space of W_c. A Gaussian W_c, the paper's, keeps about d / M of W's energy; the other
initialisations choose the row space that loses least.

Shapes: M inputs, m outputs, d the compression: W (m, M), W_c (d, M), W_2 (m, d), inputs x (tokens, M).
"""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fedlit.adapters.base import Adapter, Calibration
from fedlit.adapters.options import INITS_OF_COMPRESSION as INITS
from fedlit.adapters.options import SclOptions
from fedlit.adapters.targets import is_conv1d
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.models import Projections


class CompressedLinear(nn.Module):
    """x -> W_2 W_c x + bias in the factors' type, whatever the type of x; the bias stays as pretrained."""

    def __init__(self, replaced: nn.Module, w_c: Tensor, w_2: Tensor) -> None:
        super().__init__()
        (num_outputs, dim), num_inputs = w_2.shape, w_c.shape[1]
        bias = replaced.bias
        # Built on the meta device, since nn.Linear would draw its own values from the adapter's stream.
        self.compression = nn.Linear(num_inputs, dim, bias=False, device="meta")
        self.projection = nn.Linear(dim, num_outputs, bias=bias is not None, device="meta")
        self.compression.weight = nn.Parameter(w_c)
        self.projection.weight = nn.Parameter(w_2)
        if bias is not None:
            assert isinstance(bias, Tensor)
            self.projection.bias = nn.Parameter(bias.detach().to(w_2.dtype), requires_grad=False)
        self.transposed = is_conv1d(replaced)
        self.pretrained_dtype = _weight(replaced).dtype

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., M) to (..., m), in the type of `x`."""
        output: Tensor = self.projection(self.compression(x.to(self.compression.weight.dtype)))
        return output.to(x.dtype)

    def merged(self) -> Tensor:
        """Return W_2 W_c as the pretrained layer stores its weight, in its layout and type."""
        product = self.projection.weight.detach().double() @ self.compression.weight.detach().double()
        return (product.T if self.transposed else product).to(self.pretrained_dtype).contiguous()


@dataclass(frozen=True, kw_only=True)
class Scl(SclOptions, Adapter):
    """Compression layers before the down projections of all blocks.

    compression_dim: d, from 1 to the width M of the down projection's input.
    init: `gaussian`: entries of W_c are N(0, 1 / M), the paper's but for the spread. `svd`: the top d right singular
    vectors of W. `whitened`: those of W S^(1/2) taken back through S^(-1/2), with S the second moment of the layer's
    inputs on the calibration batches, padding included; W_2 is then W times the pseudo-inverse in the metric of S,
    W S W_c' (W_c S W_c')^-1, and no other pair of the same d has a smaller error of the layer's output.
    """

    def __post_init__(self) -> None:
        if self.compression_dim < 1:
            raise UserError(f"method.compression_dim={self.compression_dim} must be 1 or more")
        if self.init not in INITS:
            raise UserError(f"method.init={self.init} is not known; valid are {', '.join(INITS)}")

    @property
    def shares_backbone(self) -> bool:
        """The two layers stand in it, and the rest is the same for all."""
        return True

    @property
    def looks_at_rows(self) -> bool:
        """With init=whitened."""
        return self.init == "whitened"

    def attach(
        self, model: nn.Module, projections: Projections, calibration: Calibration | None = None
    ) -> dict[str, float]:
        """Replace the down projections in place; W_c and W_2 are float32 (float64 where W is) and alone trainable.

        Returns:
            `init/weight_error`: mean over layers of |W - W_2 W_c| / |W| (Frobenius). With calibration batches also
            `init/output_error`, mean over layers of |(W - W_2 W_c) X| / |W X| with X the inputs in the pretrained
            model, and `init/loss_before` and `init/loss_after`, mean loss of the pretrained and the changed model.
            Nothing on the meta device.

        Raises:
            UserError: the model has no such layer, d is above M, or `whitened` has no calibration batches.
        """
        layers = _down_projections(model, projections)
        for name, layer in layers.items():
            if self.compression_dim > _weight(layer).shape[1]:
                raise UserError(
                    f"method.compression_dim={self.compression_dim} is above the {_weight(layer).shape[1]} inputs "
                    f"of {name}; lower it"
                )
        model.requires_grad_(False)
        on_meta = any(_weight(layer).is_meta for layer in layers.values())
        if self.init == "whitened" and calibration is None and not on_meta:
            raise UserError(
                "method.init=whitened needs calibration batches and there are none; choose method.init=svd or gaussian"
            )
        batches = None if on_meta else calibration
        moments = _output_moments(layers, batches) if self.init == "whitened" and batches is not None else {}
        compressed = {name: self._compressed(layer, moments.get(name)) for name, layer in layers.items()}
        facts = {} if on_meta else _what_init_loses(layers, compressed, batches)
        for name, replacement in compressed.items():
            model.set_submodule(name, replacement)
        if batches is not None:
            facts["init/loss_after"] = _mean_loss(batches)
        return facts

    def shared(self, model: nn.Module) -> TensorDict:
        """Return W_c and W_2 of all layers."""
        return {
            f"{name}.{part}.weight": getattr(layer, part).weight.data
            for name, layer in _compressed_layers(model).items()
            for part in ("compression", "projection")
        }

    def products(self, model: nn.Module) -> tuple[LoraLayer, ...]:
        """Return W_2 W_c of all layers; no weight stands beside it."""
        dim = self.compression_dim
        return tuple(
            LoraLayer(
                name=name,
                a=f"{name}.compression.weight",
                b=f"{name}.projection.weight",
                weight=f"{name}.projection.weight",
                rank=dim,
                alpha=dim,
            )
            for name in _compressed_layers(model)
        )

    def merged(self, model: nn.Module) -> TensorDict:
        """Return W_2 W_c for every down projection, whose bias is the pretrained one."""
        return {f"{name}.weight": layer.merged() for name, layer in _compressed_layers(model).items()}

    def _compressed(self, layer: nn.Module, moment: Tensor | None) -> CompressedLinear:
        """Return what takes the place of `layer`, computed in float64; moment (m, m) is that of the layer's outputs."""
        stored = _weight(layer)
        dtype = torch.promote_types(stored.dtype, torch.float32)
        if stored.is_meta:
            num_outputs, num_inputs = stored.shape
            w_c = stored.new_empty(self.compression_dim, num_inputs)
            w_2 = stored.new_empty(num_outputs, self.compression_dim)
        elif self.init == "gaussian":
            # W_2 belongs to W_c as it is stored, after its rounding.
            w_c = gaussian_rows(self.compression_dim, stored).to(dtype)
            w_2 = times_pseudo_inverse(stored.double(), w_c.double())
        else:
            w_c, w_2 = best_pair(stored.double(), self.compression_dim, moment)
        return CompressedLinear(layer, w_c.to(dtype).contiguous(), w_2.to(dtype).contiguous())


def gaussian_rows(num_rows: int, like: Tensor) -> Tensor:
    """Return (num_rows, M) draws of N(0, 1 / M) in float64 where `like` (m, M) is: rows of length about 1.

    They are drawn on the CPU, so that the device does not change them.
    """
    num_inputs = like.shape[1]
    drawn = torch.randn(num_rows, num_inputs, dtype=torch.float64)
    return (drawn / math.sqrt(num_inputs)).to(like.device)


def times_pseudo_inverse(weight: Tensor, w_c: Tensor) -> Tensor:
    """Return W W_c^+ (m, d) for W (m, M) and W_c (d, M) of full row rank.

    From W_c' = Q R: W_c^+ = Q R^-T, whose error grows with the condition of W_c, that of the normal equations with its
    square.
    """
    q, r = torch.linalg.qr(w_c.T)
    product: Tensor = torch.linalg.solve_triangular(r.T, weight @ q, upper=False, left=False)
    return product


def best_pair(weight: Tensor, dim: int, moment: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return W_c (d, M), of orthonormal rows, and W_2 (m, d) that minimise tr((W - W_2 W_c) S (W - W_2 W_c)').

    moment: W S W' (m, m), the second moment of the layer's outputs; None for S = I, where it is Eckart and Young's best
    approximation of rank d. With U the moment's top d eigenvectors, which are the left singular vectors of W S^(1/2),
    the minimum is U U' W: neither S (M, M) nor a root of it is needed, and few tokens, which leave S singular, do no
    harm. Rows beyond m, for which there is nothing left to keep, are drawn; their part of the product is zero.
    """
    moment = weight @ weight.T if moment is None else moment
    kept = torch.linalg.eigh(moment).eigenvectors.flip(1)[:, :dim]
    num_drawn = dim - kept.shape[1]
    rows = torch.cat([kept.T @ weight, gaussian_rows(num_drawn, weight)])
    columns = torch.cat([kept, kept.new_zeros(len(kept), num_drawn)], 1)
    basis: tuple[Tensor, Tensor] = torch.linalg.qr(rows.T)
    return basis[0].T.contiguous(), columns @ basis[1].T


def _down_projections(model: nn.Module, projections: Projections) -> dict[str, nn.Module]:
    """Return the down projection of every block by its path, in the model's order.

    Counted are linear layers that have the MLP's other projections beside them.
    """
    *others, down = projections.mlp
    modules = dict(model.named_modules())
    found = {
        name: module
        for name, module in projections.find(model, down).items()
        if all(f"{name.removesuffix(down)}{other}" in modules for other in others)
        and (isinstance(module, nn.Linear) or is_conv1d(module))
    }
    if not found:
        raise UserError(
            f"model.mlp={list(projections.mlp)}: no block of this model has a linear layer {down} with the others "
            "beside it; give the names of one MLP's linear layers, the down projection last"
        )
    return found


def _weight(layer: nn.Module) -> Tensor:
    """Return W (m, M), whatever the layout in which it is stored."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach().T if is_conv1d(layer) else weight.detach()


def _compressed_layers(model: nn.Module) -> dict[str, CompressedLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, CompressedLinear)}


def _output_moments(layers: Mapping[str, nn.Module], calibration: Calibration) -> TensorDict:
    """Return for every layer the sum of W x (W x)' over the calibration tokens, (m, m) in float64."""
    moments: TensorDict = {}

    def add(name: str, x: Tensor) -> None:
        outputs = x @ _weight(layers[name]).double().T
        moment = outputs.T @ outputs
        moments[name] = moments[name] + moment if name in moments else moment

    _observe(layers, calibration, add)
    assert moments.keys() == layers.keys(), "a layer sees no calibration batch"
    return moments


@torch.no_grad()
def _what_init_loses(
    layers: Mapping[str, nn.Module], compressed: Mapping[str, CompressedLinear], calibration: Calibration | None
) -> dict[str, float]:
    """Return the errors of attach and the loss before it; `layers` are still the model's."""
    weights = [_relative(_weight(layer).double(), *_factors(compressed[name])) for name, layer in layers.items()]
    facts = {"init/weight_error": sum(weights) / len(weights)}
    if calibration is None:
        return facts
    squares = {name: torch.zeros(2, dtype=torch.float64) for name in layers}

    def add(name: str, x: Tensor) -> None:
        w_c, w_2 = _factors(compressed[name])
        outputs = x @ _weight(layers[name]).double().T
        lost = outputs - x @ w_c.T @ w_2.T
        squares[name] += torch.stack([lost.square().sum(), outputs.square().sum()]).cpu()

    facts["init/loss_before"] = _observe(layers, calibration, add)
    errors = [float((lost / whole).sqrt()) for lost, whole in squares.values()]
    facts["init/output_error"] = sum(errors) / len(errors)
    return facts


def _factors(layer: CompressedLinear) -> tuple[Tensor, Tensor]:
    """Return W_c and W_2 in float64."""
    return layer.compression.weight.detach().double(), layer.projection.weight.detach().double()


def _relative(weight: Tensor, w_c: Tensor, w_2: Tensor) -> float:
    """Return |W - W_2 W_c| / |W|."""
    return float((weight - w_2 @ w_c).norm() / weight.norm())


@torch.no_grad()
def _observe(layers: Mapping[str, nn.Module], calibration: Calibration, see: Callable[[str, Tensor], None]) -> float:
    """Run the calibration batches, show `see` each layer's name and inputs, and return the mean loss.

    The inputs are (tokens, M) in float64, those of padding among them: a layer cannot tell them apart.
    """

    def hook(name: str, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        see(name, inputs[0].flatten(0, -2).double())

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(hook, name)))
        return _mean_loss(calibration)


@torch.no_grad()
def _mean_loss(calibration: Calibration) -> float:
    losses = [float(loss) for loss in calibration()]
    assert losses, "there is no calibration batch"
    return sum(losses) / len(losses)
