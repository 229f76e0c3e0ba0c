"""The rules for one layer: the adapters' factors and their shares, which sum to 1, become one pair of factors.

Shapes: n adapters with shares p_i; A_i (r_i, in), B_i (out, r_i). All results are in float64.
"""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from fedlit.algebra.low_rank import LowRank, rank_of_energy
from fedlit.algebra.mean_products import mean_residual, shrunk_inverse
from fedlit.algebra.rotations import procrustes
from fedlit.errors import UserError
from fedlit.rules.factors import Factors, mean_change

_SAME_SCALING = 1e-12
"""Relative difference of two scalings that were computed from equal numbers."""


def fedit(terms: Sequence[Factors], shares: Sequence[float]) -> Factors:
    """Return the mean of A and the mean of B: FedIT (arXiv 2305.05644), FedAvg over factors.

    Raises:
        UserError: ranks or scalings differ, so that the mean has no meaning.
    """
    _require_alike(terms)
    a = _mean([term.a for term in terms], shares)
    b = _mean([term.b for term in terms], shares)
    return Factors(a, b, terms[0].scaling)


def hetlora(terms: Sequence[Factors], shares: Sequence[float]) -> Factors:
    """Return the mean of the factors padded with zeros to the largest rank: HetLoRA (arXiv 2401.06432).

    All come into the scaling of the adapter with the largest rank; what that changes is shared out equally to A and B.
    """
    largest = max(terms, key=lambda term: term.rank)
    padded = [_padded(term, largest.rank, largest.scaling) for term in terms]
    return Factors(*fedit(padded, shares))


def flexlora(
    terms: Sequence[Factors], shares: Sequence[float], *, rank: int | None = None, energy: float | None = None
) -> Factors:
    """Return the best approximation of the mean product: FlexLoRA (arXiv 2402.11505), a truncated SVD; scaling 1.

    rank: of the result; None for the largest of the adapters. energy: the smallest rank that keeps this share of the
    squared singular values, in place of a rank.
    """
    mean = mean_change(terms, shares)
    if energy is not None:
        rank = max(1, int(rank_of_energy(mean.singular_values(), energy, mean.shape)))  # an adapter has one at least
    elif rank is None:
        rank = max(term.rank for term in terms)
    return _as_factors(mean.truncated(rank))


def fedex(terms: Sequence[Factors], shares: Sequence[float], *, residual_rank: int | None = None) -> Factors:
    """Return the mean factors with the residual beside them, one adapter of higher rank: FedEx-LoRA (arXiv 2410.09432).

    residual_rank: what is kept of the residual, by truncated SVD; None for all of it, rank (n - 1) r, which is exact.
    Scaling 1. Adapters whose share is 0 do not count.

    Raises:
        UserError: as `fedit`.
    """
    mean = fedit(terms, shares)
    residual = _residual(terms, shares, mean)
    if residual is None:
        return mean
    kept = residual if residual_rank is None else residual.truncated(residual_rank)
    return _as_factors(mean.change() + kept)


def fedex_residual(terms: Sequence[Factors], shares: Sequence[float], *, residual_rank: int | None = None) -> Factors:
    """Return the residual alone, the mean product less that of `fedit`: the second of two adapters that act together.

    residual_rank: what is kept of it, 1 or more; None for all. Zeros of rank 1 where there is none. Scaling 1.

    Raises:
        UserError: as `fedit`.
    """
    mean = fedit(terms, shares)
    residual = _residual(terms, shares, mean)
    if residual is None:
        return Factors(mean.a[:1] * 0.0, mean.b[:, :1] * 0.0, 1.0)
    return _as_factors(residual if residual_rank is None else residual.truncated(residual_rank))


def lora_fair(terms: Sequence[Factors], shares: Sequence[float], *, regularization: float = 0.01) -> Factors:
    """Return the mean of A, and the mean of B with a correction: LoRA-FAIR (arXiv 2411.14961) in closed form.

    B + dB with the least |T - (B + dB) A|_F^2 + lambda |dB|_F^2, where T = sum_i p_i B_i A_i, without the scaling. From
    the thin SVD A = U S V' it is dB = (T - B A) V diag(S / (S^2 + lambda)) U'.

    regularization: lambda; 0 gives the projection of T on the rows of A.

    Raises:
        UserError: as `fedit`.
    """
    mean = fedit(terms, shares)
    residual = _residual(terms, shares, mean)
    if residual is None:
        return mean
    u, s, vh = torch.linalg.svd(mean.a, full_matrices=False)
    rounding = s.max() * torch.finfo(s.dtype).eps * max(mean.a.shape)
    missed = residual.left @ (residual.right @ vh.T) / mean.scaling
    correction = missed * shrunk_inverse(s, regularization, rounding) @ u.T
    return Factors(mean.a, mean.b + correction, mean.scaling)


def fedrot(terms: Sequence[Factors], shares: Sequence[float], *, align: str = "a") -> Factors:
    """Return the mean of factors that are rotated towards each other first: FedRot-LoRA (arXiv 2602.23638).

    A_i, B_i -> R_i' A_i, B_i R_i with the orthogonal R_i that brings A_i (align: a) or B_i (align: b) nearest to a
    reference. In rounds the reference is the server's factor. Here there is no server: it is S V' of the r leading
    directions of all sqrt(p_i) A_i on top of each other, so that no adapter's place in the row counts. Adapters that
    differ by a rotation are recovered.

    Raises:
        UserError: as `fedit`.
    """
    _require_alike(terms)
    rows = [(term.a if align == "a" else term.b.T).double() for term in terms]
    stacked = torch.cat([each * math.sqrt(share) for each, share in zip(rows, shares, strict=True)])
    _, s, vh = torch.linalg.svd(stacked, full_matrices=False)
    reference = (s[:, None] * vh)[: terms[0].rank]
    reference = torch.cat([reference, reference.new_zeros(terms[0].rank - len(reference), reference.shape[1])])
    turned = []
    for term, each in zip(terms, rows, strict=True):
        rotation = procrustes(each @ reference.T)
        turned.append(Factors(rotation.T @ term.a.double(), term.b.double() @ rotation, term.scaling))
    return fedit(turned, shares)


def flora(terms: Sequence[Factors], shares: Sequence[float]) -> Factors:
    """Return all factors side by side, whose product is the mean product whatever the ranks: FLoRA (arXiv 2409.05976).

    The rank is the sum of the ranks of those whose share is not 0. Scaling 1.
    """
    return _as_factors(mean_change(*_heard(terms, shares)))


def _heard(terms: Sequence[Factors], shares: Sequence[float]) -> tuple[list[Factors], list[float]]:
    """Return those whose share is not 0."""
    heard = [(term, share) for term, share in zip(terms, shares, strict=True) if share]
    return [term for term, _ in heard], [share for _, share in heard]


def _residual(terms: Sequence[Factors], shares: Sequence[float], mean: Factors) -> LowRank | None:
    """Return the mean product less the product of the means; None of one adapter."""
    heard, weights = _heard(terms, shares)
    if len(heard) == 1:
        return None
    all_a, all_b = (
        torch.stack([factor.double() for factor in every]) for every in zip(*[t[:2] for t in heard], strict=True)
    )
    return mean_residual(all_a, all_b, mean.b, all_a.new_tensor(weights), mean.scaling)


def _as_factors(change: LowRank) -> Factors:
    return Factors(change.right, change.left, 1.0)


def _mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    return reduce(torch.add, [tensor.double() * share for tensor, share in zip(tensors, shares, strict=True)])


def _padded(term: Factors, rank: int, scaling: float) -> Factors:
    """Return the same product in another scaling, with zeros for rows of A and columns of B up to a rank."""
    ratio = math.sqrt(term.scaling / scaling)
    a, b = term.a.double() * ratio, term.b.double() * ratio
    more = rank - term.rank
    return Factors(
        torch.cat([a, a.new_zeros(more, a.shape[1])], 0), torch.cat([b, b.new_zeros(b.shape[0], more)], 1), scaling
    )


def _require_alike(terms: Sequence[Factors]) -> None:
    for what, values in (("ranks", [term.rank for term in terms]), ("scalings", [term.scaling for term in terms])):
        other = next((value for value in values if not math.isclose(value, values[0], rel_tol=_SAME_SCALING)), None)
        if other is not None:
            raise UserError(
                f"needs equal {what}, which are {values[0]:g} and {other:g}; give flexlora, flora or hetlora"
            )
