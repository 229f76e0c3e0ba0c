"""The leading singular subspace of a gradient by a randomised block Krylov method, in place of its whole SVD.

Halko, Martinsson and Tropp, arXiv 0909.4061: random combinations of the rows, a few more than wanted, and power
iterations. Musco and Musco, arXiv 1504.05477: the blocks of all iterations span the space, not the last one's alone,
which captures more at the same price. In float32.

Shapes: gradient (m, n); n is the smaller side and r the rank.
"""

import torch
from torch import Tensor

OVERSAMPLING = 8
POWERS = 2


def is_cheaper(shape: torch.Size, rank: int) -> bool:
    """Whether the blocks leave room in a matrix of this shape; else the whole SVD costs no more."""
    return (POWERS + 1) * (rank + OVERSAMPLING) < min(shape)


def leading_sides(matrix: Tensor, rank: int, generator: torch.Generator, sides: str) -> list[Tensor]:
    """Return orthonormal bases of the leading singular vectors, largest first: the left ones (m, r), the right (r, n).

    Args:
        matrix: (m, n) in float32, of sides for which `is_cheaper` holds.
        rank: r.
        generator: of the CPU, so that no device draws numbers of its own.
        sides: `left`, `right` or `full` for both.

    Raises:
        torch.linalg.LinAlgError: the matrix is not finite.
    """
    is_tall = matrix.shape[0] >= matrix.shape[1]
    tall = matrix if is_tall else matrix.T
    short_side = _leading_right(tall, rank, generator)
    wanted = {"left": [not is_tall], "right": [is_tall], "full": [not is_tall, is_tall]}[sides]
    # The left vectors are A V / S; the QR of A V has the same columns but for signs.
    bases = [short_side if is_short else torch.linalg.qr(tall @ short_side).Q for is_short in wanted]
    return bases if sides == "left" else [*bases[:-1], bases[-1].T.contiguous()]


def _leading_right(tall: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    """Return the leading right singular vectors (n, r) of a matrix (m, n)."""
    # Products of the matrix with itself are kept in the range of float32.
    peak = tall.abs().amax()
    if not peak.isfinite():  # eigh would return numbers without a meaning; the whole SVD raises this
        raise torch.linalg.LinAlgError("the gradient has values that are not finite")  # type: ignore[attr-defined]
    inverse = torch.where(peak > 0, 1 / peak, torch.ones_like(peak))
    width = rank + OVERSAMPLING
    draws = torch.randn(tall.shape[0], width, generator=generator).to(tall.device)
    block = torch.linalg.qr(tall.T @ (draws * inverse)).Q
    blocks, images = [block], [tall @ block * inverse]
    for _ in range(POWERS):
        block = _new_directions(tall.T @ images[-1] * inverse, torch.cat(blocks, 1))
        blocks.append(block)
        images.append(tall @ block * inverse)
    basis, image = torch.cat(blocks, 1), torch.cat(images, 1)
    _, vectors = torch.linalg.eigh(image.T @ image)  # squared singular values, ascending
    # Orthonormal already, except where the gradient has fewer directions than the blocks.
    leading: Tensor = torch.linalg.qr(basis @ vectors[:, -rank:].flip(1)).Q
    return leading


def _new_directions(block: Tensor, known: Tensor) -> Tensor:
    """Return an orthonormal basis (n, k) of the block's part outside of the known orthonormal directions."""
    for _ in range(2):  # the second time for what rounding has left of them
        block = torch.linalg.qr(block - known @ (known.T @ block)).Q
    return block
