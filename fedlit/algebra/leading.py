"""The leading singular triples of a matrix from Gram matrices, in float64: products of matrices in place of QR.

Halko, Martinsson and Tropp, arXiv 0909.4061, section 5 for the last step: a basis of the leading left vectors is found
first, and the SVD is that of the matrix projected on it, so that singular values are right to the square of the
basis' error. Squaring a matrix loses singular values below the root of eps; `reliable` says whether that can matter.

Shapes: out x in matrices; rank r below both sides.
"""

import torch
from torch import Tensor

RANGE = 1e-4
"""Singular values above this share of the factors' norms are found to the last few digits: the Gram matrices' error of
eps times the squared norm turns a singular vector by no more than eps / RANGE^2 = 2e-8 over the relative gap, which
changes the product by eps / RANGE = 2e-12 of the norm over it. Float32 has 6e-8 over the gap."""

Triples = tuple[Tensor, Tensor, Tensor, Tensor]


def leading_of_factors(left: Tensor, right: Tensor, rank: int) -> Triples:
    """Return U (out, r), S (r,) descending, Vh (r, in) of left @ right, and whether they are reliable, a 0-d bool.

    Args:
        left: (out, k) in float64.
        right: (k, in) in float64.
        rank: r < k.
    """
    gram_left, gram_right = left.T @ left, right @ right.T
    squares, vectors = torch.linalg.eigh(gram_right)
    root = vectors * squares.clamp(min=0).sqrt()  # right = root @ Q with Q of orthonormal rows
    core_squares, core_vectors = torch.linalg.eigh(root.T @ gram_left @ root)
    found = left @ (root @ core_vectors[:, -rank:])  # U S
    basis = torch.linalg.qr(found).Q
    reliable = core_squares[-rank] > RANGE**2 * squares[-1] * gram_left.norm()
    return *_projected(basis, (basis.T @ left) @ right), reliable


def leading_of_dense(matrix: Tensor, rank: int) -> Triples:
    """Return the same of a matrix (out, in) in float64."""
    if matrix.shape[0] > matrix.shape[1]:
        u, s, vh, reliable = leading_of_dense(matrix.T, rank)
        return vh.T, s, u.T, reliable
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T)
    basis = vectors[:, -rank:]
    return *_projected(basis, basis.T @ matrix), squares[-rank] > RANGE**2 * squares[-1]


def _projected(basis: Tensor, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the SVD of basis @ projected, with orthonormal columns (out, r) and any (r, in)."""
    vectors, core = torch.linalg.qr(projected.T)
    u, s, vh = torch.linalg.svd(core.T)
    return basis @ u, s, vh @ vectors.T
