"""What one use of a parameter in a forward pass adds to the gradients of single rows.

A row's gradient of a matrix is a product of what went into a layer and the gradient of what came out. Its norm needs no
gradient: |L' R|^2 = sum over s, t of (L_s . L_t) (R_s . R_t), the ghost norm (Li et al., arXiv 2110.05679, section 4).
The sum of scaled gradients is one product over all rows and tokens (book-keeping, Bu et al., arXiv 2210.00038).

Shapes: n rows, T tokens or places of each, a parameter of p x q numbers in the order in which it is stored. All sums
are in float32 or finer.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor


class Piece(ABC):
    """One use of a parameter."""

    @property
    @abstractmethod
    def is_small(self) -> bool:
        """Whether the rows' gradients are no larger, and no dearer, than what they are made of."""

    @abstractmethod
    def gradients(self) -> Tensor:
        """Return each row's gradient (n, p q)."""

    @abstractmethod
    def weighted(self, factors: Tensor) -> Tensor:
        """Return the sum over rows of factors (n,) times gradients, as (p q,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Product(Piece):
    """left_i^T right_i of each row i. left: (n, T, p). right: (n, T, q)."""

    left: Tensor
    right: Tensor

    @property
    def is_small(self) -> bool:
        """T (p + q) numbers make p q, and the ghost norm takes T^2 (p + q) products where the gradient takes T p q."""
        num_places, p = self.left.shape[1:]
        q = self.right.shape[2]
        return p * q <= num_places * (p + q)

    def gradients(self) -> Tensor:
        """Return left_i^T right_i."""
        return torch.bmm(self.left.transpose(1, 2), self.right).flatten(1)

    def weighted(self, factors: Tensor) -> Tensor:
        """Return (f left)^T right over all rows and places, with the factors on the smaller side."""
        left, right = self.left, self.right
        if left.shape[2] <= right.shape[2]:
            left = left * factors.view(-1, 1, 1)
        else:
            right = right * factors.view(-1, 1, 1)
        return (left.flatten(0, 1).T @ right.flatten(0, 1)).flatten()


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup(Piece):
    """Row ids[t] of a table gets right[t]. ids: (n, T) int64. right: (n, T, q). num_entries: p of the table."""

    ids: Tensor
    right: Tensor
    num_entries: int

    @property
    def is_small(self) -> bool:
        """A table is larger than what is read of it."""
        return False

    def gradients(self) -> Tensor:
        """Return tables of zeros with the sums of what their entries get."""
        return torch.stack([self._table(ids, right) for ids, right in zip(self.ids, self.right, strict=True)]).flatten(
            1
        )

    def weighted(self, factors: Tensor) -> Tensor:
        """Return one table for all rows."""
        return self._table(self.ids, self.right * factors.view(-1, 1, 1)).flatten()

    def _table(self, ids: Tensor, right: Tensor) -> Tensor:
        # The kernel of autograd's own backward pass, which adds in one order on a GPU, too.
        table: Tensor = torch.ops.aten.embedding_dense_backward(right, ids, self.num_entries, -1, False)
        return table


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole(Piece):
    """Each row's gradient as it is: (n, *shape), of a bias or of what scales single elements."""

    gradient: Tensor

    @property
    def is_small(self) -> bool:
        """It is there."""
        return True

    def gradients(self) -> Tensor:
        """Return it."""
        return self.gradient.flatten(1)

    def weighted(self, factors: Tensor) -> Tensor:
        """Return factors times it."""
        return factors @ self.gradients()


def are_small(pieces: Sequence[Piece]) -> bool:
    """Tell whether the rows' gradients of a parameter are to be made: always where one of several is there already."""
    return all(piece.is_small for piece in pieces) or any(isinstance(piece, Whole) for piece in pieces)


def squared_norms(pieces: Sequence[Piece]) -> Tensor:
    """Return |gradient_i|^2 (n,) of a parameter with these uses, without its gradients: its uses do not add up as
    squares, so each pair of them has a term.
    """
    total = torch.stack([_inner(piece, piece) for piece in pieces]).sum(0)
    for one, other in combinations(pieces, 2):
        total = total + 2 * _inner(one, other)
    return total


def _inner(one: Piece, other: Piece) -> Tensor:
    """Return the inner products (n,) of the rows' gradients of two uses."""
    if isinstance(one, Product) and isinstance(other, Lookup):
        one, other = other, one
    if isinstance(one, Lookup) and isinstance(other, Product):
        # (n, S, T): of the rows of left^T that the table's entries are.
        wanted = one.ids.unsqueeze(2).expand(-1, -1, other.left.shape[1])
        same = other.left.transpose(1, 2).gather(1, wanted)
        return (same * _dots(one.right, other.right)).sum((1, 2))
    if isinstance(one, Lookup) and isinstance(other, Lookup):
        same = one.ids.unsqueeze(2) == other.ids.unsqueeze(1)
        return (same * _dots(one.right, other.right)).sum((1, 2))
    assert isinstance(one, Product) and isinstance(other, Product)
    return (_dots(one.left, other.left) * _dots(one.right, other.right)).sum((1, 2))


def _dots(one: Tensor, other: Tensor) -> Tensor:
    """Return the inner products (n, S, T) of vectors (n, S, width) and (n, T, width)."""
    return torch.bmm(one, other.transpose(1, 2))
