"""lora_fair, fedrot and fedex in two parts on one layer, in float64 against dense numpy and scipy."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import linalg

from fedlit import rules
from fedlit.errors import UserError
from fedlit.rules import Factors, of_layers

SHAPES = [(7, 11), (23, 17), (5, 31)]
SHARES = {2: [0.75, 0.25], 3: [0.5, 0.2, 0.3], 5: [0.05, 0.35, 0.3, 0.2, 0.1]}
SCALING = 7 / 3


def made(shape: tuple[int, int], num: int, rank: int = 3, seed: int = 0) -> list[Factors]:
    generator = torch.Generator().manual_seed(seed)
    num_out, num_in = shape
    return [
        Factors(
            torch.randn(rank, num_in, generator=generator, dtype=torch.float64),
            torch.randn(num_out, rank, generator=generator, dtype=torch.float64),
            SCALING,
        )
        for _ in range(num)
    ]


def mean_of(matrices: Sequence[np.ndarray], shares: Sequence[float]) -> np.ndarray:
    return np.einsum("i,ijk->jk", np.asarray(shares), np.stack(matrices))


def product(factors: Factors) -> np.ndarray:
    return factors.scaling * factors.b.numpy() @ factors.a.numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("penalty", [0.0, 0.01, 3.0])
@pytest.mark.parametrize("num", SHARES)
def test_lora_fair_is_the_ridge_solution(num: int, penalty: float, shape: tuple[int, int]) -> None:
    terms, shares = made(shape, num), SHARES[num]
    given = of_layers.lora_fair(terms, shares, regularization=penalty)
    a, b = (mean_of([factor.numpy() for factor in every], shares) for every in list(zip(*terms, strict=True))[:2])
    target = mean_of([term.b.numpy() @ term.a.numpy() for term in terms], shares)
    # Least squares of the stacked system, which has no A A'.
    system = np.vstack([a.T, np.sqrt(penalty) * np.eye(3)])
    correction = np.linalg.lstsq(system, np.vstack([(target - b @ a).T, np.zeros((3, len(b)))]), rcond=None)[0].T
    np.testing.assert_allclose(given.a.numpy(), a, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(given.b.numpy(), b + correction, rtol=1e-9, atol=1e-10)
    assert given.scaling == SCALING


@pytest.mark.parametrize("align", ["a", "b"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num", SHARES)
def test_fedrot_is_the_mean_after_scipys_rotations(num: int, shape: tuple[int, int], align: str) -> None:
    terms, shares = made(shape, num), SHARES[num]
    given = of_layers.fedrot(terms, shares, align=align)
    rows = [term.a.numpy() if align == "a" else term.b.numpy().T for term in terms]
    gram = mean_of([each.T @ each for each in rows], shares)  # of all rows, weighed: its leading eigenvectors
    values, vectors = np.linalg.eigh(gram)
    reference = np.sqrt(values[-3:])[:, None] * vectors[:, -3:].T
    turned = []
    for term, each in zip(terms, rows, strict=True):
        rotation, _ = linalg.orthogonal_procrustes(each.T, reference.T)
        turned.append((rotation.T @ term.a.numpy(), term.b.numpy() @ rotation))
    a, b = (mean_of(every, shares) for every in zip(*turned, strict=True))
    np.testing.assert_allclose(product(given), SCALING * b @ a, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("align", ["a", "b"])
def test_adapters_that_differ_by_a_rotation_are_recovered_in_any_order(align: str) -> None:
    one = made((23, 17), 1)[0]
    terms = []
    for seed in range(4):
        turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)).double()).Q
        terms.append(Factors(turn.T @ one.a, one.b @ turn, SCALING))
    given = of_layers.fedrot(terms, [0.1, 0.4, 0.3, 0.2], align=align)
    np.testing.assert_allclose(product(given), product(one), rtol=1e-11, atol=1e-11)
    assert np.linalg.norm(product(of_layers.fedit(terms, [0.1, 0.4, 0.3, 0.2])) - product(one)) > 1
    mixed, shares = made((23, 17), 4), [0.1, 0.4, 0.3, 0.2]
    straight = of_layers.fedrot(mixed, shares, align=align)
    reversed_ = of_layers.fedrot(mixed[::-1], shares[::-1], align=align)
    np.testing.assert_allclose(product(straight), product(reversed_), rtol=1e-10, atol=1e-10)


def test_fedrot_of_more_rows_than_columns_keeps_equal_adapters() -> None:
    one = made((7, 2), 1, rank=4)[0]
    np.testing.assert_allclose(product(of_layers.fedrot([one] * 3, SHARES[3])), product(one), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("residual_rank", [None, 1, 4])
@pytest.mark.parametrize("num", SHARES)
def test_the_residual_is_what_the_mean_of_the_factors_misses(num: int, residual_rank: int | None) -> None:
    terms, shares = made((23, 17), num), SHARES[num]
    missed = mean_of([product(term) for term in terms], shares) - product(of_layers.fedit(terms, shares))
    u, s, vh = np.linalg.svd(missed)
    kept = len(s) if residual_rank is None else residual_rank
    given = of_layers.fedex_residual(terms, shares, residual_rank=residual_rank)
    np.testing.assert_allclose(product(given), u[:, :kept] * s[:kept] @ vh[:kept], rtol=1e-9, atol=1e-10)
    assert given.rank == ((num - 1) * 3 if residual_rank is None else residual_rank)
    whole = of_layers.fedex(terms, shares, residual_rank=residual_rank)
    np.testing.assert_allclose(product(whole), product(of_layers.fedit(terms, shares)) + product(given), atol=1e-10)


def test_adapters_without_weight_add_no_rank() -> None:
    terms = made((23, 17), 3)
    assert of_layers.fedex(terms, [0.5, 0.0, 0.5]).rank == 6
    assert of_layers.fedex(terms, [0.0, 0.0, 1.0]).rank == 3
    alone = of_layers.fedex_residual(terms, [0.0, 0.0, 1.0])
    assert alone.rank == 1
    assert not product(alone).any()
    np.testing.assert_allclose(product(of_layers.lora_fair(terms, [0.0, 0.0, 1.0])), product(terms[2]), atol=1e-12)


@pytest.mark.parametrize("rule", [rules.lora_fair, rules.fedrot, rules.fedex_residual])
def test_unequal_ranks_are_refused_with_the_layer(rule: object) -> None:
    adapters = [{"q": made((7, 11), 1, rank)[0]} for rank in (2, 3)]
    with pytest.raises(UserError, match="layer q: needs equal ranks, which are 2 and 3"):
        rule(adapters, [1, 1])  # type: ignore[operator]


def test_options_out_of_range() -> None:
    adapters = [{"q": term} for term in made((7, 11), 2)]
    with pytest.raises(UserError, match="regularization -1 must be"):
        rules.lora_fair(adapters, [1, 1], regularization=-1)
    with pytest.raises(UserError, match="align=c is no factor"):
        rules.fedrot(adapters, [1, 1], align="c")
