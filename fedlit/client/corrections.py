"""What a client adds to its gradients so that many local steps do not carry it away from the federation's objective.

FedProx (Li et al., arXiv 1812.06127, equation 2) pulls a client towards the weights w0 that it received:
    gradient of F_i(w) + mu/2 |w - w0|^2, that is + mu (w - w0).
SCAFFOLD (Karimireddy et al., arXiv 1910.06378, Algorithm 1, option II) corrects it by the difference of two control
variates, estimates of the server's gradient c and the client's own c_i:
    local steps     y <- y - lr (g_i(y) + c - c_i)            K of them, from y = x
    client          c_i' = c_i - c + (x - y) / (K lr)         it sends y and c_i' - c_i
    server          c <- c + |S| / N mean over the cohort S of (c_i' - c_i)
all of them zero at first. c_i' is the mean of the K raw gradients, which is what makes it an estimate of a gradient:
this holds for plain SGD with a constant lr only, without momentum, weight decay, clipping or an adaptive optimizer.

Both act on parameters that are trained and shared: a private tensor has no value on the server to be pulled to. FedProx
goes with any local optimizer, since it is the gradient of a term of the loss.

LA-LoRA (Liu et al., arXiv 2602.19926) smooths the noisy gradients of LoRA's factors with a fixed low-pass filter:
    g <- k * g,  k = [1, 4, 6, 4, 1] / 16, the binomial kernel, near a Gaussian of standard deviation 1,
along the outputs of B and the inputs of A, both private and shared. Beyond the ends of a factor there are zeros: the
filter is a symmetric matrix of norm at most 1, so a clipped gradient keeps its bound.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedlit.algebra.tensors import TensorDict
from fedlit.round.jobs import Correction, LocalPart, LocalRound
from fedlit.round.payload import MODEL

CONTROL = "control"
"""The payload group of SCAFFOLD's control variates."""

CENTRE, NEIGHBOURS = 6 / 16, (4 / 16, 1 / 16)
"""LA-LoRA's kernel: the weight of an entry, and those of the entries one and two places away."""


@dataclass(frozen=True)
class FedProx(LocalPart):
    """Pulls every client towards what it received; mu is the weight of the term."""

    mu: float

    def begin(self, work: LocalRound) -> Correction:
        """Return the pull towards the values that the parameters have now."""
        return Proximal(work.parameters, self.mu)


@dataclass(frozen=True)
class Scaffold(LocalPart):
    """Control variates: the client keeps c_i, sends its change, and receives c."""

    group: ClassVar[str] = CONTROL

    def first(self, trained: Mapping[str, Tensor]) -> TensorDict:
        """Return c = 0."""
        return initial_control(trained)

    def first_kept(self, trained: Mapping[str, Tensor]) -> TensorDict:
        """Return c_i = 0."""
        return initial_control(trained)

    def begin(self, work: LocalRound) -> Correction:
        """Return the correction by c - c_i."""
        return ControlVariate(work.parameters, work.start.groups[CONTROL], work.kept)

    def end(self, work: LocalRound, trained: Mapping[str, Tensor]) -> tuple[TensorDict, TensorDict]:
        """Return c_i' - c_i, and c_i': of the tensors that this round trained a new one."""
        received = work.start.groups[CONTROL]
        turn = {name: work.start.groups[MODEL][name] for name in received if name in work.plan.trains}
        kept = dict(work.kept)
        kept |= next_control(work.kept, received, turn, trained, work.num_steps, work.lr)
        return {name: (kept[name] - work.kept[name]).to(c) for name, c in received.items()}, kept

    def server_step(self, server: TensorDict, mean: TensorDict, share: float) -> TensorDict:
        """Return c + |S| / N mean of (c_i' - c_i)."""
        return server_control_after(server, mean, share)


@dataclass(frozen=True)
class LowPass(LocalPart):
    """Smooths gradients; `along` gives the dimension of a parameter, by name, or None for one that is left alone."""

    along: Callable[[str], int | None]

    def begin(self, work: LocalRound) -> Correction:
        """Return what smooths each gradient along its own dimension, in place."""
        found = [(parameter, self.along(name)) for name, parameter in work.trained.items()]
        return Smoothing([(parameter, dim) for parameter, dim in found if dim is not None])


class Smoothing:
    """LA-LoRA: passes gradients through the kernel, each along one dimension."""

    def __init__(self, pairs: Sequence[tuple[nn.Parameter, int]]) -> None:
        self._pairs = pairs

    @torch.no_grad()
    def apply(self) -> None:
        """Smooth the gradients; see `Correction`."""
        for parameter, dim in self._pairs:
            if parameter.grad is not None:
                parameter.grad.copy_(smoothed(parameter.grad, dim))


class Proximal:
    """FedProx: adds mu * (w - w0), where w0 are the values that `parameters` have when this is made."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], mu: float) -> None:
        self._mu = mu
        self._pairs = [(parameter, parameter.detach().clone()) for parameter in parameters.values()]

    @torch.no_grad()
    def apply(self) -> None:
        """Correct the gradients; see `Correction`."""
        used = [(parameter.grad, parameter, anchor) for parameter, anchor in self._pairs if parameter.grad is not None]
        if used:
            gradients, parameters, anchors = zip(*used, strict=True)
            torch._foreach_add_(gradients, torch._foreach_sub(parameters, anchors), alpha=self._mu)


class ControlVariate:
    """SCAFFOLD: adds c - c_i, which is constant during a client's round.

    The control variates have the names and shapes of `parameters`, on any device; more names do no harm.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        server_control: Mapping[str, Tensor],
        client_control: Mapping[str, Tensor],
    ) -> None:
        self._pairs = []
        for name, parameter in parameters.items():
            c, c_i = server_control[name], client_control[name]
            assert c.shape == c_i.shape == parameter.shape, f"{name}: {c.shape}, {c_i.shape}, {parameter.shape}"
            offset = c.to(parameter.device) - c_i.to(parameter.device)
            self._pairs.append((parameter, offset.to(parameter.dtype)))

    @torch.no_grad()
    def apply(self) -> None:
        """Correct the gradients; see `Correction`."""
        used = [(parameter.grad, offset) for parameter, offset in self._pairs if parameter.grad is not None]
        if used:
            gradients, offsets = zip(*used, strict=True)
            torch._foreach_add_(gradients, offsets)


def smoothed(gradient: Tensor, dim: int) -> Tensor:
    """Return a gradient through LA-LoRA's kernel along a dimension, with zeros beyond its ends."""
    given = gradient.movedim(dim, 0)
    result = given * CENTRE
    for place, weight in enumerate(NEIGHBOURS, start=1):
        result[place:].add_(given[:-place], alpha=weight)
        result[:-place].add_(given[place:], alpha=weight)
    return result.movedim(0, dim)


def initial_control(tensors: Mapping[str, Tensor]) -> TensorDict:
    """Return the control variate of a server or a client before its first round: zeros, in at least float32."""
    return {
        name: torch.zeros_like(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32), requires_grad=False)
        for name, tensor in tensors.items()
    }


def next_control(
    client_control: Mapping[str, Tensor],
    server_control: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    num_steps: int,
    lr: float,
) -> TensorDict:
    """Return c_i' = c_i - c + (x - y) / (K lr), on the device and in the type of `client_control`.

    Args:
        client_control: c_i, as it was in this round.
        server_control: c, as the client received it.
        start: x, the values that the client received. Its names are those of the result: the tensors trained in this
            round (c_i of any other is not to change).
        end: y, the values after the local steps.
        num_steps: K.
        lr: learning rate of the local SGD.
    """
    assert num_steps > 0
    controls = {}
    for name, x in start.items():
        c_i = client_control[name]
        mean_corrected = (x.detach().to(c_i) - end[name].detach().to(c_i)) / (num_steps * lr)
        controls[name] = c_i - server_control[name].to(c_i) + mean_corrected
    return controls


def server_control_after(control: Mapping[str, Tensor], mean_delta: Mapping[str, Tensor], share: float) -> TensorDict:
    """Return c + share * mean_delta, where mean_delta is the cohort's weighted mean of c_i' - c_i.

    `share` is the cohort's part of the population's weights, |S| / N where all weigh the same: then c stays the
    weighted mean of all c_i, as it is their plain mean in the paper. A name that `mean_delta` lacks keeps its value.
    """
    return {
        name: tensor + share * mean_delta[name].to(tensor) if name in mean_delta else tensor
        for name, tensor in control.items()
    }
