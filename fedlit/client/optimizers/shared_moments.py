"""The second moments of GaLore clients, averaged in a basis that all have in common: FedGaLore's group `moments`.

Peng et al., Rethinking LoRA for Data Heterogeneous Federated Learning, arXiv 2602.01746: clients train weights with
GaLore, and the server takes the part that is common to their projected second moments (by AJIVE) and sends it back.
Here everything is a sum over clients, so that no server needs to see a single one. For a matrix (m, n) that is
projected on the right, client i has a projection P_i (r, n) of its own, and V_i (m, r) in it; Q (r, n) is the server's.

    client   V_i -> Q,  N_i = 1 - (1 - N) beta_2^K,  Q P_i^T P_i     sent, K being its steps
    server   V, N, S <- sum_i p_i of each
             Q' <- orth(S),  V <- V from Q to Q'                     sent back
    client   V from Q' to P_i, at the first step, when P_i is known

N is the weight that the squares in V have together (1 - beta_2^t of plain Adam), by which the bias is corrected. V and
N are both linear in the squares, hence V / N is their weighted mean over all steps and clients. S is one step of
orthogonal iteration on M = sum_i p_i P_i^T P_i, whose leading eigenvectors are the joint subspace of AJIVE: the
singular vectors of the clients' bases one above the other. Rows in place of columns where the left side is projected.

From one basis to another, directions a_l to b_k: the variance of a gradient along b_k is that along the old directions
by the squares of the cosines, and the mean of the old ones for the rest of b_k,

    V'_k = sum_l (b_k a_l)^2 V_l + (1 - sum_l (b_k a_l)^2) mean_l V_l.

Within the old directions this is exact where the gradient's coordinates are uncorrelated. V stays positive, and a basis
that is the same but for signs or order changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from fedlit.algebra.tensors import TensorDict
from fedlit.round.jobs import LocalPart, LocalRound
from fedlit.seeding import numpy_generator

MOMENTS = "moments"
"""The payload group: second moments by the name of their parameter, `<parameter>/basis`, and NORMALISERS."""

NORMALISERS = "normalisers"
"""N of every parameter, in the order of the trained parameters."""


@dataclass(frozen=True, kw_only=True)
class Second:
    """A client's second moment of a parameter, its projection (None without one), and N."""

    moment: Tensor
    basis: Tensor | None
    normaliser: float


class Sharing(Protocol):
    """An optimizer whose second moments come from the server."""

    def receive(self, parameter: nn.Parameter, second: Second) -> None:
        """Go on from a second moment in the server's basis."""
        ...

    def second(self, parameter: nn.Parameter) -> Second | None:
        """Return a parameter's second moment in the client's basis; None of one that was not stepped."""
        ...


@dataclass(frozen=True, kw_only=True)
class SharedMoments(LocalPart):
    """Sends second moments and takes up the server's.

    side: which side of a parameter of a shape is projected: `left`, `right`, empty for none. rank: r.
    """

    group: ClassVar[str] = MOMENTS
    bears_noise: ClassVar[bool] = False

    side: Callable[[torch.Size], str]
    rank: int
    seed: int

    def first(self, trained: Mapping[str, Tensor]) -> TensorDict:
        """Return V = 0, N = 0, and bases drawn from streams of their own."""
        server: TensorDict = {}
        for name, tensor in trained.items():
            shape, side = tensor.shape, self.side(tensor.shape)
            dtype = torch.promote_types(tensor.dtype, torch.float32)
            if side:
                drawn = numpy_generator(self.seed, f"basis of {name}").standard_normal(
                    (shape[1] if side == "right" else shape[0], self.rank)
                )
                columns = torch.linalg.qr(torch.from_numpy(drawn)).Q
                server[f"{name}/basis"] = _stored(columns, side).to(tensor.device, dtype)
                shape = torch.Size((shape[0], self.rank) if side == "right" else (self.rank, shape[1]))
            server[name] = torch.zeros(shape, dtype=dtype, device=tensor.device)
        device = next((tensor.device for tensor in trained.values()), None)  # nothing may travel that trains
        server[NORMALISERS] = torch.zeros(len(trained), dtype=torch.float64, device=device)
        return server

    def begin(self, work: LocalRound) -> None:
        """Let the optimizer go on from the server's moments."""
        received = work.start.groups[MOMENTS]
        optimizer = cast("Sharing", work.optimizer)
        normalisers = received[NORMALISERS].tolist()
        for (name, parameter), normaliser in zip(work.parameters.items(), normalisers, strict=True):
            if normaliser > 0:
                basis = received.get(f"{name}/basis")
                optimizer.receive(parameter, Second(moment=received[name], basis=basis, normaliser=normaliser))

    def end(self, work: LocalRound, trained: Mapping[str, Tensor]) -> tuple[TensorDict, TensorDict]:
        """Return the client's moments in the server's basis, and that basis within the client's; nothing is kept."""
        received = work.start.groups[MOMENTS]
        optimizer = cast("Sharing", work.optimizer)
        sent, normalisers = dict(received), received[NORMALISERS].clone()
        for place, (name, parameter) in enumerate(work.parameters.items()):
            found = optimizer.second(parameter)
            if found is None:
                continue
            normalisers[place] = found.normaliser
            moment = found.moment
            if found.basis is not None:
                side, common = self.side(parameter.shape), received[f"{name}/basis"].to(found.basis)
                moment = turned(moment, found.basis, common, side)
                sent[f"{name}/basis"] = _within(common, found.basis, side).to(received[name])
            sent[name] = moment.to(received[name], copy=True)
        return {**sent, NORMALISERS: normalisers}, {}

    def server_step(self, server: TensorDict, mean: TensorDict, share: float) -> TensorDict:
        """Return the means of V and N, and the next bases, with V in them."""
        after = dict(mean)
        for name in server.keys() - {NORMALISERS}:
            if name.endswith("/basis"):
                continue
            # A mean is rounded, and may be noisy.
            moment = mean[name].clamp(min=0.0)
            after[name] = moment
            if f"{name}/basis" in server:
                before, sums = server[f"{name}/basis"], mean[f"{name}/basis"]
                side = "right" if len(before) == self.rank else "left"  # the rank is below both sides
                columns = torch.linalg.qr(_stored(sums, side).double()).Q
                basis = _stored(columns, side)
                after[f"{name}/basis"] = basis.to(before)
                after[name] = turned(moment.double(), before.double(), basis, side).to(moment)
        after[NORMALISERS] = mean[NORMALISERS].clamp(0.0, 1.0)
        return {name: after[name] for name in server}


def turned(moment: Tensor, old: Tensor, new: Tensor, side: str) -> Tensor:
    """Return a second moment in another basis; see the top of the file.

    Args:
        moment: (m, r) with bases (r, n) on the right, (r, n) with bases (m, r) on the left.
        old, new: orthonormal.
        side: `left` or `right`.
    """
    cosines = new @ old.T if side == "right" else new.T @ old
    squares = cosines.square()
    rest = (1 - squares.sum(1, keepdim=True)).clamp(min=0.0)
    shares = squares + rest / len(squares)  # rows add up to 1
    return moment @ shares.T if side == "right" else shares @ moment


def _within(basis: Tensor, other: Tensor, side: str) -> Tensor:
    """Return a basis projected onto the span of another."""
    return (basis @ other.T) @ other if side == "right" else other @ (other.T @ basis)


def _stored(columns: Tensor, side: str) -> Tensor:
    """Return directions that are columns as they are kept, and the other way round: rows on the right."""
    return columns.T.contiguous() if side == "right" else columns
