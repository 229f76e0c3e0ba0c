"""Streams go by name: the same anywhere, and none disturbs another."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from fedlit.seeding import numpy_generator, stream_seed, torch_stream

NAMES = st.tuples(st.integers(0, 2**70), st.text("ab/01", max_size=6), st.integers(0, 10**6), st.integers(-1, 10**6))


def seed_of(name: tuple[int, str, int, int]) -> int:
    seed, purpose, round_idx, client_id = name
    return stream_seed(seed, purpose, round_idx=round_idx, client_id=client_id)


@given(NAMES, NAMES)
@example((0, "a", 1, 12), (0, "a", 11, 2))
@example((0, "a/1", 2, 3), (0, "a", 1, 23))
@example((1, "2a", 0, 0), (12, "a", 0, 0))
def test_two_names_are_two_streams(left: tuple[int, str, int, int], right: tuple[int, str, int, int]) -> None:
    assert (seed_of(left) == seed_of(right)) == (left == right)
    assert 0 <= seed_of(left) < 2**63


def test_every_part_of_the_name_counts() -> None:
    names = [(0, "a", 0, -1), (1, "a", 0, -1), (0, "b", 0, -1), (0, "a", 1, -1), (0, "a", 0, 0), (0, "a", 0, 1)]
    assert len({seed_of(name) for name in names}) == len(names)


def test_a_seed_is_the_same_in_every_version() -> None:
    """Another value here means that no earlier run can be repeated."""
    assert stream_seed(0, "adapter") == 2863910104518824711
    assert stream_seed(42, "dropout", round_idx=3, client_id=7) == 6543243820831548422


def test_numpy_streams_have_no_history() -> None:
    first = numpy_generator(1, "order", client_id=2)
    first.random(10)
    np.random.seed(0)  # the global generator plays no part
    again = [numpy_generator(1, "order", client_id=2).random(4) for _ in range(2)]
    assert (again[0] == again[1]).all()
    assert not (again[0] == numpy_generator(1, "order", client_id=3).random(4)).any()


def test_a_torch_stream_depends_on_its_name_alone() -> None:
    draws = []
    for outside in (0, 1):
        torch.manual_seed(outside)
        with torch_stream(5, "dropout", round_idx=1, client_id=2):
            draws.append(torch.rand(4))
    with torch_stream(5, "dropout", round_idx=1, client_id=3):
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_generator_is_put_back_also_after_an_error() -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    with pytest.raises(RuntimeError, match="inside"), torch_stream(0, "a"):
        torch.rand(100)
        raise RuntimeError("inside")
    assert torch.equal(torch.rand(3), expected)


def test_a_torch_stream_is_what_manual_seed_begins() -> None:
    torch.manual_seed(stream_seed(5, "dropout", round_idx=1, client_id=2))
    expected = torch.rand(4)
    with torch_stream(5, "dropout", round_idx=1, client_id=2):
        assert torch.equal(torch.rand(4), expected)
