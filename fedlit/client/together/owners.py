"""Which of a forward pass's rows are whose."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlit.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Owners:
    """The clients of one forward pass, in the order of their rows.

    slots: each client's place in the stacked weights. rows: rows of each. widths: tokens that each one's rows have
    without the others, where rows are padded to one length. labels: labelled positions of each, which alone reach the
    output projection, as (1, L, H). An evaluation, in which all clients have the same rows, says neither: then
    whatever a layer sees is divided among them evenly.
    """

    slots: tuple[int, ...]
    rows: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()

    def along(self, x: Tensor) -> tuple[int, tuple[int, ...]]:
        """Return the axis of x (n, ..., width) along which its owners follow one another, and each one's share.

        The axis is that of the rows, or, where only labelled positions are left, (1, L, H), that of the positions.

        Raises:
            UserError: a layer sees rows in a way that tells nobody whose they are.
        """
        if len(self.slots) == 1:
            return 0, (x.shape[0],)
        axis = 1 if x.ndim == 3 and x.shape[0] == 1 else 0
        shares = self.labels if axis else self.rows
        if self.flattens(x):
            shares = tuple(rows * max(self.widths) for rows in self.rows)
        if not shares:
            shares = (x.shape[axis] // len(self.slots),) * len(self.slots)
        if sum(shares) != x.shape[axis]:
            raise UserError(
                f"local.clients_per_batch: a layer of this model sees {tuple(x.shape)}, which is not {len(self.slots)} "
                "clients' rows one after the other; give local.clients_per_batch=1"
            )
        return axis, shares

    def flattens(self, x: Tensor) -> bool:
        """Tell whether x is (n T, width): some models put all tokens of all rows in one line."""
        return bool(self.widths) and x.ndim == 2 and x.shape[0] == sum(self.rows) * max(self.widths) != sum(self.rows)

    def parts(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield each client's slot and its part of x; of rows that were padded for others, without that padding."""
        axis, shares = self.along(x)
        for place, (slot, part) in enumerate(zip(self.slots, torch.split(x, list(shares), dim=axis), strict=True)):
            if self.widths and axis == 0 and x.ndim > 2 and x.shape[1] == max(self.widths):
                yield slot, part[:, : self.widths[place]]
            else:
                yield slot, part

    def after(self, kept: Sequence[int], num_before: int) -> "Owners":
        """Return whose rows are left when of `num_before` rows only those at the places `kept` stay, in their order."""
        shares = self.rows or (num_before // len(self.slots),) * len(self.slots)
        assert sum(shares) == num_before, f"{num_before} rows are not divided into {shares}"
        slot_of = [slot for slot, share in zip(self.slots, shares, strict=True) for _ in range(share)]
        counts = Counter(slot_of[place] for place in kept)
        left = tuple(slot for slot in self.slots if counts[slot])
        return Owners(slots=left, rows=tuple(counts[slot] for slot in left))


def evenly(shares: Sequence[int]) -> bool:
    """Tell whether all have as many."""
    return len(set(shares)) == 1
