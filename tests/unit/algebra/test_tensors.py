"""Copies that nothing changes later, writes that do not broadcast, and a checksum that sees every bit."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlit.algebra.tensors import checksum, copy_into, distance, first_not_finite, num_bytes, num_parameters, snapshot


def test_sizes_count_scalars_and_their_own_bytes() -> None:
    tensors = {
        "a": torch.zeros(3, 5),
        "b": torch.zeros(7, dtype=torch.bfloat16),
        "c": torch.zeros((), dtype=torch.int64),
    }
    assert num_parameters(tensors) == 15 + 7 + 1
    assert num_bytes(tensors) == 60 + 14 + 8
    assert num_parameters({}) == num_bytes({}) == 0


def test_a_snapshot_is_detached_and_stays() -> None:
    parameter = torch.nn.Parameter(torch.randn(3, 2))
    before = parameter.detach().clone()
    copies = snapshot({"w": parameter, "moved": parameter}, device=None)
    on_cpu = snapshot({"w": parameter}, device="cpu")  # a copy even where it already is
    with torch.no_grad():
        parameter.add_(1)
    for copy in (*copies.values(), *on_cpu.values()):
        assert torch.equal(copy, before)
        assert not copy.requires_grad
    assert copies["w"].data_ptr() != copies["moved"].data_ptr()


def test_copy_into_writes_in_place_and_keeps_no_tie() -> None:
    model = torch.nn.Linear(3, 2, bias=False)
    address = model.weight.data_ptr()
    values = {"weight": torch.randn(2, 3)}
    expected = values["weight"].clone()
    copy_into(dict(model.named_parameters()), values)
    values["weight"].zero_()
    assert torch.equal(model.weight, expected)
    assert model.weight.data_ptr() == address
    assert model.weight.requires_grad


@pytest.mark.parametrize("shape", [(3, 2), (1, 3), (3,), ()])
def test_copy_into_neither_broadcasts_nor_transposes(shape: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError, match="weight"):
        copy_into({"weight": torch.zeros(2, 3)}, {"weight": torch.ones(shape)})


@pytest.mark.parametrize("names", [[], ["a"], ["a", "c"], ["a", "b", "c"]])
def test_copy_into_wants_the_same_names(names: list[str]) -> None:
    with pytest.raises(AssertionError, match="names differ"):
        copy_into({"a": torch.zeros(1), "b": torch.zeros(1)}, {name: torch.ones(1) for name in names})


def test_the_checksum_is_of_bytes_in_the_order_of_names() -> None:
    tensors = {"b": torch.arange(6, dtype=torch.float32).view(2, 3), "a": torch.tensor([1, -1])}
    text = b"a:torch.int64:(2,);" + np.array([1, -1]).tobytes()
    text += b"b:torch.float32:(2, 3);" + np.arange(6, dtype=np.float32).tobytes()
    assert checksum(tensors) == hashlib.sha256(text).hexdigest()
    assert checksum(dict(reversed(tensors.items()))) == checksum(tensors)


def test_the_checksum_goes_by_value_not_by_memory() -> None:
    wide = torch.randn(4, 6)
    assert checksum({"w": wide.T}) == checksum({"w": wide.T.contiguous()})
    assert checksum({"w": wide[:, ::2]}) == checksum({"w": wide[:, ::2].clone()})
    assert checksum({"w": torch.nn.Parameter(wide)}) == checksum({"w": wide})


@pytest.mark.parametrize(
    "other",
    [
        {"w": torch.tensor([[-0.0, 1.0]])},
        {"w": torch.nextafter(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 2.0]]))},
        {"w": torch.tensor([0.0, 1.0])},
        {"w": torch.tensor([[0.0], [1.0]])},
        {"w": torch.tensor([[0.0, 1.0]], dtype=torch.float64)},
        {"v": torch.tensor([[0.0, 1.0]])},
        {"w": torch.tensor([[0.0, 1.0]]), "x": torch.zeros(0)},
    ],
    ids=["sign of zero", "last bit", "shape", "transposed", "type", "name", "one more"],
)
def test_the_checksum_sees_everything(other: dict[str, torch.Tensor]) -> None:
    assert checksum(other) != checksum({"w": torch.tensor([[0.0, 1.0]])})


def test_the_checksum_takes_every_type() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.int8, torch.bool):
        assert checksum({"w": torch.ones(3, dtype=dtype)}) != checksum({"w": torch.zeros(3, dtype=dtype)})
    assert len(checksum({"scalar": torch.tensor(1.0), "empty": torch.zeros(0, 2)})) == 64


@given(st.integers(0, 2**32))
def test_distance_is_numpy_s_norm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left = {name: rng.normal(size=shape) for name, shape in {"a": (3, 4), "b": (5,)}.items()}
    right = {name: rng.normal(size=array.shape) for name, array in left.items()}
    expected = np.linalg.norm(np.concatenate([(left[name] - right[name]).ravel() for name in left]))
    measured = distance(*({name: torch.from_numpy(array) for name, array in side.items()} for side in (left, right)))
    assert measured == pytest.approx(expected, rel=1e-14)


def test_distance_is_summed_in_double() -> None:
    """10,000 small changes beside a large one: a float32 sum of squares would lose them all."""
    left = {"w": torch.cat([torch.tensor([1e4]), torch.full((10_000,), 1e-2)])}
    right = {"w": torch.zeros(10_001)}
    assert distance(left, right) ** 2 - 1e8 == pytest.approx(1.0, rel=1e-4)


def test_the_first_tensor_that_is_not_finite_is_named() -> None:
    good, bad = torch.ones(2, 3), torch.tensor([1.0, float("nan")])
    assert first_not_finite({}) is None
    assert first_not_finite({"a": good, "b": good}) is None
    assert first_not_finite({"a": good, "b": bad, "c": torch.tensor([float("inf")])}) == "b"
