"""Sums of masks modulo 2**64, piece by piece.

A mask is the key stream of a 32-byte key read as 64-bit integers; nobody ever holds a whole one. Signed 64-bit integers
wrap around, which is addition modulo 2**64.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fedlit.secure.primitives import BLOCK, KeyStream


class MaskSum:
    """The sum of several masks with signs, taken in consecutive pieces.

    Args:
        masks: (key, sign) of each; the sign is 1 or -1.
    """

    def __init__(self, masks: Iterable[tuple[bytes, int]]) -> None:
        self._streams = [(KeyStream(key), sign) for key, sign in masks]
        self._scratch = np.empty(BLOCK, dtype="<i8")

    def take(self, num: int) -> NDArray[np.int64]:
        """Return the next `num` integers of the sum, a new array."""
        total = np.zeros(num, dtype=np.int64)
        for start in range(0, num, BLOCK):
            block = total[start : start + BLOCK]
            scratch = self._scratch[: len(block)]
            for stream, sign in self._streams:
                stream.fill(scratch)
                if sign > 0:
                    block += scratch
                else:
                    block -= scratch
        return total
