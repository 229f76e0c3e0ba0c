import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from fedlit.partition.heterogeneity import jensen_shannon, size_variation

COUNTS = st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(sum), min_size=1, max_size=6)


@given(table=COUNTS)
def test_it_is_scipys_squared_distance(table: list[list[int]]) -> None:
    counts = [dict(zip("abcd", row, strict=True)) for row in table]
    union = [sum(column) for column in zip(*table, strict=True)]
    expected = sum(jensenshannon(row, union, base=2) ** 2 for row in table) / len(table)
    value = jensen_shannon(counts)
    assert value is not None
    assert 0 <= value <= 1
    assert value == pytest.approx(expected, abs=1e-12)
    absent = [{name: number for name, number in row.items() if number} for row in counts]
    assert jensen_shannon(absent) == pytest.approx(value, abs=1e-12)


def test_worked_values() -> None:
    assert jensen_shannon([{"a": 5, "b": 5}, {"a": 1, "b": 1}]) == 0.0
    assert jensen_shannon([{"a": 10}]) == 0.0
    # p = (1, 0), g = (1/2, 1/2), m = (3/4, 1/4): (log2(4/3) + log2(2/3) / 2 + 1 / 2) / 2
    assert jensen_shannon([{"a": 10}, {"b": 10}]) == pytest.approx(0.311278124459)
    many = [{str(i): 1} for i in range(1_000)]
    assert 0.99 < (jensen_shannon(many) or 0.0) < 1.0


def test_clients_count_alike_whatever_their_sizes() -> None:
    one, other = {"a": 99, "b": 1}, {"a": 1}
    union = [100, 1]
    expected = (jensenshannon([99, 1], union, base=2) ** 2 + jensenshannon([1, 0], union, base=2) ** 2) / 2
    assert jensen_shannon([one, other]) == pytest.approx(expected)


def test_without_labels_there_is_none() -> None:
    assert jensen_shannon([{}, {}]) is None
    assert jensen_shannon([{"a": 3}, {}]) == 0.0


def test_size_variation() -> None:
    assert size_variation([7, 7, 7]) == 0.0
    assert size_variation([0, 10]) == 1.0
    assert size_variation([1, 3]) == pytest.approx(0.5)
