"""Encode, add, reduce and decode: each rounds once or not at all, and integers do not mind any order."""

import math
import random
from collections.abc import Iterable, Sequence
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedlit.algebra import pieces
from fedlit.algebra.tensors import TensorDict, checksum
from fedlit.process import communication
from fedlit.round.fixed_point import FRACTION_BITS, LARGEST, FixedPointSum, decode, encode
from fedlit.round.plan import weights_by_examples

SHAPES = {"layer.A": (3, 5), "layer.B": (7, 3), "scale": (), "none": (0, 4)}
NUM_SCALARS = sum(math.prod(shape) for shape in SHAPES.values())
DTYPES = (torch.float32, torch.float64)
ALL_DTYPES = (*DTYPES, torch.bfloat16, torch.float16)
UNIT = 2.0**-FRACTION_BITS


def random_tensors(seed: int, dtype: torch.dtype = torch.float64, size: float = 1.0) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) * size for name, shape in SHAPES.items()}


def named(integers: Iterable[Tensor], like: TensorDict) -> TensorDict:
    """Return flat integers by the names of the tensors that they stand for."""
    flat = torch.cat([torch.zeros(0, dtype=torch.int64), *integers])
    return dict(zip(like, flat.split([tensor.numel() for tensor in like.values()]), strict=True))


def sum_of(encoded: Sequence[Tensor], like: TensorDict) -> Tensor:
    total = FixedPointSum(like)
    for integers in encoded:
        total.add([integers])
    return total.reduce()


def encoded_whole(values: TensorDict, reference: TensorDict, weight: float) -> Tensor:
    return torch.cat(list(encode(values, reference, weight)))


# Encode


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight", [1.0, 0.3, 1 / 7])
def test_encode_writes_the_weighted_change_in_units(weight: float, dtype: torch.dtype) -> None:
    """One rounding to a unit, beside float64's own of the difference and of the product."""
    values, reference = random_tensors(1, dtype), random_tensors(2, dtype)
    encoded = named(encode(values, reference, weight), reference)
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
    (integers,) = encode(tensors, tensors, 1 / 3)
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
    assert torch.equal(encoded_whole(turned, reference, 0.3), encoded_whole(values, reference, 0.3))
    for wrong in ({"layer.A": values["layer.A"]}, {**values, "more": torch.zeros(2)}):
        with pytest.raises(AssertionError, match="names differ"):
            list(encode(wrong, reference, 0.3))


def test_encode_makes_one_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to hold all of a model's integers twice."""
    monkeypatch.setattr(pieces, "CPU_PIECE", 16)
    made = encode(random_tensors(1), {**random_tensors(2), "scale": None}, 0.3)  # type: ignore[dict-item]
    assert [len(next(made)) for _ in range(3)] == [15, 16, 5]
    with pytest.raises(AttributeError):  # the third tensor's reference is a mistake
        next(made)
    sizes = [len(integers) for integers in encode(random_tensors(1), random_tensors(2), 0.3)]
    assert sizes == [15, 16, 5, 1]


def test_the_resolution_is_absolute() -> None:
    """Below half a unit a change is zero."""
    values = torch.tensor([UNIT, UNIT / 4, -UNIT, -UNIT / 4, 0.0], dtype=torch.float64)
    (integers,) = encode({"x": values}, {"x": torch.zeros(5, dtype=torch.float64)}, 1.0)
    assert integers.tolist() == [1, 0, -1, 0, 0]


def test_the_largest_differences_do_not_overflow() -> None:
    """Values of both signs of just below LARGEST, whatever the weights: sums of weighted differences fit."""
    peak = torch.full((2,), LARGEST * (1 - 2.0**-50), dtype=torch.float64)
    weights = weights_by_examples([1, 2, 3, 4, 5, 6, 7])
    for start, end in ((peak, -peak), (-peak, peak)):
        total = FixedPointSum({"x": start})
        for weight in weights:
            total.add(encode({"x": end}, {"x": start}, weight))
        assert decode(total.reduce(), {"x": start})["x"].tolist() == pytest.approx(end.tolist(), rel=1e-15)
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
        encoded_whole(random_tensors(seed + 1 + client, dtype, size=10.0**exponent), reference, weight)
        for client, weight in enumerate(weights_by_examples(counts))
    ]
    expected = sum_of(encoded, reference)
    shuffled.shuffle(encoded)
    assert torch.equal(sum_of(encoded, reference), expected)


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
    plain = [encoded_whole(random_tensors(1 + client), reference, 0.25) for client in range(4)]
    masked = list(plain)
    for left in range(4):
        for right in range(left):
            mask = torch.randint(-(2**63), 2**63 - 1, (NUM_SCALARS,), generator=generator)
            masked[left] = masked[left] + mask
            masked[right] = masked[right] - mask
    assert not torch.equal(masked[0], plain[0])
    assert torch.equal(sum_of(masked, reference), sum_of(plain, reference))


@pytest.mark.parametrize("num", [0, NUM_SCALARS - 1])
def test_a_client_gives_all_of_its_integers(num: int) -> None:
    with pytest.raises(AssertionError, match=f"{num} integers for {NUM_SCALARS}"):
        FixedPointSum(random_tensors(0)).add([torch.zeros(num, dtype=torch.int64)])


# Reduce


def test_everything_is_reduced_in_one_collective_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers: list[Tensor] = []

    def double(buffer: Tensor) -> None:
        buffers.append(buffer)
        buffer.mul_(2)  # as if another process had the same

    reference = random_tensors(0)
    encoded = encoded_whole(random_tensors(1), reference, 0.25)
    monkeypatch.setattr(communication, "sum_in_place", double)
    total = FixedPointSum(reference)
    total.add([encoded])
    assert not buffers
    first = total.reduce().clone()
    assert torch.equal(first, 2 * encoded)
    assert torch.equal(total.reduce(), first)
    assert [(buffer.numel(), buffer.dtype) for buffer in buffers] == [(NUM_SCALARS, torch.int64)]
    with pytest.raises(AssertionError, match="closed"):
        total.add([encoded])


def test_a_sum_of_nothing() -> None:
    total = FixedPointSum({})
    total.add(encode({}, {}, 1.0))
    assert decode(total.reduce(), {}) == {}


# Decode


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_decode_moves_the_reference(share: float, dtype: torch.dtype) -> None:
    reference = {name: tensor for name, tensor in random_tensors(1, dtype).items() if tensor.numel()}
    generator = torch.Generator().manual_seed(3)
    for start in reference.values():
        total = torch.randint(-(2**46), 2**46, (start.numel(),), generator=generator)
        moved = decode(total, {"x": start}, share)["x"]
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
    moved = decode(torch.zeros(4, dtype=torch.int64), {"x": reference}, share)["x"]
    assert torch.equal(moved, reference)


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back(dtype: torch.dtype) -> None:
    values, reference = random_tensors(1, dtype), random_tensors(2, dtype)
    back = decode(encoded_whole(values, reference, 1.0), reference)
    assert list(back) == list(reference)
    for name, value in values.items():
        assert back[name].dtype == dtype
        torch.testing.assert_close(back[name], value, rtol=0, atol=UNIT if dtype == torch.float64 else 0)


# Pieces


def odd_tensors(seed: int, dtypes: Sequence[torch.dtype]) -> TensorDict:
    """Return tensors of sizes around that of a piece: turned, cut, expanded, empty, and two over one memory."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        dtype = dtypes[len(tensors) % len(dtypes)]
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * 3).to(dtype)

    tensors: TensorDict = {}
    for num in (1, 15, 16, 17, 32, 33, 50):
        tensors[f"flat {num}"] = draw(num)
    tensors["turned"] = draw(5, 9).T
    tensors["cut"] = draw(4, 20)[:, ::3]
    tensors["expanded"] = draw(3, 1).expand(3, 11)
    tensors["empty"] = draw(0, 4)
    both = draw(40)
    tensors["left of one memory"], tensors["right of one memory"] = both[:25], both[15:]
    tensors["same again"] = tensors["turned"]
    tensors["number"] = draw()
    tensors["parameter"] = torch.nn.Parameter(draw(7))
    return tensors


@pytest.mark.parametrize("size", [1, 16, 2**15])
@pytest.mark.parametrize("dtypes", [[dtype] for dtype in ALL_DTYPES] + [ALL_DTYPES])
def test_no_piece_changes_a_bit(size: int, dtypes: Sequence[torch.dtype], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against Python's own doubles and integers, scalar by scalar: there are no pieces in them."""
    monkeypatch.setattr(pieces, "CPU_PIECE", size)
    weights, share = weights_by_examples([3, 5, 7]), 0.7
    reference = odd_tensors(0, dtypes)
    clients = [odd_tensors(1 + client, dtypes) for client in range(3)]
    total = FixedPointSum(reference)
    for values, weight in zip(clients, weights, strict=True):
        total.add(encode(values, reference, weight))
    integers, moved = named([total.reduce()], reference), decode(total.reduce(), reference, share)
    for name, start in reference.items():
        flat = start.reshape(-1).tolist()
        sums = [0] * len(flat)
        for values, weight in zip(clients, weights, strict=True):
            for place, (end, begin) in enumerate(zip(values[name].reshape(-1).tolist(), flat, strict=True)):
                sums[place] += round((end - begin) * (weight * 2.0**FRACTION_BITS))
        assert integers[name].tolist() == sums
        ends = [begin + one * UNIT / share for begin, one in zip(flat, sums, strict=True)]
        assert moved[name].is_contiguous()
        assert not moved[name].requires_grad
        assert moved[name].shape == start.shape
        assert torch.equal(moved[name].reshape(-1), torch.tensor(ends, dtype=torch.float64).to(start.dtype))


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_pieces_of_the_cache_s_size_give_the_bits_of_whole_tensors(dtype: torch.dtype) -> None:
    """Vector instructions and the rest of a piece round alike: sizes that divide nothing."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"large": (3, 40_009), "small": (1, 2047), "other": (777,), "long": (70_001,)}
    reference = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    values = {name: (tensor.double() * 1.01 + 1e-3).to(dtype) for name, tensor in reference.items()}
    integers = named(encode(values, reference, 0.3), reference)
    moved = decode(torch.cat(list(integers.values())), reference)
    for name, start in reference.items():
        change = values[name].reshape(-1).double() - start.reshape(-1).double()
        expected = (change * (0.3 * 2.0**FRACTION_BITS)).round().long()
        assert torch.equal(integers[name], expected)
        whole = start.double() + (expected.double() * UNIT).view(start.shape)
        assert torch.equal(moved[name], whole.to(dtype))


def test_the_tensors_of_a_mean_have_memory_of_their_own() -> None:
    reference = random_tensors(0)
    moved = decode(torch.zeros(NUM_SCALARS, dtype=torch.int64), reference)
    assert len({tensor.untyped_storage().data_ptr() for tensor in moved.values() if tensor.numel()}) == 3
