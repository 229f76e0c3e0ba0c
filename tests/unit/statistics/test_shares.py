"""Variance shares: tables computed by hand, expectations of all mean squares, tables that have no shares."""

from typing import Any

import numpy as np
import pytest
from scipy import special

from fedlit.statistics.shares import (
    SOURCES,
    components,
    degrees_of_freedom,
    generalised_shares,
    mean_squares,
    noncentrality,
    variance_shares,
)

BY_HAND = np.array([[[3.0, 5], [9, 7]], [[6, 6], [14, 10]]])
"""Means: all 7.5; methods 6, 9; draws 5, 10; cells 4, 8, 6, 12; seeds in draws 4.5, 5.5, 11.5, 8.5."""


def test_two_methods_two_draws_two_seeds_by_hand() -> None:
    """Sums of squares 18, 50, 2, 10, 2 are 82 in all; degrees of freedom 1, 1, 1, 2, 2."""
    assert mean_squares(BY_HAND).tolist() == pytest.approx([18, 50, 2, 5, 1], abs=1e-12)
    found = variance_shares(BY_HAND)
    assert [share.source for share in found.shares] == list(SOURCES)
    assert [share.variance for share in found.shares] == pytest.approx([2, 11, 0.5, 2, 1], abs=1e-12)
    assert [share.share for share in found.shares] == pytest.approx(np.array([2, 11, 0.5, 2, 1]) / 16.5, abs=1e-12)
    assert (found.num_methods, found.num_draws, found.num_seeds, found.reason) == (2, 2, 2, "")


def test_one_seed_by_hand() -> None:
    """Blocks: mean squares 6, 15.5 and 1.5, so that components are 4.5 / 6, 14 / 2 and 1.5."""
    found = variance_shares(np.array([[1.0, 3, 8], [4, 6, 8]])[:, :, None])
    assert [(share.source, share.variance) for share in found.shares] == [
        ("method", pytest.approx(0.75)),
        ("draw", pytest.approx(7.0)),
        ("method x draw", pytest.approx(1.5)),
    ]
    assert found.reason == 'one seed: its variance is in the share of "draw", the residual in that of "method x draw"'


@pytest.mark.parametrize("shape", [(3, 4, 2), (2, 5, 3), (6, 2, 4)])
def test_each_source_is_found_where_it_was_put(shape: tuple[int, int, int]) -> None:
    """A mean square is a quadratic form: its expectation is the sum over the independent effects of unit variance."""
    m, d, s = shape
    effects = {1: (1, d, 1), 2: (m, d, 1), 3: (1, d, s), 4: (m, d, s)}
    for source, size in effects.items():
        units = np.eye(int(np.prod(size))).reshape(-1, *size)
        tables = np.broadcast_to(units, (len(units), *shape))
        expected = mean_squares(tables).sum(axis=0)
        assert components(expected, shape) == pytest.approx(np.eye(5)[source], abs=1e-12)
    method = np.random.default_rng(0).normal(size=m)
    found = components(mean_squares(np.broadcast_to(method[:, None, None], shape)), shape)
    assert found == pytest.approx(method.var() * np.eye(5)[0], abs=1e-12)


def test_sums_of_squares_add_up() -> None:
    table = np.random.default_rng(1).normal(size=(4, 5, 3))
    total = np.sum((table - table.mean()) ** 2)
    assert np.sum(mean_squares(table) * degrees_of_freedom(table.shape)) == pytest.approx(total, rel=1e-12)
    assert degrees_of_freedom(table.shape).sum() == table.size - 1


def test_a_shift_a_unit_and_an_order_change_no_share() -> None:
    table = np.random.default_rng(2).normal(size=(4, 6, 2)) + np.arange(6)[:, None]
    plain = variance_shares(table)
    other = variance_shares(100 * table[::-1, ::-1, ::-1] - 7)
    for one, two in zip(plain.shares, other.shares, strict=True):
        assert (two.share, two.low, two.high) == pytest.approx((one.share, one.low, one.high), abs=1e-9)
    assert plain == variance_shares(table) != variance_shares(table, seed=1)


def test_a_negative_estimate_is_cut_and_told() -> None:
    table = np.array([[0.0, 1], [1, 0]])[:, :, None]  # methods and draws alike in the mean
    found = variance_shares(table)
    assert [share.share for share in found.shares] == [0, 0, 1]
    assert found.reason.endswith("estimates below zero, cut at zero: method, draw")


def test_intervals_hold_the_estimate_and_narrow_with_draws() -> None:
    generator = np.random.default_rng(4)
    widths = []
    for num_draws in (4, 100):
        table = generator.normal(size=(3, num_draws, 2)) + generator.normal(size=(num_draws, 1))
        found = variance_shares(table)
        for share in found.shares:
            assert share.low is not None and share.high is not None
            assert 0 <= share.low <= share.share <= share.high <= 1
        widths.append([(share.high or 0) - (share.low or 0) for share in found.shares])
    assert np.all(np.array(widths[1]) < np.array(widths[0]))


@pytest.mark.parametrize("effect", [np.arange(3.0)[:, None, None], np.arange(5.0)[None, :, None]])
def test_one_source_alone_has_all(effect: Any) -> None:
    found = variance_shares(effect + np.zeros((3, 5, 2)))
    alone = "method" if effect.shape[0] == 3 else "draw"
    for share in found.shares:
        expected = float(share.source == alone)
        assert (share.share, share.low, share.high) == pytest.approx((expected,) * 3, abs=1e-6)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (
            np.ones((1, 4, 2)),
            "1 methods, 4 draws and 2 seeds; variance has shares from 2 methods, 2 draws and 1 seed on",
        ),
        (
            np.ones((3, 1, 2)),
            "3 methods, 1 draws and 2 seeds; variance has shares from 2 methods, 2 draws and 1 seed on",
        ),
        (np.full((3, 4, 2), 0.3), "the scores do not vary"),
    ],
)
def test_tables_without_shares(table: Any, reason: str) -> None:
    found = variance_shares(table)
    assert (found.shares, found.reason) == ((), reason)


def test_mistakes_are_told() -> None:
    for table in (np.ones((3, 4)), np.full((3, 4, 2), np.nan)):
        with pytest.raises(ValueError, match="methods, draws, seeds"):
            variance_shares(table)


def test_noncentrality_is_the_inverse_of_the_distribution() -> None:
    values = np.array([3.0, 40, 999, 1001, 2e4])[:, None]
    levels = np.array([0.025, 0.3, 0.975])
    found = noncentrality(values, 5.0, levels)
    reached = special.chndtr(values, 5.0, np.maximum(found, 1e-12))
    is_zero = found == 0
    assert np.all(special.chdtr(5.0, values)[:, 0, None] * np.ones(3) <= levels, where=is_zero)
    assert is_zero.any() and np.abs(reached - levels)[~is_zero].max() < 1e-3
    assert noncentrality(np.array([1e9]), 5.0, np.array([0.5])) == pytest.approx(1e9, rel=1e-6)


def test_the_middle_of_the_distribution_is_near_the_truth_with_many_draws() -> None:
    shape = (3, 4000, 2)
    true = np.array([1.0, 2.0, 0.5, 0.3, 1.2])
    effects = [np.array([-1, 0, 1])[:, None, None] * np.sqrt(1.5)]
    generator = np.random.default_rng(6)
    sizes = ((1, 4000, 1), (3, 4000, 1), (1, 4000, 2), shape)
    effects += [np.sqrt(v) * generator.normal(size=size) for v, size in zip(true[1:], sizes, strict=True)]
    squares = mean_squares(sum(effects[1:], effects[0] + np.zeros(shape)))
    found = generalised_shares(squares, shape, num_resamples=500, generator=generator)
    assert np.median(found, axis=0) == pytest.approx(true / true.sum(), abs=0.02)
