"""Ranks of a matrix and angles between the spaces of two, from singular triples.

Effective rank: Roy and Vetterli, The effective rank, EUSIPCO 2007, definition 1. Principal angles: Björck and Golub,
Mathematics of Computation 27 (1973), from cosines where an angle is large and from sines where it is small, since an
arc cosine near 1 loses half the digits.

Shapes: matrices (m, n) with left vectors (m, r), singular values (k,) descending, right vectors (n, r); r of the k
values are above rounding. Vectors may stand in coordinates, as long as those of two matrices are in the same.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Spectrum:
    """values: all singular values (k,). left (m, r), right (n, r): orthonormal, of the r values above rounding."""

    values: Tensor
    left: Tensor
    right: Tensor

    @staticmethod
    def of(matrix: Tensor, floor: float) -> "Spectrum":
        """Return that of a matrix; of its singular values those above `floor` times the largest count."""
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        return Spectrum.of_triples(u, s, vh.mT, floor)

    @staticmethod
    def of_triples(left: Tensor, values: Tensor, right: Tensor, floor: float) -> "Spectrum":
        """Return that of (m, k), (k,) and (n, k)."""
        rank = num_above(values, floor)
        return Spectrum(values=values, left=left[:, :rank], right=right[:, :rank])

    @property
    def largest(self) -> float:
        """The largest singular value; 0 of a matrix without any."""
        return float(self.values.max()) if self.values.numel() else 0.0

    @property
    def rank(self) -> int:
        """The numerical rank."""
        return self.left.shape[1]


def num_above(values: Tensor, floor: float) -> int:
    """Return how many singular values (k,) are above `floor` times the largest; none of zeros."""
    return int((values > floor * values.max()).sum()) if values.numel() else 0


def effective_rank(values: Tensor) -> float:
    """Return exp of the entropy of the singular values' shares, from 1 to k; 0 of a matrix of zeros."""
    total = values.sum()
    return math.exp(float(torch.special.entr(values / total).sum())) if total > 0 else 0.0


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """Return the angles (min(p, q),) in degrees between the spaces of orthonormal columns (m, p) and (m, q), the
    smallest first.
    """
    if first.shape[1] < second.shape[1]:
        first, second = second, first
    cosines = first.mT @ second  # (p, q), p >= q
    by_cosine = torch.linalg.svdvals(cosines).clamp(max=1.0).acos()
    by_sine = torch.linalg.svdvals(second - first @ cosines).clamp(max=1.0).flip(0).asin()
    if by_sine.shape[0] < by_cosine.shape[0]:  # fewer coordinates than columns: the spaces are all there is
        by_sine = torch.cat([by_cosine.new_zeros(by_cosine.shape[0] - by_sine.shape[0]), by_sine])
    return torch.where(by_cosine > math.pi / 4, by_cosine, by_sine).rad2deg()
