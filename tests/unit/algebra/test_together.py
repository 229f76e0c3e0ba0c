"""Several low-rank matrices at a time give what each alone does, and wait for the device once."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from factor_rounds import best_of_rank, close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedlit.algebra import leading, together
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.together import compacted, norms, ranks, ranks_of_energy, truncations

SIDES = st.integers(2, 30)


def random_matrix(num_out: int, num_in: int, width: int, seed: int = 0) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(num_out, width, generator=generator, dtype=torch.float64)
    return LowRank(left, torch.randn(width, num_in, generator=generator, dtype=torch.float64))


def of_values(values: Sequence[float], num_out: int = 60, num_in: int = 50, seed: int = 0) -> LowRank:
    """Return a matrix with these singular values, in factors that do not show them."""
    generator = torch.Generator().manual_seed(seed)
    width = len(values)
    sides = [torch.randn(side, width, generator=generator, dtype=torch.float64) for side in (num_out, num_in)]
    left, right = (torch.linalg.qr(side).Q for side in sides)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    mixed = left * torch.tensor(values, dtype=torch.float64) @ mix
    return LowRank(mixed, torch.linalg.solve(mix, right.T))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many values each wait for the device brings."""
    seen: list[int] = []
    read: Callable[[Sequence[Tensor]], Any] = together._read

    def counted(values: Sequence[Tensor]) -> Any:
        seen.extend([len(values)] if values else [])
        return read(values)

    monkeypatch.setattr(together, "_read", counted)
    return seen


def test_norms_and_ranks_are_those_of_each(reads: list[int]) -> None:
    matrices = [random_matrix(9, 7, width) for width in (1, 3, 12)]
    assert norms(matrices) == [matrix.norm() for matrix in matrices]
    assert ranks(matrices) == [1, 3, 7] == [matrix.rank() for matrix in matrices]
    assert reads == [3, 3]
    assert norms([]) == ranks([]) == []


FAR = [1.0, 0.5, 1e-3, 1e-6, 1e-9]
"""Singular values of a range that squares do not have in float64."""


@pytest.mark.parametrize("width", [5, 70])
def test_what_gram_matrices_cannot_find_comes_from_the_whole_svd(width: int) -> None:
    """Thin factors and dense ones."""
    matrix = of_values(FAR)
    matrix = LowRank.sum([matrix, random_matrix(60, 50, width - 5) * 0.0]) if width > 5 else matrix
    best = best_of_rank(matrix.dense(), 4)
    assert not matrix.leading(4)[1]
    assert close(matrix.truncated(4).dense(), best, 1e-14)
    assert matrix.leading(2)[1]
    assert close(matrix.truncated(2).dense(), best_of_rank(matrix.dense(), 2), 1e-12)


def test_a_sum_whose_parts_cancel_is_not_trusted_to_squares() -> None:
    """Factors of size 1e3 whose product is of size 1: eps times their squared size is what squares leave."""
    small, large = of_values([1.0, 0.5, 0.2]), random_matrix(60, 50, 4) * 1e3
    total = LowRank.sum([large, small, large * -1.0])
    assert not total.leading(2)[1]
    assert close(total.truncated(2).dense(), best_of_rank(small.dense(), 2), 1e-10)


def test_truncations_are_those_of_each(reads: list[int]) -> None:
    """Of them one cannot be truncated, one is not reliable, and one is dense."""
    matrices = [random_matrix(40, 30, 6), random_matrix(40, 30, 2), of_values(FAR), random_matrix(20, 12, 30)]
    wanted = [3, 5, 4, 4]
    made: list[int] = []

    def make(place: int) -> LowRank:
        made.append(place)
        return matrices[place]

    found = truncations([partial(make, place) for place in range(4)], wanted)
    for matrix, rank, best in zip(matrices, wanted, found, strict=True):
        assert torch.equal(best.dense(), matrix.truncated(rank).dense())
        assert best.width == rank
    assert reads == [3]
    assert made == [0, 1, 2, 3, 2], "one after the other, and again what was not reliable"


def test_ranks_of_energy_are_read_once(reads: list[int]) -> None:
    """Thin factors, a dense matrix, and one of zeros."""
    matrices = [of_values(FAR), random_matrix(20, 12, 30), random_matrix(9, 7, 3) * 0.0]
    for energy in (0.5, 0.99, 1.0):
        found = ranks_of_energy([partial(matrices.__getitem__, place) for place in range(3)], energy)
        for matrix, rank in zip(matrices[:2], found, strict=False):
            values = torch.linalg.svdvals(matrix.dense())
            left_out = [float(values[kept:].square().sum()) for kept in (rank - 1, rank)]
            assert left_out[1] <= (1 - energy) * float(values.square().sum()) + 1e-25
            assert left_out[0] > (1 - energy) * float(values.square().sum())
        assert found[2] == 0
    assert reads == [3, 3, 3]


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 40), st.integers(0, 3), st.integers(0, 10**6))
def test_compacted_is_the_same_matrix_in_no_more_numbers(
    num_out: int, num_in: int, width: int, num_cancelled: int, seed: int
) -> None:
    matrix = random_matrix(num_out, num_in, width, seed)
    noise = random_matrix(num_out, num_in, num_cancelled + 1, seed + 1)
    total = LowRank.sum([noise, matrix, noise * -1.0])
    (small,) = compacted([lambda: total], [torch.float64])
    assert close(small.dense(), matrix.dense(), 1e-12)
    assert small.num_bytes <= 8 * num_out * num_in
    least = int(together._least_rank(total))
    assert least <= matrix.rank() <= min(width, num_out, num_in)


def test_compacted_finds_what_cancelled_and_else_goes_dense_without_an_svd(
    reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = random_matrix(40, 30, 3), random_matrix(40, 30, 25)
    held = LowRank(few.left, few.right, torch.ones(40, 30, dtype=torch.float32))
    totals = [few, LowRank.sum([many, few, many * -1.0]), LowRank.sum([many, few]), held]
    found = compacted([partial(totals.__getitem__, place) for place in range(4)], [torch.float32] * 4)
    assert [sorted(one.parts) for one in found] == [["left", "right"], ["left", "right"], ["rest"], ["rest"]]
    assert [one.width for one in found[:2]] == [3, 3]
    assert {part.dtype for one in found for part in one.parts.values()} == {torch.float32}
    for one, total in zip(found, totals, strict=True):
        assert close(one.dense().double(), total.dense(), 1e-6)
    assert reads == [1, 1], "the lower bound of the rank, and the rank of the one that it leaves open"
    monkeypatch.setattr(torch.linalg, "svd", lambda *_: pytest.fail("a whole SVD"))
    compacted([lambda: totals[2]], [torch.float32])


def test_a_dense_matrix_of_another_type_is_made_in_strips() -> None:
    matrix = random_matrix(600, 20, 3)
    whole = LowRank(matrix.left, matrix.right, torch.randn(600, 20))
    exact = whole.rest.double() + matrix.dense()  # type: ignore[union-attr]
    assert torch.equal(whole.dense(torch.float32), exact.float()) or close(
        whole.dense(torch.float32), exact.float(), 1e-6
    )
    assert whole.dense().dtype == torch.float64


def test_the_range_is_what_the_error_asks_for() -> None:
    """Just inside of it the product is right to 1e-11 of its norm."""
    matrix = of_values([1.0, 0.3, 3e-4, 1.5e-4, 1e-5])
    best, _ = matrix.leading(3)
    assert (best.dense() - best_of_rank(matrix.dense(), 3)).norm() < 1e-11
    assert leading.RANGE == 1e-4
