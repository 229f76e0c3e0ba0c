"""The mean of the clients' products of LoRA factors, and what the mean of the factors misses of it.

Shapes: n clients with weights p_i that sum to 1; A (r, in), B (out, r), stacked (n, r, in) and (n, out, r).
"""

import torch
from torch import Tensor

from fedlit.algebra.low_rank import LowRank


def mean_product(a: Tensor, b: Tensor, weights: Tensor, scaling: float) -> LowRank:
    """Return sum_i p_i * scaling * B_i @ A_i in float64, of width n r, without a product.

    Args:
        a: (n, r, in).
        b: (n, out, r).
        weights: p_i (n,) in float64.
        scaling: of the products.
    """
    left = _side_by_side(b)
    left.mul_((weights * scaling)[:, None])
    return LowRank(left.flatten(1), a.double().flatten(0, 1))


def mean_residual(a: Tensor, b: Tensor, b_mean: Tensor, weights: Tensor, scaling: float) -> LowRank:
    """Return scaling * (sum_i p_i B_i A_i - B A) with the means B and A in float64, of width (n - 1) r.

    sum_i p_i B_i A_i - B A = sum_{i<n} p_i (B_i - B)(A_i - A_n)

    Args:
        a: (n, r, in).
        b: (n, out, r).
        b_mean: B, (out, r).
        weights: p_i (n,) in float64.
        scaling: of the products.
    """
    left = _side_by_side(b[:-1])
    left.sub_(b_mean.double()[:, None]).mul_((weights[:-1] * scaling)[:, None])
    right = a[:-1].to(torch.float64, copy=True).sub_(a[-1])
    return LowRank(left.flatten(1), right.flatten(0, 1))


def shrunk_inverse(values: Tensor, penalty: float, rounding: Tensor) -> Tensor:
    """Return S / (S^2 + lambda) of singular values (k,), and 0 for those that are no more than rounding, 0-d: without
    a penalty the pseudo-inverse.
    """
    return torch.where(values > rounding, values / (values.square() + penalty), 0.0)


def _side_by_side(b: Tensor) -> Tensor:
    """Return a copy (out, n, r) of (n, out, r) in float64; one pass over the numbers."""
    return torch.empty(b.shape[1], b.shape[0], b.shape[2], dtype=torch.float64, device=b.device).copy_(
        b.transpose(0, 1)
    )
