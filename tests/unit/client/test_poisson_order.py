"""Poisson batches: every row has a coin of its own in every step, whatever else is drawn."""

import math

import pytest

from fedlit.client.row_order import poisson_order, sampling_rate


def drawn(num_rows: int, batch_size: int, num_steps: int, round_idx: int = 0, client_id: int = 0) -> list[list[int]]:
    return list(poisson_order(num_rows, batch_size, 7, client_id, round_idx=round_idx, num_steps=num_steps))


def test_the_rate_is_of_rows_and_not_of_batches() -> None:
    """A loader of batches has ceil(10 / 4) = 3 of them; 1 / 3 is not the rate, nor is 3 the expected size."""
    assert sampling_rate(10, 4) == 0.4
    assert sampling_rate(3, 4) == 1.0
    assert sampling_rate(4, 4) == 1.0
    assert sampling_rate(1000, 1) == 0.001


def test_sizes_are_binomial() -> None:
    num_rows, batch_size, num_steps = 50, 20, 4000
    sizes = [len(step) for step in drawn(num_rows, batch_size, num_steps)]
    rate = batch_size / num_rows
    deviation = math.sqrt(num_rows * rate * (1 - rate))
    mean = sum(sizes) / num_steps
    assert abs(mean - batch_size) < 4 * deviation / math.sqrt(num_steps)
    variance = sum((size - mean) ** 2 for size in sizes) / num_steps
    assert variance == pytest.approx(deviation**2, rel=0.1)


def test_each_row_has_its_own_coin() -> None:
    """Each is in as often as any other, and pairs as often as if independent."""
    num_steps = 4000
    steps = [set(step) for step in drawn(10, 4, num_steps)]
    for row in range(10):
        assert abs(sum(row in step for step in steps) / num_steps - 0.4) < 4 * math.sqrt(0.24 / num_steps)
        both = sum({row, (row + 1) % 10} <= step for step in steps) / num_steps
        assert abs(both - 0.16) < 4 * math.sqrt(0.16 * 0.84 / num_steps)


def test_a_step_may_be_empty_or_hold_every_row() -> None:
    sizes = {len(step) for step in drawn(2, 1, 200)}
    assert sizes == {0, 1, 2}
    assert drawn(3, 4, 5) == [[0, 1, 2]] * 5


def test_a_row_stands_once_in_a_step() -> None:
    assert all(len(set(step)) == len(step) and step == sorted(step) for step in drawn(30, 10, 100))


def test_rounds_and_clients_draw_their_own() -> None:
    first = drawn(30, 10, 5)
    assert drawn(30, 10, 5) == first
    assert drawn(30, 10, 3) == first[:3]
    assert drawn(30, 10, 5, round_idx=1) != first
    assert drawn(30, 10, 5, client_id=1) != first
