"""The server's step from the clients' mean: FedAvgM, FedAdam, FedYogi and FedAdagrad, on any rule that averages.

The change of the mean, delta = mean - before, is minus a pseudo-gradient; a server optimizer decides how far to go
along it. For every element x of a shared tensor, in every round:

    FedAvgM (Hsu, Qi and Brown, arXiv 1909.06335)
        m = beta1 m + delta                 x += lr m
    FedAdagrad, FedYogi, FedAdam (Reddi et al., arXiv 2003.00295, Algorithm 2)
        m = beta1 m + (1 - beta1) delta     x += lr m / (sqrt(v) + tau)
        v = v + delta^2                                     FedAdagrad
        v = v - (1 - beta2) delta^2 sign(v - delta^2)       FedYogi
        v = beta2 v + (1 - beta2) delta^2                   FedAdam

m begins at 0. Algorithm 2 asks for v >= tau^2 at first; here it is tau^2, the smallest that it allows. As in the paper
there is no bias correction.

Numbers of the papers: beta1 = 0.9 and lr = 1 for FedAvgM; beta1 = 0.9, beta2 = 0.99, tau = 1e-3 for the adaptive ones,
FedAdagrad with beta1 = 0. Where delta is larger than tau, an adaptive step is about lr in every element however little
the clients changed it: lr has to be tuned, and 1 is far too large for a network's weights.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedlit.algebra.tensors import TensorDict
from fedlit.round.server import ServerState


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Numbers of a server optimizer.

    lr: server learning rate, above 0.
    beta1, beta2: momentum and decay of the second moment, from 0 up to, not including, 1. FedAvgM has no beta2 and no
    tau, FedAdagrad no beta2.
    tau: adaptivity, above 0, on the scale of delta's elements: the smaller, the less a step depends on their size.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3


def fedavgm(options: Options, delta: Tensor, moments: Mapping[str, Tensor]) -> tuple[Tensor, TensorDict]:
    """Return the step of SGD with momentum."""
    m = delta if not moments else options.beta1 * moments["m"] + delta
    return options.lr * m, {"m": m}


def fedadagrad(options: Options, delta: Tensor, moments: Mapping[str, Tensor]) -> tuple[Tensor, TensorDict]:
    """Return the step of Adagrad."""
    return _adaptive(options, delta, moments, _second(options, delta, moments) + delta.square())


def fedyogi(options: Options, delta: Tensor, moments: Mapping[str, Tensor]) -> tuple[Tensor, TensorDict]:
    """Return the step of Yogi."""
    v, square = _second(options, delta, moments), delta.square()
    return _adaptive(options, delta, moments, v - (1 - options.beta2) * square * torch.sign(v - square))


def fedadam(options: Options, delta: Tensor, moments: Mapping[str, Tensor]) -> tuple[Tensor, TensorDict]:
    """Return the step of Adam without bias correction."""
    v = options.beta2 * _second(options, delta, moments) + (1 - options.beta2) * delta.square()
    return _adaptive(options, delta, moments, v)


def _second(options: Options, delta: Tensor, moments: Mapping[str, Tensor]) -> Tensor:
    return moments["v"] if moments else torch.full_like(delta, options.tau**2)


def _adaptive(options: Options, delta: Tensor, moments: Mapping[str, Tensor], v: Tensor) -> tuple[Tensor, TensorDict]:
    m = (1 - options.beta1) * delta
    if moments:
        m = m + options.beta1 * moments["m"]
    return options.lr * m / (v.sqrt() + options.tau), {"m": m, "v": v}


ServerOptimizer = Callable[[Options, Tensor, Mapping[str, Tensor]], tuple[Tensor, TensorDict]]
"""From the options, one tensor's delta and its moments (empty at first) to its step and its next moments."""

SERVER_OPTIMIZERS: dict[str, ServerOptimizer] = {
    "fedavgm": fedavgm,
    "fedadam": fedadam,
    "fedyogi": fedyogi,
    "fedadagrad": fedadagrad,
}


@torch.no_grad()
def step(
    name: str,
    options: Options,
    before: ServerState,
    after: ServerState,
    trained: Collection[str] | None = None,
) -> ServerState:
    """Return `after` with before.shared moved by the optimizer's step instead of to the mean.

    Args:
        name: of SERVER_OPTIMIZERS.
        options: its numbers.
        before: the server at the start of the round; its `optimizer` holds the moments under `m/<parameter>` and
            `v/<parameter>`, in the parameter's type (at least float32), and none before the first round.
        after: what the rule made of it; its `shared` is the plain mean. Whatever else it holds is kept.
        trained: names of the tensors that clients trained in this round; None for all. The others keep their value and
            their moments, so that momentum does not move a factor in the round of the other one (RoLoRA).
    """
    assert name in SERVER_OPTIMIZERS, f"{name} is none of {', '.join(SERVER_OPTIMIZERS)}"
    assert before.shared.keys() == after.shared.keys(), "the rule changed the names of the shared tensors"
    shared = dict(after.shared)
    optimizer = dict(after.optimizer)
    for parameter, mean in after.shared.items():
        if trained is not None and parameter not in trained:
            continue
        dtype = torch.promote_types(mean.dtype, torch.float32)
        delta = mean.to(dtype) - before.shared[parameter].to(dtype)
        moments = {
            kind: before.optimizer[f"{kind}/{parameter}"]
            for kind in ("m", "v")
            if f"{kind}/{parameter}" in before.optimizer
        }
        change, moments = SERVER_OPTIMIZERS[name](options, delta, moments)
        # before + change, written from the mean: a change that equals delta gives the mean to the last bit.
        shared[parameter] = (mean.to(dtype) + (change - delta)).to(mean.dtype)
        optimizer.update({f"{kind}/{parameter}": moment for kind, moment in moments.items()})
    return replace(after, shared=shared, optimizer=optimizer)
