"""Exact samples of the discrete Gaussian N_Z(0, sigma^2), P(x) proportional to exp(-x^2 / (2 sigma^2)) on the integers
(Canonne, Kamath, Steinke 2020, arXiv 2004.00010). Given ideal random bits every probability is exact: no float decides.

The method is rejection under a histogram. Block b holds `width` = 2^shift neighbouring integers, and the blocks cover
|x| up to about 6 sigma. Over each stands a column of equal cells, at least S * exp(-x^2 / (2 sigma^2)) of them for
every x of the block. All columns together have less than 2^14 cells; one more is for both tails, and the others are
empty. One random word gives a cell (top 14 bits) and an x of its block (low bits), without rounding and without modulo
bias.

- A *sure* cell lies below S * exp(-x^2 / (2 sigma^2)) for all x of its block: x is taken. Nine tenths are so.
- A *doubtful* one has p cells of its column below it: x is taken where p + U < S * exp(-x^2 / (2 sigma^2)), U uniform
  on [0, 1). A second word gives U's first 64 bits. Floats decide where their certified interval allows it; else
  integers.
- The *tail* cell: tail block i = 0, 1, .. of 16 * width integers comes up with probability 2^-(i + 1). It begins at
  reach + 16 * width * i, or is the mirror image of that about -1/2. x is taken where
  U < 2^(i + 6) * S * exp(-x^2 / (2 sigma^2)), which makes up for the smaller chance of its being proposed.
- An empty cell takes nothing. A sample that is not taken is drawn anew.

So every x has the probability 2^-14 / width * S * exp(-x^2 / (2 sigma^2)) in one trial.

Samples do not depend on the last bits of a machine's exp, not even through the number of words drawn: a third word is
drawn in the tail cell, and where U's 64 bits are too few, which is where no certified float can decide either.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedlit.errors import UserError

MAX_SIGMA = 2**60
"""Largest standard deviation: 8 sigma still fit int64."""

_CELL_BITS = 14
_NUM_CELLS = 1 << _CELL_BITS
_LOW_BITS = 64 - _CELL_BITS
"""Bits of a word that are not the cell's."""
_BLOCKS_PER_SIGMA = 16
"""At least, where sigma has so many integers."""
_REACH = 6
"""Standard deviations that the blocks cover."""
_TAIL_WIDTH = 16
"""Width of a tail block over `width`: more than sigma / 2, since `width` is more than sigma / 32."""
_SCALE_BITS = 8
"""S is an integer over 2^8."""
_TABLE_BITS = 96
"""Bits after the point of the heights from which the table is made."""
_EMPTY = 2.0**20
"""Cells below an empty cell: more than S, so that nothing in it is taken."""

_MARGIN = 2.0**-40
_TINY = 2.0**-60
"""The float side of p + U < S * exp(-x^2 / (2 sigma^2)) is wrong by less than _MARGIN * (both sides) + _TINY.

With u = 2^-53: x, sigma and their quotient are rounded once each, so the quotient has a relative error of 3u and its
square one of 7u; halving is exact. The exponent is below 64 in a doubtful cell, thus wrong by less than 448u < 2^-44.
To this come 2^-42 for the library's exp (a thousand units in the last place; NumPy's has 4) and u for the product with
S: less than 2^-40 together. The left side is rounded three times and leaves out U's later bits, less than 2^-64.
"""

_PIECE = 1 << 14
"""Samples made at a time, so that their words stay in the cache. Other sizes would give other samples."""

_Words = NDArray[np.uint64]
_Integers = NDArray[np.int64]


def sample(sigma: int, size: int, generator: np.random.Generator) -> _Integers:
    """Return independent samples of the discrete Gaussian.

    They depend on the generator's state, sigma and size alone, on every machine; a shorter call does not give the first
    ones of a longer call.

    Args:
        sigma: the parameter, an integer from 0 to 2^60; 0 gives zeros and draws nothing. The standard deviation is
            sigma up to a relative 1e-6, and never above it.
        size: number of samples.
        generator: gives all random bits, whole 64-bit words. With a seeded one this is a simulation: who knows the seed
            knows the noise.

    Returns:
        int64 array of shape (size,).

    Raises:
        TypeError: sigma is no integer.
        ValueError: sigma or size is negative.
        UserError: sigma is above 2^60, or a sample lies outside int64 (one in 10^15 at 2^60, fewer below).
    """
    sigma = operator.index(sigma)
    if sigma < 0 or size < 0:
        raise ValueError(f"sigma is {sigma} and size {size}; neither may be negative")
    if sigma > MAX_SIGMA:
        raise UserError(
            f"the noise's standard deviation is {sigma} units of the grid, more than 2^60, too much for 64-bit sums: "
            "lower privacy.noise_multiplier (or raise privacy.epsilon) or lower privacy.clip_norm"
        )
    if sigma == 0:
        return np.zeros(size, dtype=np.int64)
    table, trial = _table(sigma), _Trial(generator)
    samples = np.empty(size, dtype=np.int64)
    waiting = trial.fill(table, samples)
    while waiting.size:
        again = np.empty(waiting.size, dtype=np.int64)
        refused = trial.fill(table, again)
        samples[waiting] = again
        waiting = waiting[refused]
    return samples


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """The histogram of one sigma. Cells are in the order sure, doubtful, tail, empty.

    first: (2^14,) the smallest x of each cell's block. below: of every cell that is not sure, the cells below it.
    num_sure, num_doubtful: cells. scale: S * 2^8. reach: the blocks hold -reach to reach - 1. tail_limit: 2^64 times a
    bound of what U must be below in the tail cell.
    """

    sigma: int
    shift: int
    reach: int
    scale: int
    num_sure: int
    num_doubtful: int
    first: _Integers
    below: NDArray[np.float64]
    tail_limit: int


@lru_cache(maxsize=16)
def _table(sigma: int) -> _Table:
    """Return the histogram. It is made with integers alone: the same on every machine."""
    shift = max(0, (sigma // _BLOCKS_PER_SIGMA).bit_length() - 1)
    width = 1 << shift
    num = -(-_REACH * sigma // width)  # blocks on each side
    bounds = [_exp_bounds((k * width) ** 2, 2 * sigma**2, _TABLE_BITS) for k in range(num + 1)]
    blocks = range(-num, num)
    # Block b holds |x| from `near` * width to at most `far` * width; where width is 1 it holds x = b alone.
    near = [b if b >= 0 else -b - (width > 1) for b in blocks]
    far = [abs(b) if width == 1 else max(b + 1, -b) for b in blocks]
    highs, lows = [bounds[k][1] for k in near], [bounds[k][0] for k in far]
    # sum of ceil(S * high) <= S * sum of highs + number of blocks <= 2^14 - 1, one cell being the tails'.
    point = _TABLE_BITS + _SCALE_BITS
    scale = ((_NUM_CELLS - 1 - 2 * num) << point) // sum(highs)
    heights = np.array([-(-scale * high >> point) for high in highs])
    sure = np.array([scale * low >> point for low in lows])
    starts = np.array([b * width for b in blocks], dtype=np.int64)
    doubtful = heights - sure
    num_sure, num_doubtful = int(sure.sum()), int(doubtful.sum())
    first = np.zeros(_NUM_CELLS, dtype=np.int64)
    first[:num_sure] = np.repeat(starts, sure)
    first[num_sure : num_sure + num_doubtful] = np.repeat(starts, doubtful)
    below = np.full(_NUM_CELLS - num_sure, _EMPTY)
    within = np.arange(num_doubtful) - np.repeat(np.cumsum(doubtful) - doubtful, doubtful)
    below[:num_doubtful] = np.repeat(sure, doubtful) + within
    # A tail block's bound is largest for i = 0: the next one's is 2 * exp(-(reach * W) / sigma^2) of it or less, W
    # being the tail block's width; reach >= 6 sigma and W > sigma / 2 make that 2 * exp(-3). It is below 1 for i = 0
    # too, 2^6 * 2^14 * exp(-18) = 0.016, as a probability must be.
    tail_limit = -(-scale * bounds[num][1] << 64 + 6 >> point) + 1
    first.flags.writeable = below.flags.writeable = False  # shared by threads
    return _Table(
        sigma=sigma,
        shift=shift,
        reach=num * width,
        scale=scale,
        num_sure=num_sure,
        num_doubtful=num_doubtful,
        first=first,
        below=below,
        tail_limit=tail_limit,
    )


class _Trial:
    """Makes samples, or tells which ones have to be drawn again.

    Args:
        generator: gives all words.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def fill(self, table: _Table, out: _Integers) -> _Integers:
        """Draw every element of `out` once and return the indices of those that were not taken."""
        refused = [np.zeros(0, dtype=np.int64)]
        for start in range(0, out.size, _PIECE):
            refused.append(start + self._fill_piece(table, out[start : start + _PIECE]))
        return np.concatenate(refused)

    def _fill_piece(self, table: _Table, out: _Integers) -> _Integers:
        words = _words(self._generator, out.size)
        cells = (words >> np.uint64(_LOW_BITS)).view(np.int64)
        np.take(table.first, cells, out=out, mode="clip")  # no index is clipped; "raise" would copy
        unsure = np.flatnonzero(words >= np.uint64(table.num_sure << _LOW_BITS))
        if table.shift > _LOW_BITS:
            words = _words(self._generator, out.size)
        words &= np.uint64((1 << table.shift) - 1)
        out += words.view(np.int64)
        return unsure[~self._accepted(table, out, unsure, cells[unsure] - table.num_sure)]

    def _accepted(self, table: _Table, out: _Integers, unsure: _Integers, cells: _Integers) -> NDArray[np.bool_]:
        """Tell for every element that is in no sure cell whether it is taken; one from a tail is put into `out`."""
        uniform = _words(self._generator, unsure.size)
        below = table.below[cells]
        left = uniform * 2.0**-64 + below
        right = _exp(-0.5 * (out[unsure] / float(table.sigma)) ** 2) * (table.scale / 2**_SCALE_BITS)
        difference, margin = right - left, _MARGIN * (left + right) + _TINY
        accepted: NDArray[np.bool_] = difference > margin
        for i in np.flatnonzero(np.abs(difference) <= margin):
            known = _Uniform(int(uniform[i]), self._further)
            accepted[i] = _is_below(known, table, int(out[unsure[i]]), below=int(below[i]))
        in_tail = (cells == table.num_doubtful) & (uniform < np.uint64(table.tail_limit))
        for i in np.flatnonzero(in_tail):
            value = _tail(table, int(uniform[i]), self._further)
            accepted[i] = value is not None
            if value is not None:
                out[unsure[i]] = value
        return accepted

    def _further(self) -> int:
        return int(_words(self._generator, 1)[0])


class _Uniform:
    """A uniform number of [0, 1) whose bits are drawn as they are needed.

    Args:
        bits: the first 64 bits, as an integer.
        further: gives the next 64.
    """

    def __init__(self, bits: int, further: Callable[[], int]) -> None:
        self.bits, self.num, self._further = bits, 64, further

    def extend(self) -> None:
        """Draw 64 bits more."""
        self.bits, self.num = self.bits << 64 | self._further(), self.num + 64


def _is_below(uniform: _Uniform, table: _Table, x: int, *, below: int = 0, power: int = 0) -> bool:
    """Tell whether below + U < 2^power * S * exp(-x^2 / (2 sigma^2)): exactly, with as many bits as that takes."""
    while True:
        guard = 32
        low, high = _exp_bounds(x * x, 2 * table.sigma**2, uniform.num + guard)
        low, high = (table.scale * bound << power for bound in (low, high))
        at_least = (below << uniform.num) + uniform.bits  # U is in [bits, bits + 1) / 2^num
        if at_least + 1 << guard + _SCALE_BITS <= low:
            return True
        if at_least << guard + _SCALE_BITS >= high:
            return False
        uniform.extend()


def _tail(table: _Table, uniform: int, further: Callable[[], int]) -> int | None:
    """Return the value that one trial in the tail cell takes, or None."""
    index, bits = 0, further()
    is_left, bits, left = bool(bits & 1), bits >> 1, 63
    while not bits & 1:
        index, bits, left = index + 1, bits >> 1, left - 1
        if left == 0:
            bits, left = further(), 64
    width = _TAIL_WIDTH << table.shift
    distance = table.reach + index * width + (further() & width - 1)  # width is at most 2^60
    x = -1 - distance if is_left else distance
    # This x came up with probability 2^-14 * 2^-(index + 2) / (16 * width); a block's, in one cell, with 2^-14 / width.
    if not _is_below(_Uniform(uniform, further), table, x, power=index + 6):
        return None
    if not -(2**63) <= x < 2**63:
        raise UserError(f"a sample of noise with standard deviation {table.sigma} lies outside 64 bits: another seed")
    return x


def _exp_bounds(numerator: int, denominator: int, num_bits: int) -> tuple[int, int]:
    """Return integers around 2^num_bits * exp(-numerator / denominator), 3 apart.

    `decimal` rounds quotient and exponential correctly, the same everywhere. With d digits the quotient q is wrong by
    less than q * 10^(1 - d), the exponential so by less than (2 q + 1) * 10^(1 - d); d leaves this below 10^-15 units.
    """
    digits = 20 + num_bits * 302 // 1000 + len(str(numerator // denominator))
    context = Context(prec=digits, rounding=ROUND_HALF_EVEN, Emin=MIN_EMIN, Emax=MAX_EMAX)
    quotient = context.divide(Decimal(numerator), Decimal(denominator))
    top, bottom = context.exp(quotient.copy_negate()).as_integer_ratio()  # `-` would round to 28 digits
    floor = (top << num_bits) // bottom
    return floor - 1, floor + 2


def _exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(values)


def _words(generator: np.random.Generator, size: int) -> _Words:
    """Return random 64-bit words."""
    return generator.integers(0, 2**64, size=size, dtype=np.uint64)
