"""How much of a backbone SCL's start keeps, against the width d of the compression.

Beyond the paper. Mahla, Gupta and Sethi, Sequential Compression Layers, arXiv 2412.07021, equation 1, replaces a down
projection W (m, M) by W_2 W_c with W_2 = W W_c^+; the paper draws W_c and does not give d. Kept of the weights is
1 - |W - W_2 W_c|^2 / |W|^2, of the function 1 - E|(W - W_2 W_c) x|^2 / E|W x|^2 over the layer's inputs x, and what is
left of the model is its loss, all on the training batches that an adapter may look at.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fedlit.adapters.base import Calibration
from fedlit.adapters.options import INITS_OF_COMPRESSION as INITS
from fedlit.adapters.scl import best_pair, gaussian_rows, times_pseudo_inverse
from fedlit.adapters.targets import is_conv1d
from fedlit.assembly import calibration_batches
from fedlit.errors import UserError
from fedlit.inputs import gather_inputs
from fedlit.lab.analyses.base import Analysis, Findings, Run, Table
from fedlit.lab.analysis.column import Line, Panel, Picture
from fedlit.models import Projections
from fedlit.outside.loading import load_plugins
from fedlit.planning import make_plan, make_task
from fedlit.recipes import picked_names
from fedlit.seeding import torch_stream

NUM_WIDTHS = 9
"""Values of d, from 1 to M."""
NUM_DRAWS = 3
"""Of a random W_c, over which a mean is taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Means over the layers, and over draws of a random start: shares of weights and of function, and the loss."""

    init: str
    dim: int
    weights: float
    function: float
    loss: float


class Initialisation(Analysis):
    """Share of the weights and of the function kept against d for each init of SCL, on the run's own backbone."""

    name = "initialisation"
    title = "SCL's initialisation"
    source = "beyond arXiv 2412.07021 (SCL), equation 1"
    remedy = "run method=scl"

    def missing(self, runs: Sequence[Run]) -> str:
        """Return why nothing can be made of these runs."""
        return "" if _of_scl(runs) else f"no run is of SCL, whose backbone would be looked at; {self.remedy}"

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return shares and losses of the backbone of the first run of SCL."""
        run = _of_scl(runs)[0]
        before, kept = keeps(run)
        rows = [
            {"init": k.init, "d": k.dim, "weights kept": k.weights, "function kept": k.function, "loss": k.loss}
            for k in kept
        ]
        panels = [
            Panel(x="width d of the compression", y=label, lines=_lines(kept, name), log_x=True)
            for label, name in (("share of weights", "weights"), ("share of function", "function"))
        ]
        places = sorted({k.dim for k in kept})
        whole = Line(name="pretrained", x=places, y=[before] * len(places), is_reference=True)
        panels.append(
            Panel(x="width d of the compression", y="loss (nats)", lines=[*_lines(kept, "loss"), whole], log_x=True)
        )
        caption = f"What each init keeps of the backbone of {run.name} before training."
        notes = [
            f"Loss of the pretrained backbone on these batches: {before:.4g} nats. Random starts: {NUM_DRAWS} draws."
        ]
        table = Table(name="initialisation", caption=f"{caption} Loss in nats.", columns=tuple(rows[0]), rows=rows)
        return Findings(
            tables=[table],
            pictures=[Picture(name="initialisation", caption=caption, panels=panels, height=1.25)],
            notes=notes,
        )


def _of_scl(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if ("adapter", "scl") in picked_names(run.config.method)]


def _lines(kept: Sequence[Kept], name: str) -> list[Line]:
    inits = dict.fromkeys(each.init for each in kept)
    return [
        Line(name=init, x=[k.dim for k in kept if k.init == init], y=[getattr(k, name) for k in kept if k.init == init])
        for init in inits
    ]


def keeps(run: Run) -> tuple[float, list[Kept]]:
    """Return the pretrained loss, and what every init keeps at every d, on the run's own rows and backbone.

    Raises:
        UserError: its data or its model is not there any more.
    """
    load_plugins(run.config.plugins)
    config = copy.deepcopy(run.config)
    config.analysis, config.eval.general = [], None  # a general set is not looked at, and may be gone
    plan = make_plan(gather_inputs(config))
    backbone = plan.backbone()
    backbone.model.eval().requires_grad_(False)
    batches = calibration_batches(plan, backbone.model, make_task(plan, backbone))
    layers = down_layers(backbone.model, backbone.projections)
    moments, before = input_moments(layers, batches)
    found = []
    for init in INITS:
        for dim in widths(min(weight_of(layer).shape[1] for layer in layers.values())):
            found.append(_keep(layers, moments, batches, init, dim, run.config.seed))
    return before, found


def widths(most: int) -> list[int]:
    """Return at most NUM_WIDTHS values from 1 to `most`, each about a constant factor above the one before."""
    return sorted({round(most ** (step / (NUM_WIDTHS - 1))) for step in range(NUM_WIDTHS)})


def down_layers(model: nn.Module, projections: Projections) -> dict[str, nn.Module]:
    """Return the down projections by their paths."""
    found = projections.find(model, projections.mlp[-1])
    layers = {name: layer for name, layer in found.items() if isinstance(layer, nn.Linear) or is_conv1d(layer)}
    if not layers:
        raise UserError(f"the model has no linear layer {projections.mlp[-1]}; give model.mlp")
    return layers


def weight_of(layer: nn.Module) -> Tensor:
    """Return W (m, M), whatever the layout in which it is stored."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach().T if is_conv1d(layer) else weight.detach()


@torch.no_grad()
def input_moments(layers: Mapping[str, nn.Module], batches: Calibration) -> tuple[dict[str, Tensor], float]:
    """Return the sum of x x' over a layer's inputs, (M, M) in float64, for each layer, and the mean loss."""
    moments: dict[str, Tensor] = {}

    def add(name: str, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].flatten(0, -2).double()
        moments[name] = moments.get(name, 0) + x.T @ x

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(add, name)))
        return moments, _mean_loss(batches)


def shares(weight: Tensor, product: Tensor, moment: Tensor) -> tuple[float, float]:
    """Return the shares of the weights and of the function that W_2 W_c keeps of W, both (m, M), in float64.

    moment: sum of x x' over the inputs, (M, M).
    """
    lost = weight - product
    function = 1 - torch.trace(lost @ moment @ lost.T) / torch.trace(weight @ moment @ weight.T)
    return float(1 - lost.square().sum() / weight.square().sum()), float(function)


def products(weight: Tensor, moment: Tensor, init: str, dim: int) -> Iterator[Tensor]:
    """Yield W_2 W_c (m, M) of an init: NUM_DRAWS of a random one, from the stream that is open, else one."""
    if init == "gaussian":
        for _ in range(NUM_DRAWS):
            w_c = gaussian_rows(dim, weight)
            yield times_pseudo_inverse(weight, w_c) @ w_c
        return
    w_c, w_2 = best_pair(weight, dim, weight @ moment @ weight.T if init == "whitened" else None)
    yield w_2 @ w_c


def _keep(
    layers: Mapping[str, nn.Module],
    moments: Mapping[str, Tensor],
    batches: Calibration,
    init: str,
    dim: int,
    seed: int,
) -> Kept:
    """Return what one start keeps; the model is as before afterwards."""
    with torch_stream(seed, f"initialisation/{init}/{dim}"):
        made = {
            name: list(products(weight_of(layer).double(), moments[name], init, dim)) for name, layer in layers.items()
        }
    found = [shares(weight_of(layers[name]).double(), p, moments[name]) for name, each in made.items() for p in each]
    num_draws = len(next(iter(made.values())))
    losses = [
        _loss_with(layers, {name: each[draw] for name, each in made.items()}, batches) for draw in range(num_draws)
    ]
    weights, function = (sum(pair[part] for pair in found) / len(found) for part in (0, 1))
    return Kept(init=init, dim=dim, weights=weights, function=function, loss=sum(losses) / len(losses))


@torch.no_grad()
def _loss_with(layers: Mapping[str, nn.Module], weights: Mapping[str, Tensor], batches: Calibration) -> float:
    """Return the mean loss with other weights in the layers, which are as before afterwards."""
    pretrained = {name: weight_of(layer).clone() for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            weight_of(layer).copy_(weights[name])
        return _mean_loss(batches)
    finally:
        for name, layer in layers.items():
            weight_of(layer).copy_(pretrained[name])


@torch.no_grad()
def _mean_loss(batches: Calibration) -> float:
    losses = [float(loss) for loss in batches()]
    return sum(losses) / len(losses)
