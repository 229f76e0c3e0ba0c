"""Encode, add, reduce and decode: each rounds once or not at all, and integers do not mind any order."""

import math
import random
from collections.abc import Sequence
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedlit.algebra.tensors import TensorDict, checksum
from fedlit.process import communication
from fedlit.round.fixed_point import FRACTION_BITS, LARGEST, FixedPointSum, decode, encode
from fedlit.round.plan import weights_by_examples

SHAPES = {"layer.A": (3, 5), "layer.B": (7, 3), "scale": (), "none": (0, 4)}
NUM_SCALARS = sum(math.prod(shape) for shape in SHAPES.values())
DTYPES = (torch.float32, torch.float64)
UNIT = 2.0**-FRACTION_BITS


def random_tensors(seed: int, dtype: torch.dtype = torch.float64, size: float = 1.0) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) * size for name, shape in SHAPES.items()}


def sum_of(encoded: Sequence[TensorDict], like: TensorDict) -> TensorDict:
    total = FixedPointSum(like)
    for integers in encoded:
        total.add(integers.items())
    return dict(total.reduce())


def equal(left: TensorDict, right: TensorDict) -> bool:
    return left.keys() == right.keys() and all(torch.equal(tensor, right[name]) for name, tensor in left.items())


# Encode


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight", [1.0, 0.3, 1 / 7])
def test_encode_writes_the_weighted_change_in_units(weight: float, dtype: torch.dtype) -> None:
    """One rounding to a unit, beside float64's own of the difference and of the product."""
    values, reference = random_tensors(1, dtype), random_tensors(2, dtype)
    encoded = dict(encode(values, reference, weight))
    assert list(encoded) == list(reference)
    for name, integers in encoded.items():
        assert integers.dtype == torch.int64
        assert integers.shape == (reference[name].numel(),)
        rows = zip(
            integers.tolist(), values[name].reshape(-1).tolist(), reference[name].reshape(-1).tolist(), strict=True
        )
        for integer, value, start in rows:
            exact = Fraction(weight) * (Fraction(value) - Fraction(start)) * 2**FRACTION_BITS
            assert abs(integer - exact) <= Fraction(1, 2) + abs(exact) * Fraction(3, 2**53)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_that_equals_its_reference_is_zero_at_any_size(dtype: torch.dtype) -> None:
    tensors = {"x": torch.tensor([3e-20, -1.1, 77777.7, 2.0**-50, -0.0, 0.0], dtype=dtype)}
    ((name, integers),) = encode(tensors, tensors, 1 / 3)
    assert name == "x"
    assert integers.tolist() == [0] * 6


@pytest.mark.parametrize("dtype", DTYPES)
def test_encode_leaves_its_arguments_alone(dtype: torch.dtype) -> None:
    values, reference = random_tensors(1, dtype), random_tensors(2, dtype)
    before = checksum(values), checksum(reference)
    list(encode(values, reference, 0.3))
    assert (checksum(values), checksum(reference)) == before


def test_encode_goes_by_names_and_wants_the_same_ones() -> None:
    values, reference = random_tensors(1), random_tensors(2)
    turned = dict(reversed(values.items()))
    assert equal(dict(encode(turned, reference, 0.3)), dict(encode(values, reference, 0.3)))
    for wrong in ({"layer.A": values["layer.A"]}, {**values, "more": torch.zeros(2)}):
        with pytest.raises(AssertionError, match="names differ"):
            list(encode(wrong, reference, 0.3))


def test_encode_makes_one_tensor_at_a_time() -> None:
    """Nobody has to hold all of a model's integers twice."""
    values = random_tensors(1)
    pairs = encode(values, {**random_tensors(2), "layer.B": None}, 0.3)  # type: ignore[dict-item]
    assert next(pairs)[0] == "layer.A"  # the second tensor's reference would be a mistake


def test_the_resolution_is_absolute() -> None:
    """Below half a unit a change is zero."""
    values = torch.tensor([UNIT, UNIT / 4, -UNIT, -UNIT / 4, 0.0], dtype=torch.float64)
    ((_, integers),) = encode({"x": values}, {"x": torch.zeros(5, dtype=torch.float64)}, 1.0)
    assert integers.tolist() == [1, 0, -1, 0, 0]


def test_the_largest_differences_do_not_overflow() -> None:
    """Values of both signs of just below LARGEST, whatever the weights: sums of weighted differences fit."""
    peak = torch.full((2,), LARGEST * (1 - 2.0**-50), dtype=torch.float64)
    weights = weights_by_examples([1, 2, 3, 4, 5, 6, 7])
    for start, end in ((peak, -peak), (-peak, peak)):
        total = FixedPointSum({"x": start})
        for weight in weights:
            total.add(encode({"x": end}, {"x": start}, weight))
        assert decode(total.reduce()["x"], start).tolist() == pytest.approx(end.tolist(), rel=1e-15)
    assert LARGEST == 2.0**17
    assert FRACTION_BITS + 18 < 63


# Add


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=6),
    st.integers(0, 2**32),
    st.sampled_from(DTYPES),
    st.integers(-6, 4),
    st.randoms(use_true_random=False),
)
def test_no_order_changes_a_bit(
    counts: list[int], seed: int, dtype: torch.dtype, exponent: int, shuffled: random.Random
) -> None:
    reference = random_tensors(seed, dtype)
    encoded = [
        dict(encode(random_tensors(seed + 1 + client, dtype, size=10.0**exponent), reference, weight))
        for client, weight in enumerate(weights_by_examples(counts))
    ]
    expected = sum_of(encoded, reference)
    shuffled.shuffle(encoded)
    assert equal(sum_of(encoded, reference), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_of_floats_depends_on_the_order(dtype: torch.dtype) -> None:
    """The property above is one that the obvious implementation does not have."""
    weights = weights_by_examples([3, 5, 7, 11, 13, 17])
    terms = [weight * random_tensors(client, dtype)["layer.A"] for client, weight in enumerate(weights)]
    orders = [random.Random(seed).sample(terms, len(terms)) for seed in range(20)]
    assert len({checksum({"sum": sum(order, torch.zeros(()))}) for order in orders}) > 1


def test_masks_that_cancel_leave_the_sum() -> None:
    """Integers wrap modulo 2**64, so that any mask may be added to what a client sends."""
    reference, generator = random_tensors(0), torch.Generator().manual_seed(5)
    plain = [dict(encode(random_tensors(1 + client), reference, 0.25)) for client in range(4)]
    masked = [dict(integers) for integers in plain]
    for left in range(4):
        for right in range(left):
            for name, tensor in plain[0].items():
                mask = torch.randint(-(2**63), 2**63 - 1, tensor.shape, generator=generator)
                masked[left][name] = masked[left][name] + mask
                masked[right][name] = masked[right][name] - mask
    assert not torch.equal(masked[0]["layer.A"], plain[0]["layer.A"])
    assert equal(sum_of(masked, reference), sum_of(plain, reference))


def test_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(KeyError):
        FixedPointSum(random_tensors(0)).add([("other", torch.zeros(3, dtype=torch.int64))])


# Reduce


def test_everything_is_reduced_in_one_collective_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers: list[Tensor] = []

    def double(buffer: Tensor) -> None:
        buffers.append(buffer)
        buffer.mul_(2)  # as if another process had the same

    reference = random_tensors(0)
    (encoded,) = [dict(encode(random_tensors(1), reference, 0.25))]
    monkeypatch.setattr(communication, "sum_in_place", double)
    total = FixedPointSum(reference)
    total.add(encoded.items())
    assert not buffers
    first = {name: part.clone() for name, part in total.reduce().items()}
    assert equal(first, {name: 2 * integers for name, integers in encoded.items()})
    assert equal(dict(total.reduce()), first)
    assert [(buffer.numel(), buffer.dtype) for buffer in buffers] == [(NUM_SCALARS, torch.int64)]
    with pytest.raises(AssertionError, match="closed"):
        total.add(encoded.items())


def test_a_sum_of_nothing() -> None:
    total = FixedPointSum({})
    total.add(encode({}, {}, 1.0))
    assert dict(total.reduce()) == {}


# Decode


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_decode_moves_the_reference(share: float, dtype: torch.dtype) -> None:
    reference = {name: tensor for name, tensor in random_tensors(1, dtype).items() if tensor.numel()}
    generator = torch.Generator().manual_seed(3)
    for start in reference.values():
        total = torch.randint(-(2**46), 2**46, (start.numel(),), generator=generator)
        moved = decode(total, start, share)
        assert moved.dtype == dtype
        assert moved.shape == start.shape
        exact = [
            float(Fraction(value) + Fraction(integer, 2**FRACTION_BITS) / Fraction(share))
            for value, integer in zip(start.reshape(-1).tolist(), total.tolist(), strict=True)
        ]
        tolerance = {torch.float32: 2.0**-22, torch.float64: 2.0**-48}[dtype]
        torch.testing.assert_close(
            moved.reshape(-1), torch.tensor(exact, dtype=torch.float64).to(dtype), rtol=0, atol=tolerance
        )


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_sum_of_zero_is_the_reference_to_the_bit(share: float, dtype: torch.dtype) -> None:
    reference = torch.tensor([3e-20, -1.1, 77777.7, 2.0**-50], dtype=dtype)
    assert torch.equal(decode(torch.zeros(4, dtype=torch.int64), reference, share), reference)


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back(dtype: torch.dtype) -> None:
    values, reference = random_tensors(1, dtype), random_tensors(2, dtype)
    for name, integers in encode(values, reference, 1.0):
        back = decode(integers, reference[name])
        assert back.dtype == dtype
        torch.testing.assert_close(back, values[name], rtol=0, atol=UNIT if dtype == torch.float64 else 0)
