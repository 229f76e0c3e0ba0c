"""FixedPointMean against rational arithmetic: its error bound, its limits, and that grouping changes no bit."""

import copy
import math
import pickle
import re
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.errors import DivergenceError
from fedlit.metrics.exact import FRACTION_BITS, FixedPointMean, to_fixed_point

examples = st.lists(
    st.tuples(st.floats(min_value=-1e6, max_value=1e6, width=32), st.integers(min_value=0, max_value=4096)),
    min_size=1,
    max_size=40,
)


def mean_of(rows: list[tuple[float, int]], cuts: list[int] | None = None) -> float:
    metric = FixedPointMean()
    edges = [0, *sorted(cuts or []), len(rows)]
    for start, stop in pairwise(edges):
        part = rows[start:stop]
        metric.update(torch.tensor([s for s, _ in part]), torch.tensor([c for _, c in part], dtype=torch.int64))
    return metric.compute().item()


@settings(deadline=None)
@given(rows=examples, data=st.data())
def test_any_order_and_grouping_gives_the_same_bits(rows: list[tuple[float, int]], data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(min_value=0, max_value=len(rows)), max_size=5))
    shuffled = data.draw(st.permutations(rows))
    assert repr(mean_of(shuffled, cuts)) == repr(mean_of(rows))


@settings(deadline=None)
@given(rows=examples)
def test_error_is_within_the_stated_bound(rows: list[tuple[float, int]]) -> None:
    count = sum(c for _, c in rows)
    if count == 0:
        assert math.isnan(mean_of(rows))
        return
    exact = sum(Fraction(s) for s, _ in rows) / count
    bound = Fraction(len(rows), count * 2 ** (FRACTION_BITS + 1)) + abs(exact) * Fraction(1, 2**53)
    assert abs(Fraction(mean_of(rows)) - exact) <= bound


def test_values_are_rounded_to_nearest_and_ties_to_even() -> None:
    values = torch.randn(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ties = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5]) * 2.0**-FRACTION_BITS
    for part in (values, ties):
        assert to_fixed_point(part).tolist() == [round(Fraction(v) * 2**FRACTION_BITS) for v in part.tolist()]


def test_a_float_sum_would_have_depended_on_the_order() -> None:
    rows = [(2.0**30, 1), (2.0**-30, 1), (-(2.0**30), 1)]
    values = torch.tensor([s for s, _ in rows], dtype=torch.float32)
    assert values.sum() != values.flip(0)[[0, 2, 1]].sum()
    assert mean_of(rows) == mean_of(rows[::-1]) == mean_of([rows[0], rows[2], rows[1]]) == 2.0**-30 / 3


def test_sums_beyond_int64_do_not_overflow() -> None:
    metric = FixedPointMean()
    values = torch.full((10_000,), -(2.0**31) + 1, dtype=torch.float64)
    for _ in range(4):  # the plain int64 sum would need 2**31 * 2**32 * 40,000
        metric.update(values, torch.ones(10_000, dtype=torch.int64))
    assert metric.compute().item() == -(2.0**31) + 1


def test_without_values_or_with_zero_counts_the_mean_is_nan() -> None:
    metric = FixedPointMean()
    metric.update(torch.empty(0), torch.empty(0, dtype=torch.int64))
    assert math.isnan(metric.compute().item())
    metric.update(torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    assert math.isnan(metric.compute().item())


def test_result_is_a_float64_scalar_and_follows_every_update() -> None:
    metric = FixedPointMean()
    metric.update(torch.tensor(3.0, dtype=torch.bfloat16), torch.tensor(2))
    first = metric.compute()
    assert (first.dtype, first.shape, first.item()) == (torch.float64, torch.Size([]), 1.5)
    metric.update(torch.tensor([[1.0], [2.0]]), torch.tensor([[1], [1]]))
    assert metric.compute().item() == 1.5 == first.item()
    metric.update(torch.tensor([2.0]), torch.tensor([0], dtype=torch.int32))
    assert metric.compute().item() == 2.0
    metric.reset()
    assert torch.equal(metric.state, torch.zeros(3, dtype=torch.int64))


def test_pickled_and_copied_metrics_go_on() -> None:
    metric = FixedPointMean()
    metric.update(torch.tensor([5.0]), torch.tensor([4]))
    assert pickle.loads(pickle.dumps(metric)).compute() == copy.deepcopy(metric).compute() == metric.compute()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2.0**31, -(2.0**31)])
def test_a_value_without_an_exact_sum_is_named(bad: float) -> None:
    metric = FixedPointMean()
    fact = f"is {bad}" if not math.isfinite(bad) else f"has magnitude {2.0**31}, finite values below {2**31} are needed"
    with pytest.raises(DivergenceError, match=rf"^the value at position 1 {re.escape(fact)}; "):
        metric.update(torch.tensor([1.0, bad, 1.0]), torch.ones(3, dtype=torch.int64))
    assert metric.state.count_nonzero() == 0


def test_the_largest_values_fit() -> None:
    largest = torch.tensor([math.nextafter(2.0**31, 0.0), -math.nextafter(2.0**31, 0.0)], dtype=torch.float64)
    assert to_fixed_point(largest).tolist() == [2**63 - 2**10, -(2**63) + 2**10]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (torch.tensor([1, -2]), r"count -2 is outside 0\.\.2147483647"),
        (torch.tensor([1, 2**31]), r"count 2147483648 is outside"),
        (torch.tensor([1.0, 2.0]), r"counts are torch\.float32: give integers"),
        (torch.tensor([1]), r"2 values but 1 counts"),
    ],
)
def test_bad_counts_are_named(counts: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FixedPointMean().update(torch.ones(2), counts)
