"""What the mean of LoRA factors misses of the mean of their products.

Shapes: n clients with weights p_i that sum to 1; A (r, in), B (out, r).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedlit.algebra.low_rank import LowRank


def mean_residual(
    all_a: Sequence[Tensor], all_b: Sequence[Tensor], b_mean: Tensor, weights: Sequence[float], scaling: float
) -> LowRank | None:
    """Return scaling * (sum_i p_i B_i A_i - B A) with the means B and A, of width (n - 1) r; None of one client.

    sum_i p_i B_i A_i - B A = sum_{i<n} p_i (B_i - B)(A_i - A_n)

    Args:
        all_a: n tensors (r, in) in float64.
        all_b: n tensors (out, r) in float64.
        b_mean: B, (out, r) in float64.
        weights: p_i.
        scaling: of the products.
    """
    left = [p * scaling * (b - b_mean) for p, b in zip(weights[:-1], all_b[:-1], strict=True)]
    right = [a - all_a[-1] for a in all_a[:-1]]
    return LowRank(torch.cat(left, 1), torch.cat(right, 0)) if left else None
