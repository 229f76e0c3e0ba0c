"""Pieces hold every scalar once, in order, and no more of them than fit; the largest magnitude misses nothing."""

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlit.algebra import pieces as walk
from fedlit.algebra.pieces import in_double, joined, largest, num_scalars, pieces, write

SIZE = 16


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "CPU_PIECE", SIZE)
        yield


@given(st.lists(st.integers(0, 40), max_size=12))
def test_pieces_hold_every_scalar_once_and_in_order(sizes: list[int]) -> None:
    flat = torch.arange(float(sum(sizes)))
    left, right = flat.split(sizes), (-flat).split(sizes)
    found = list(pieces(left, right))
    assert [num_scalars(parts) for parts, _ in found] == [len(joined(parts)) for _, parts in found]
    assert all(0 < len(joined(parts)) <= SIZE for parts, _ in found)
    assert torch.equal(torch.cat([torch.zeros(0), *(joined(parts) for parts, _ in found)]), flat)
    assert torch.equal(torch.cat([torch.zeros(0), *(joined(parts) for _, parts in found)]), -flat)
    # A tensor that fits is not cut, and a piece is left only for one that would not fit into it.
    if max(sizes, default=0) <= SIZE:
        for (parts, _), (following, _) in pairwise(found):
            assert num_scalars(parts) + following[0].numel() > SIZE
        assert sum(len(parts) for parts, _ in found) == sum(size > 0 for size in sizes)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(pieces([torch.zeros(2)] * 2, [torch.zeros(2)]))


def test_what_may_be_written_is_a_copy() -> None:
    tensors = [torch.ones(3, dtype=torch.float64), torch.ones(20, dtype=torch.float64)]
    for (parts,) in pieces(tensors):
        in_double(parts).zero_()
    assert all(bool(tensor.all()) for tensor in tensors)
    for (parts,) in pieces(tensors):
        write(torch.full((num_scalars(parts),), 7.0), parts)
    assert all(bool((tensor == 7).all()) for tensor in tensors)


@pytest.mark.parametrize("place", [0, 5, 15, 16, 17, 99])
@pytest.mark.parametrize("value", [1e38, -1e38, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_largest_magnitude_is_found_wherever_it_is(place: int, value: float, dtype: torch.dtype) -> None:
    flat = torch.linspace(-3, 3, 100).to(dtype)
    flat[place] = value
    found = largest([*flat[:40].split(4), flat[40:], torch.zeros(0)])
    assert found is not None
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(abs(flat[place].item()), rel=0, nan_ok=True)


def test_there_is_no_largest_of_nothing() -> None:
    assert largest([]) is None
    assert largest([torch.zeros(0, 3)]) is None


def test_parts_of_several_types_are_joined_without_loss() -> None:
    tensors = [torch.full((3,), 1 / 3, dtype=dtype) for dtype in (torch.bfloat16, torch.float64, torch.float16)]
    ((parts,),) = pieces(tensors)
    assert in_double(parts).tolist() == [value for tensor in tensors for value in tensor.double().tolist()]
    write(torch.full((9,), 0.1, dtype=torch.float64), parts)
    assert all(torch.equal(tensor, torch.full((3,), 0.1, dtype=tensor.dtype)) for tensor in tensors)
