"""A matrix as the product of two thin factors, and its algebra without the dense matrix.

Shapes: left (out, k), right (k, in), rest (out, in); the matrix is left @ right + rest, (out, in).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PARTS = ("left", "right", "rest")


@dataclass(frozen=True, slots=True)
class LowRank:
    """left @ right. The sum of two is their factors put side by side, so ranks add up until `truncated`.

    A sum that has outgrown its factors has a dense `rest` beside them (`compact`).
    """

    left: Tensor
    right: Tensor
    rest: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.left.shape[1] == self.right.shape[0], f"{tuple(self.left.shape)} @ {tuple(self.right.shape)}"
        assert self.rest is None or self.rest.shape == self.shape, f"{tuple(self.rest.shape)}, {self.shape}"

    @staticmethod
    def sum(terms: Sequence["LowRank"]) -> "LowRank":
        """Return the sum of `terms`, of one shape."""
        rests = [term.rest for term in terms if term.rest is not None]
        return LowRank(
            torch.cat([term.left for term in terms], 1),
            torch.cat([term.right for term in terms], 0),
            functools.reduce(torch.add, rests) if rests else None,
        )

    def __add__(self, other: "LowRank") -> "LowRank":
        return LowRank.sum([self, other])

    def __sub__(self, other: "LowRank") -> "LowRank":
        return self + other * -1.0

    def __mul__(self, factor: float) -> "LowRank":
        return LowRank(self.left * factor, self.right, None if self.rest is None else self.rest * factor)

    @property
    def T(self) -> "LowRank":  # as torch names it
        """The transposed matrix, (in, out)."""
        return LowRank(self.right.T, self.left.T, None if self.rest is None else self.rest.T)

    def to(self, dtype: torch.dtype) -> "LowRank":
        """Return the matrix with its parts in another type."""
        return LowRank(self.left.to(dtype), self.right.to(dtype), None if self.rest is None else self.rest.to(dtype))

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def width(self) -> int:
        """An upper bound of the rank: k, the columns of `left`, and with a rest the smaller side."""
        return self.left.shape[1] if self.rest is None else min(self.shape)

    @property
    def parts(self) -> dict[str, Tensor]:
        """The tensors by name, `left` and `right`, or `rest`; factors of no width beside a rest are left out."""
        if self.rest is None:
            return {"left": self.left, "right": self.right}
        return {"rest": self.rest} | ({"left": self.left, "right": self.right} if self.left.shape[1] else {})

    @staticmethod
    def of_parts(parts: Mapping[str, Tensor]) -> "LowRank":
        """Return the matrix of these parts."""
        rest = parts.get("rest")
        if "left" in parts:
            return LowRank(parts["left"], parts["right"], rest)
        assert rest is not None, "neither factors nor a rest"
        return LowRank(rest[:, :0], rest[:0], rest)

    @property
    def num_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.numel() * part.element_size() for part in self.parts.values())

    def dense(self) -> Tensor:
        """Return the matrix itself."""
        return self.left @ self.right if self.rest is None else self.rest.addmm(self.left, self.right)

    def compact(self) -> "LowRank":
        """Return the same matrix in few numbers: as it is while its factors are smaller than the dense matrix, then
        without the directions that cancelled, then dense.
        """
        num_out, num_in = self.shape
        if self.rest is None:
            if self.width * (num_out + num_in) <= num_out * num_in:
                return self
            small = self.truncated(self.rank())
            if 2 * small.width * (num_out + num_in) <= num_out * num_in:  # else the next sum would outgrow it again
                return small
        return LowRank(self.left[:, :0], self.right[:0], self.dense())

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
