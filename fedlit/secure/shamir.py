"""Shamir's secret sharing (1979): t of n shares give a secret back, t - 1 say nothing about it.

A secret is the constant term of a polynomial of degree t - 1 over a prime field whose other coefficients are uniform;
a share is its value at a point other than 0. Secrets here are keys of 32 bytes, so the field has a little more than
2**256 elements and a share takes 33 bytes.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

PRIME = 2**256 + 297
"""The smallest prime above 2**256: every key of 32 bytes is an element of the field."""

SECRET_BYTES = 32
SHARE_BYTES = 33
_DRAWN_BYTES = 48


def drawn_bytes(threshold: int) -> int:
    """Return how many uniform bytes `coefficients` takes."""
    return _DRAWN_BYTES * (threshold - 1)


def coefficients(drawn: bytes, prime: int = PRIME) -> list[int]:
    """Return one field element for each 48 uniform bytes; its distribution is uniform up to 2**-127."""
    starts = range(0, len(drawn), _DRAWN_BYTES)
    return [int.from_bytes(drawn[start : start + _DRAWN_BYTES], "big") % prime for start in starts]


def share(secret: int, higher: Sequence[int], points: Sequence[int], prime: int = PRIME) -> list[int]:
    """Return the value of the polynomial at every point.

    Args:
        secret: the constant term, 0 <= secret < prime.
        higher: the other t - 1 coefficients, from the linear one on.
        points: distinct, 0 < point < prime.
        prime: of the field.
    """
    assert 0 <= secret < prime
    assert all(0 < point < prime for point in points) and len(set(points)) == len(points)
    downwards = (*reversed(higher), secret)
    values = []
    for point in points:
        value = 0
        for coefficient in downwards:
            # Reduced once at the end: points are small, so a value grows by a few bits a step.
            value = value * point + coefficient
        values.append(value % prime)
    return values


def combine(shares: Mapping[int, int], prime: int = PRIME) -> int:
    """Return the secret of t shares, point to value (Lagrange's interpolation at 0).

    Fewer shares than the threshold, or wrong ones, give another number without a word.
    """
    points = tuple(sorted(shares))
    return sum(weight * shares[point] for point, weight in zip(points, _at_zero(points, prime), strict=True)) % prime


@lru_cache(maxsize=64)  # where nobody is lost all secrets of a round come from the same points
def _at_zero(points: tuple[int, ...], prime: int) -> tuple[int, ...]:
    """Return Lagrange's weight of each point for the value at 0: the product of m / (m - point) over the others m."""
    weights = []
    for point in points:
        above, below = 1, 1
        for other in points:
            if other != point:
                above = above * other % prime
                below = below * (other - point) % prime
        weights.append(above * pow(below, -1, prime) % prime)
    return tuple(weights)
