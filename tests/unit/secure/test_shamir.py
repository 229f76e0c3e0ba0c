"""Shamir's sharing: t shares give the secret, t - 1 nothing at all."""

import itertools
import random
from collections import Counter

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.secure.shamir import PRIME, SECRET_BYTES, SHARE_BYTES, coefficients, combine, drawn_bytes, share


def test_every_key_is_an_element_of_the_field() -> None:
    assert sympy.nextprime(2 ** (8 * SECRET_BYTES)) == PRIME
    assert PRIME < 2 ** (8 * SHARE_BYTES)


@settings(max_examples=60, deadline=None)
@given(
    secret=st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES),
    num=st.integers(1, 9),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_any_t_shares_give_the_secret(secret: bytes, num: int, seed: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, num))
    drawn = random.Random(seed).randbytes(drawn_bytes(threshold))
    points = list(range(1, num + 1))
    values = share(int.from_bytes(secret, "big"), coefficients(drawn), points)
    shares = dict(zip(points, values, strict=True))
    for chosen in itertools.combinations(points, threshold):
        found = combine({point: shares[point] for point in chosen})
        assert found.to_bytes(SECRET_BYTES, "big") == secret


@pytest.mark.parametrize(("prime", "threshold", "num"), [(5, 2, 4), (7, 3, 5), (11, 2, 6), (5, 4, 4)])
def test_fewer_shares_are_the_same_for_every_secret(prime: int, threshold: int, num: int) -> None:
    """Over all polynomials any t - 1 holders see each possible tuple exactly once, whatever the secret."""
    points = list(range(1, num + 1))
    for secret in range(prime):
        tables = [
            dict(zip(points, share(secret, higher, points, prime), strict=True))
            for higher in itertools.product(range(prime), repeat=threshold - 1)
        ]
        for holders in itertools.combinations(points, threshold - 1):
            seen = Counter(tuple(table[point] for point in holders) for table in tables)
            assert len(seen) == prime ** (threshold - 1) and set(seen.values()) == {1}
        for holders in itertools.combinations(points, threshold):
            assert all(combine({point: table[point] for point in holders}, prime) == secret for table in tables)


def test_one_share_too_few_gives_another_number() -> None:
    higher = coefficients(random.Random(0).randbytes(drawn_bytes(4)))
    assert len(higher) == 3 and len(set(higher)) == 3 and all(0 <= number < PRIME for number in higher)
    values = share(1234, higher, [1, 2, 3, 4, 5])
    assert combine({1: values[0], 3: values[2], 5: values[4]}) != 1234
    assert combine({1: values[0], 3: values[2], 5: values[4], 4: values[3]}) == 1234


def test_points_are_distinct_and_never_that_of_the_secret() -> None:
    for points in ([0, 1], [1, 1]):
        with pytest.raises(AssertionError):
            share(3, [1], points)
