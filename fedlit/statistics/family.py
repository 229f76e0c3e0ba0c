"""Tests of all comparisons of one table at once, which can speak where Holm's correction cannot.

A sign-flip p-value of n pairs is at least 2 / 2^n. With 15 methods there are 105 comparisons, and Holm's first step
asks for 0.05 / 105: below 13 draws nothing passes, however large the gap (`min_pairs(0.05 / 105)`). The test of P. H.
Westfall and S. S. Young ("Resampling-Based Multiple Testing", 1993) flips the signs of a draw in all comparisons
together, and asks how often the largest of them is as large as the one seen, then the same of all but the largest:
its smallest p-value is 2 / 2^n again, however many comparisons there are. It bounds the chance of any false finding
where the differences of a draw are together as likely as their mirror image.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from fedlit.seeding import numpy_generator
from fedlit.statistics.paired import LEVEL, min_pairs

EXACT_FAMILY_PAIRS = 14
"""Up to here all 2^n patterns of signs are counted."""

NUM_FAMILY_FLIPS = 9_999
"""Patterns of signs that are drawn where not all are counted."""


def step_down_p(
    differences: npt.NDArray[Any], *, level: float = LEVEL, rounding: float = 0.0, seed: int = 0
) -> list[float | None]:
    """Return p-values of differences (pairs, comparisons), corrected for all comparisons, in their order.

    All comparisons have the same draws, one a row. Each is measured by |sum| / sqrt(sum of squares), which grows with
    Student's t. All are None below the number of pairs at which a test can reach 1 - level. rounding: how far a
    difference may be off. seed: of the patterns above EXACT_FAMILY_PAIRS.

    Raises:
        ValueError: the differences have not two axes, or one is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"differences are (pairs, comparisons) and finite, not {values.shape} with holes")
    num_pairs, num_comparisons = values.shape
    if num_pairs < min_pairs(1 - level) or num_comparisons == 0:
        return [None] * num_comparisons
    values = np.where(np.abs(values) <= rounding, 0.0, values)
    sizes = np.sqrt(np.sum(values**2, axis=0))
    sizes[sizes == 0] = 1.0
    values = values / sizes
    seen = np.abs(values.sum(axis=0))
    order = np.argsort(-seen, kind="stable")
    least = (seen - 1e-12 - num_pairs * rounding / sizes)[order]
    count = np.zeros(num_comparisons)
    signs = _patterns(num_pairs, seed)
    for part in np.array_split(signs, max(1, len(signs) * num_comparisons // 1_000_000)):
        flipped = np.abs(part @ values[:, order])
        # The largest of a comparison and of all that were seen to be smaller.
        largest = np.maximum.accumulate(flipped[:, ::-1], axis=1)[:, ::-1]
        count += np.sum(largest >= least, axis=0)
    exact = num_pairs <= EXACT_FAMILY_PAIRS
    p = count / len(signs) if exact else (count + 1) / (len(signs) + 1)
    corrected = np.empty(num_comparisons)
    corrected[order] = np.maximum.accumulate(p)
    return [float(value) for value in corrected]


def _patterns(num_pairs: int, seed: int) -> npt.NDArray[np.float64]:
    """Return patterns of signs (patterns, pairs): half of all, as a pattern says what its opposite does, or random."""
    if num_pairs <= EXACT_FAMILY_PAIRS:
        numbers = np.arange(2 ** (num_pairs - 1))
        bits = (numbers[:, None] >> np.arange(num_pairs)) & 1
    else:
        bits = numpy_generator(seed, "statistics/family").integers(0, 2, size=(NUM_FAMILY_FLIPS, num_pairs))
    signs: npt.NDArray[np.float64] = np.where(bits == 1, -1.0, 1.0)
    return signs
