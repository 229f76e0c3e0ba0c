"""A matrix as the product of two thin factors, and its algebra without the dense matrix.

Shapes: left (out, k), right (k, in), rest (out, in); the matrix is left @ right + rest, (out, in).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlit.algebra.leading import leading_of_dense, leading_of_factors

PARTS = ("left", "right", "rest")
ROWS = 256
"""Rows of a dense matrix that exist at once in a type other than the one in which it is kept."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """left @ right. The sum of two is their factors put side by side, so ranks add up until `truncated`.

    A sum that has outgrown its factors has a dense `rest` beside them (`together.compacted`), maybe of a coarser type.
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

    def without(self, width: int) -> "LowRank":
        """Return the product of the columns and rows after the first `width`."""
        return LowRank(self.left[:, width:], self.right[width:], self.rest)

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

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the matrix itself, computed in the type of the factors; in another type, `ROWS` rows at a time, so
        that no second matrix of this shape exists.
        """
        if dtype in (None, self.left.dtype):
            rest = None if self.rest is None else self.rest.to(self.left.dtype)
            return self.left @ self.right if rest is None else rest.addmm(self.left, self.right)
        made = self.left.new_empty(self.shape, dtype=dtype)
        for start in range(0, self.shape[0], ROWS):
            rows = slice(start, start + ROWS)
            made[rows] = LowRank(self.left[rows], self.right, None if self.rest is None else self.rest[rows]).dense()
        return made

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

        The result has exactly `rank` columns; those beyond the rank that there is are zero. The leading triples alone
        are computed where they can be had to the last digits without the others (`leading`), which is read from the
        device.
        """
        if not self.has_leading(rank):
            return self.truncated_by_svd(rank)
        best, reliable = self.leading(rank)
        return best if reliable else self.truncated_by_svd(rank)

    def has_leading(self, rank: int) -> bool:
        """Whether `leading` can be asked for this rank: in float64, and where something is cut off."""
        return 0 < rank < min(self.width, *self.shape) and self.left.dtype == torch.float64

    def leading(self, rank: int) -> tuple["LowRank", Tensor]:
        """Return the best approximation of this rank from Gram matrices, several times faster than the SVD, and whether
        it is reliable, a 0-d bool on the device; see `fedlit.algebra.leading`.
        """
        if self.width >= min(self.shape):
            u, s, vh, reliable = leading_of_dense(self.dense(), rank)
        else:
            u, s, vh, reliable = leading_of_factors(self.left, self.right, rank)
        return LowRank(u * s, vh), reliable

    def truncated_by_svd(self, rank: int) -> "LowRank":
        """Return the same as `truncated` from the whole SVD, whatever the range of the singular values."""
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

    def core(self) -> Tensor:
        """Return a matrix with the same singular values besides zeros, (k, k), or the dense one where that is smaller.

        From QR, not from L'L RR', which would square the rounding error: a sum that cancels must come out as zero to
        the last bits.
        """
        if self.width >= min(self.shape):
            return self.dense()
        left_core: Tensor = torch.linalg.qr(self.left, mode="r").R
        right_core: Tensor = torch.linalg.qr(self.right.T, mode="r").R
        return left_core @ right_core.T

    def num_above_rounding(self) -> Tensor:
        """Return the numerical rank on the device, 0-d: singular values above the largest times the larger side times
        the type's eps.
        """
        return num_above_rounding(torch.linalg.svdvals(self.core()), self.shape)

    def rank(self) -> int:
        """Return the numerical rank (`num_above_rounding`), read from the device."""
        return int(self.num_above_rounding())

    def norm(self) -> float:
        """Return the Frobenius norm, read from the device; of several matrices `together.norms` reads once."""
        return float(self.core().norm())


def num_above_rounding(values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return how many singular values (k,) of a matrix of this shape are more than rounding, 0-d on the device."""
    if not len(values):
        return torch.zeros((), dtype=torch.int64, device=values.device)
    rank: Tensor = (values > values.max() * max(shape) * torch.finfo(values.dtype).eps).sum()
    return rank


def rank_of_energy(values: Tensor, energy: float, shape: tuple[int, int]) -> Tensor:
    """Return the fewest singular values (k,), descending, of a matrix of this shape whose squares have at least this
    share of the sum of all squares, 0-d on the device; 0 of a matrix of zeros.

    What is left out is added up, smallest first, and compared with what may be left out: from the top a sum of squares
    does not see a value below 1e-8 of the largest, which a share of 1 must keep. What is rounding does not count.
    """
    squares = values.double().square()
    left_out = squares.flip(0).cumsum(0).flip(0)  # by keeping the values before this one
    # To 15 digits: 1 - 0.9 is less than a tenth, and a value that is just a tenth may be left out.
    too_much: Tensor = (left_out > round(1.0 - energy, 15) * squares.sum()).sum()
    return torch.minimum(too_much, num_above_rounding(values, shape))
