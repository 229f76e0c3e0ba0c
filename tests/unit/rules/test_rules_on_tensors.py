"""The functions for others to import: mappings of tensors in and out, against dense float64."""

import math

import pytest
import torch
from torch import Tensor

from fedlit import rules
from fedlit.commands import aggregate, merge
from fedlit.errors import UserError
from fedlit.exported.merging import DTYPES

SHAPES = {"first": (7, 11), "second": (13, 5)}


def adapter(seed: int, rank: int, scaling: float) -> dict[str, tuple[Tensor, Tensor, float]]:
    torch.manual_seed(seed)
    return {
        name: (torch.randn(rank, n_in), torch.randn(n_out, rank), scaling) for name, (n_out, n_in) in SHAPES.items()
    }


def dense(each: rules.Adapter, name: str) -> Tensor:
    a, b, scaling = each[name]
    return scaling * b.double() @ a.double()


MIXED = [adapter(0, 2, 2.0), adapter(1, 3, 0.5), adapter(2, 4, 1.5)]
EQUAL = [adapter(0, 3, 2.0), adapter(1, 3, 2.0)]


@pytest.mark.parametrize("name", SHAPES)
def test_flora_and_flexlora(name: str) -> None:
    shares = [0.5, 0.25, 0.25]
    mean = sum(share * dense(each, name) for share, each in zip(shares, MIXED, strict=True))
    exact = rules.flora(MIXED, [2, 1, 1])
    torch.testing.assert_close(dense(exact, name), mean, rtol=1e-12, atol=1e-12)
    u, s, vh = torch.linalg.svd(mean, full_matrices=False)
    best = rules.flexlora(MIXED, [2, 1, 1], rank=2)
    torch.testing.assert_close(dense(best, name), u[:, :2] * s[:2] @ vh[:2], rtol=1e-10, atol=1e-10)
    assert rules.flexlora(MIXED, [2, 1, 1])[name].rank == 4


def test_fedex_adds_what_fedit_misses() -> None:
    fedit, fedex = rules.fedit(EQUAL, [1, 3]), rules.fedex(EQUAL, [1, 3])
    assert rules.relative_distance(fedex, EQUAL, [1, 3]) < 1e-14
    assert rules.relative_distance(fedit, EQUAL, [1, 3]) > 0.1
    assert rules.relative_distance(rules.fedex(EQUAL, [1, 3], residual_rank=0), EQUAL, [1, 3]) == pytest.approx(
        rules.relative_distance(fedit, EQUAL, [1, 3])
    )
    assert fedex["first"].rank == 6


def test_hetlora_of_equal_ranks_is_fedit() -> None:
    for name, factors in rules.hetlora(EQUAL, [1, 3]).items():
        same = rules.fedit(EQUAL, [1, 3])[name]
        assert torch.equal(factors.a, same.a)
        assert torch.equal(factors.b, same.b)


def test_the_distance_is_over_all_layers() -> None:
    zero = {name: (a * 0, b, scaling) for name, (a, b, scaling) in EQUAL[0].items()}
    assert rules.relative_distance(zero, EQUAL, [1, 1]) == pytest.approx(1)
    assert rules.relative_distance(zero, [zero, zero], [1, 1]) == 0
    assert rules.relative_distance(EQUAL[0], [zero, zero], [1, 1]) == math.inf


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ([1], "1 weights for 2 adapters"),
        ([0, 0], "one above 0"),
        ([1, -1], "0 or more"),
        ([1, math.nan], "0 or more"),
    ],
)
def test_weights_that_are_none(weights: list[float], told: str) -> None:
    with pytest.raises(UserError, match=told):
        rules.flora(EQUAL, weights)


def test_layers_that_differ() -> None:
    with pytest.raises(UserError, match="adapter 1 has no layer second"):
        rules.flora([EQUAL[0], {"first": EQUAL[1]["first"]}], [1, 1])
    with pytest.raises(UserError, match="adapter 1 has layer second, which adapter 0 lacks"):
        rules.flora([{"first": EQUAL[1]["first"]}, EQUAL[0]], [1, 1])
    a, b, scaling = EQUAL[1]["first"]
    with pytest.raises(UserError, match="layer first"):
        rules.flora([EQUAL[0], {**EQUAL[1], "first": (a[:, 1:], b, scaling)}], [1, 1])
    with pytest.raises(UserError, match="no adapters"):
        rules.flora([], [])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rank": 0}, "must be 1 or more"),
        ({"energy": 1.5}, "above 0 and at most 1"),
        ({"rank": 1, "energy": 0.5}, "leave one of them out"),
    ],
)
def test_sizes_out_of_range(options: dict[str, float], told: str) -> None:
    with pytest.raises(UserError, match=told):
        rules.flexlora(EQUAL, [1, 1], **options)  # type: ignore[arg-type]


def test_the_commands_know_the_rules_and_types_without_torch() -> None:
    assert list(aggregate.RULES) == list(rules.Rule(name="flora").all())
    assert list(merge.DTYPES) == list(DTYPES)
    assert all(isinstance(getattr(torch, name), torch.dtype) for name in aggregate.DTYPES)
    with pytest.raises(UserError, match="fedavg is no rule"):
        rules.Rule(name="fedavg")
