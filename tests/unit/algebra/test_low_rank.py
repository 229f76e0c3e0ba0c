"""The algebra of factored matrices is that of the dense ones, in float64 and for every proportion of the sides."""

import pytest
import torch
from factor_rounds import Made, best_of_rank, close
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.algebra.low_rank import LowRank

SIDES = st.integers(1, 14)
WIDTHS = st.integers(1, 18)  # wider than the matrix, too


def random_low_rank(num_out: int, num_in: int, width: int, seed: int) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(num_out, width, generator=generator, dtype=torch.float64)
    return LowRank(left, torch.randn(width, num_in, generator=generator, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, WIDTHS, WIDTHS, st.integers(0, 10**6))
def test_sums_and_multiples_are_those_of_the_dense_matrices(
    num_out: int, num_in: int, width: int, other: int, seed: int
) -> None:
    first, second = random_low_rank(num_out, num_in, width, seed), random_low_rank(num_out, num_in, other, seed + 1)
    assert first.shape == (num_out, num_in)
    assert (first + second).width == width + other
    assert close((first + second).dense(), first.dense() + second.dense(), 1e-12)
    assert close((first - second * 0.3).dense(), first.dense() - 0.3 * second.dense(), 1e-12)
    assert close(LowRank.sum([first, second, first]).dense(), 2 * first.dense() + second.dense(), 1e-12)
    assert first.num_bytes == 8 * width * (num_out + num_in)


@settings(max_examples=80, deadline=None)
@given(SIDES, SIDES, WIDTHS, st.integers(0, 10**6))
def test_the_svd_is_that_of_the_dense_matrix(num_out: int, num_in: int, width: int, seed: int) -> None:
    matrix = random_low_rank(num_out, num_in, width, seed)
    u, s, vh = matrix.svd()
    kept = min(width, num_out, num_in)
    assert u.shape == (num_out, kept)
    assert vh.shape == (kept, num_in)
    assert close((u * s) @ vh, matrix.dense(), 1e-12)
    identity = torch.eye(kept, dtype=torch.float64)
    assert close(u.T @ u, identity, 1e-12)
    assert close(vh @ vh.T, identity, 1e-12)
    assert close(s, torch.linalg.svdvals(matrix.dense())[:kept], 1e-12)
    assert torch.equal(matrix.singular_values(), s)
    assert matrix.norm() == pytest.approx(float(matrix.dense().norm()), rel=1e-12)
    assert matrix.rank() == kept == int(torch.linalg.matrix_rank(matrix.dense()))


@settings(max_examples=80, deadline=None)
@given(SIDES, SIDES, WIDTHS, st.integers(0, 20), st.integers(0, 10**6))
def test_truncation_is_the_best_approximation(num_out: int, num_in: int, width: int, rank: int, seed: int) -> None:
    matrix = random_low_rank(num_out, num_in, width, seed)
    best = matrix.truncated(rank)
    assert best.left.shape == (num_out, rank)
    assert best.right.shape == (rank, num_in)
    assert close(best.dense(), best_of_rank(matrix.dense(), rank))
    lost = torch.linalg.svdvals(matrix.dense())[rank:].norm()
    assert (matrix - best).norm() == pytest.approx(float(lost), abs=1e-10)
    kept = min(rank, width, num_out, num_in)
    assert not best.left[:, kept:].any()
    assert not best.right[kept:].any()
    assert close(best.right[:kept] @ best.right[:kept].T, torch.eye(kept, dtype=torch.float64)), "right is orthonormal"


@pytest.mark.parametrize("seed", range(10))
def test_what_cancels_is_zero_to_the_last_bits(seed: int) -> None:
    """trace(L'L RR') would leave the root of the rounding error, 1e-7, for about every second draw."""
    matrix = random_low_rank(40, 30, 6, seed)
    shuffled = LowRank(matrix.left.flip(1), matrix.right.flip(0))
    assert (matrix - shuffled).norm() < 1e-13 * matrix.norm()


def test_the_rank_does_not_count_rounding() -> None:
    matrix = random_low_rank(40, 30, 4, 0)
    assert (matrix + matrix * 0.7).rank() == 4
    assert (matrix * 1e-20).rank() == 4, "relative to the largest singular value"
    assert (matrix * 0.0).rank() == 0
    assert matrix.truncated(2).rank() == 2


def test_a_sum_of_no_columns_is_a_zero_matrix() -> None:
    """What a residual of rank 0 is."""
    nothing = random_low_rank(6, 4, 3, 0).truncated(0)
    assert nothing.width == nothing.rank() == nothing.num_bytes == 0
    assert nothing.norm() == 0.0
    assert torch.equal(nothing.dense(), torch.zeros(6, 4, dtype=torch.float64))


def test_factors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AssertionError):
        LowRank(torch.zeros(4, 3), torch.zeros(2, 5))


def test_thin_factors_never_become_the_dense_matrix() -> None:
    matrix = random_low_rank(400, 300, 12, 0)
    with Made() as made:
        for _ in range(2):
            (matrix + matrix * 0.3).truncated(5)
            matrix.norm()
            matrix.rank()
    assert 0 < made.largest <= 2 * 12 * 400, "no more than the wider factor of the sum"
    with Made() as made:
        matrix.dense()
    assert made.largest == 400 * 300
