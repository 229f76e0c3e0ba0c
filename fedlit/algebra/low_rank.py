"""A matrix as the product of two thin factors, and its algebra without the dense matrix.

Shapes: left (out, k), right (k, in); the matrix is left @ right, (out, in).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LowRank:
    """left @ right. The sum of two is their factors put side by side, so ranks add up until `truncated`."""

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        assert self.left.shape[1] == self.right.shape[0], f"{tuple(self.left.shape)} @ {tuple(self.right.shape)}"

    @staticmethod
    def sum(terms: Sequence["LowRank"]) -> "LowRank":
        """Return the sum of `terms`, of one shape."""
        return LowRank(torch.cat([term.left for term in terms], 1), torch.cat([term.right for term in terms], 0))

    def __add__(self, other: "LowRank") -> "LowRank":
        return LowRank.sum([self, other])

    def __sub__(self, other: "LowRank") -> "LowRank":
        return self + other * -1.0

    def __mul__(self, factor: float) -> "LowRank":
        return LowRank(self.left * factor, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def width(self) -> int:
        """k, the columns of `left`: an upper bound of the rank."""
        return self.left.shape[1]

    @property
    def num_bytes(self) -> int:
        """Bytes of both factors."""
        return sum(factor.numel() * factor.element_size() for factor in (self.left, self.right))

    def dense(self) -> Tensor:
        """Return the matrix itself."""
        return self.left @ self.right

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return U (out, k), S (k,) descending, Vh (k, in): QR of both factors and the SVD of a k x k core.

        Where k reaches a side of the matrix, the dense matrix is the smaller one and k becomes that side.
        """
        if self.width >= min(self.shape):
            u, s, vh = torch.linalg.svd(self.dense(), full_matrices=False)
            return u, s, vh
        left_basis, left_core = torch.linalg.qr(self.left)
        right_basis, right_core = torch.linalg.qr(self.right.T)
        u, s, vh = torch.linalg.svd(left_core @ right_core.T)
        return left_basis @ u, s, vh @ right_basis.T

    def truncated(self, rank: int) -> "LowRank":
        """Return the best approximation of at most this rank (Eckart and Young): left = U S, right = Vh.

        The result has exactly `rank` columns; those beyond the rank that there is are zero.
        """
        u, s, vh = self.svd()
        kept = min(rank, len(s))
        left = self.left.new_zeros(self.shape[0], rank)
        right = self.right.new_zeros(rank, self.shape[1])
        left[:, :kept] = u[:, :kept] * s[:kept]
        right[:kept] = vh[:kept]
        return LowRank(left, right)

    def singular_values(self) -> Tensor:
        """Return the singular values, descending."""
        return self.svd()[1]

    def rank(self) -> int:
        """Return the numerical rank: singular values above the largest times the larger side times the type's eps."""
        values = self.singular_values()
        tolerance = values.max() * max(self.shape) * torch.finfo(values.dtype).eps if len(values) else 0.0
        return int((values > tolerance).sum())

    def norm(self) -> float:
        """Return the Frobenius norm.

        From the QR cores, not from trace(L'L RR'), which would square the rounding error: a sum that cancels must come
        out as zero to the last bits.
        """
        if self.width >= min(self.shape):
            return float(self.dense().norm())
        left_core = torch.linalg.qr(self.left, mode="r").R
        right_core = torch.linalg.qr(self.right.T, mode="r").R
        return float((left_core @ right_core.T).norm())
