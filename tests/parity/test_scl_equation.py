"""W_2 W_c is W projected on the row space of W_c, and svd and whitened reach the best that a compression of d can keep.

Everything is compared with torch.linalg.pinv and torch.linalg.svd in float64, which the adapter itself does not use.
"""

import math

import pytest
import torch
from torch import Tensor

from fedlit.adapters.scl import best_pair, gaussian_rows, times_pseudo_inverse

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def correlated(num_inputs: int, num_tokens: int, seed: int = 2) -> Tensor:
    """Return inputs (tokens, M) far from white, of a mean that is not zero, as behind a GELU."""
    spread = torch.logspace(0, -3, num_inputs, dtype=torch.float64)
    mixed = draw(num_tokens, num_inputs, seed=seed) * spread @ torch.linalg.qr(draw(num_inputs, num_inputs)).Q
    return mixed + 0.3


def output_error(weight: Tensor, pair: tuple[Tensor, Tensor], x: Tensor) -> float:
    w_c, w_2 = pair
    return float((x @ (weight - w_2 @ w_c).T).norm() / (x @ weight.T).norm())


def test_the_worked_example() -> None:
    weight = torch.tensor([[1.0, 2, 3], [4, 5, 6]], dtype=torch.float64)
    w_c = torch.tensor([[1.0, 0, 1], [0, 2, 0]], dtype=torch.float64)
    w_2 = times_pseudo_inverse(weight, w_c)
    torch.testing.assert_close(w_2, torch.tensor([[2.0, 1], [5, 2.5]], dtype=torch.float64), **CLOSE)
    torch.testing.assert_close(w_2 @ w_c, torch.tensor([[2.0, 2, 2], [5, 5, 5]], dtype=torch.float64), **CLOSE)


@pytest.mark.parametrize(("num_outputs", "num_inputs", "dim"), [(12, 40, 5), (40, 12, 5), (12, 40, 30), (7, 9, 1)])
def test_w_2_is_w_times_the_moore_penrose_inverse(num_outputs: int, num_inputs: int, dim: int) -> None:
    weight, w_c = draw(num_outputs, num_inputs), draw(dim, num_inputs, seed=1)
    w_2 = times_pseudo_inverse(weight, w_c)
    torch.testing.assert_close(w_2, weight @ torch.linalg.pinv(w_c), **CLOSE)
    projection = torch.linalg.pinv(w_c) @ w_c
    torch.testing.assert_close(w_2 @ w_c, weight @ projection, **CLOSE)
    again = times_pseudo_inverse(w_2 @ w_c, w_c)
    torch.testing.assert_close(again, w_2, **CLOSE)


@pytest.mark.parametrize("std", [1e-4, 1.0, 300.0])
def test_the_spread_of_w_c_cancels(std: float) -> None:
    weight, w_c = draw(12, 40), draw(6, 40, seed=1)
    plain, scaled = times_pseudo_inverse(weight, w_c), times_pseudo_inverse(weight, std * w_c)
    torch.testing.assert_close(scaled @ (std * w_c), plain @ w_c, **CLOSE)
    torch.testing.assert_close(scaled * std, plain, **CLOSE)


@pytest.mark.parametrize("dim", [4, 16, 64, 352])
def test_a_gaussian_compression_keeps_d_of_m(dim: int) -> None:
    """Relative error sqrt(1 - d / M), whatever W is; also for W of rank 3, of which svd would keep everything."""
    torch.manual_seed(7)
    for weight, tolerance in ((draw(256, 704), 0.002), (draw(256, 3) @ draw(3, 704, seed=1), 0.03)):
        w_c = gaussian_rows(dim, weight)
        error = (weight - times_pseudo_inverse(weight, w_c) @ w_c).norm() / weight.norm()
        assert float(error) == pytest.approx(math.sqrt(1 - dim / 704), abs=tolerance)


def test_gaussian_rows_are_n_0_1_over_m() -> None:
    torch.manual_seed(0)
    rows = gaussian_rows(300, draw(5, 700))
    assert (rows.shape, rows.dtype) == ((300, 700), torch.float64)
    assert float(rows.std()) == pytest.approx(700**-0.5, rel=0.01)
    assert float(rows.mean()) == pytest.approx(0, abs=3 / (700 * math.sqrt(300)))


@pytest.mark.parametrize(("num_outputs", "num_inputs"), [(12, 40), (40, 12)])
@pytest.mark.parametrize("dim", [1, 5, 11])
def test_svd_is_the_best_approximation_of_rank_d(num_outputs: int, num_inputs: int, dim: int) -> None:
    """Eckart and Young: the product is the truncated SVD, W_c spans its right vectors, W_2 = W W_c^+ still holds."""
    weight = draw(num_outputs, num_inputs)
    w_c, w_2 = best_pair(weight, dim)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    torch.testing.assert_close(w_2 @ w_c, u[:, :dim] * s[:dim] @ vh[:dim], **CLOSE)
    torch.testing.assert_close(w_c.T @ w_c, vh[:dim].T @ vh[:dim], **CLOSE)
    torch.testing.assert_close(w_c @ w_c.T, torch.eye(dim, dtype=torch.float64), **CLOSE)
    torch.testing.assert_close(w_2, weight @ torch.linalg.pinv(w_c), **CLOSE)


@pytest.mark.parametrize("dim", [2, 5, 9])
def test_whitened_is_the_optimum_on_correlated_inputs(dim: int) -> None:
    """The optimum by way of W S^(1/2), its SVD and S^(-1/2), which the adapter goes round."""
    weight, x = draw(12, 30), correlated(30, 200)
    moment = weight @ x.T @ x @ weight.T
    w_c, w_2 = best_pair(weight, dim, moment)
    values, vectors = torch.linalg.eigh(x.T @ x)
    root, inverse = (vectors * values**power @ vectors.T for power in (0.5, -0.5))
    u, s, vh = torch.linalg.svd(weight @ root, full_matrices=False)
    torch.testing.assert_close(w_2 @ w_c, u[:, :dim] * s[:dim] @ vh[:dim] @ inverse, rtol=1e-6, atol=1e-6)
    optimum = float(s[dim:].norm() / s.norm())
    assert output_error(weight, (w_c, w_2), x) == pytest.approx(optimum, rel=1e-6)
    metric = x.T @ x
    weighted = weight @ metric @ w_c.T @ torch.linalg.inv(w_c @ metric @ w_c.T)
    torch.testing.assert_close(w_2, weighted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(w_c @ w_c.T, torch.eye(dim, dtype=torch.float64), **CLOSE)

    gaussian = draw(dim, 30, seed=5)
    others = {"svd": best_pair(weight, dim), "gaussian": (gaussian, times_pseudo_inverse(weight, gaussian))}
    assert all(output_error(weight, pair, x) > 1.02 * optimum for pair in others.values())


def test_no_small_change_improves_the_whitened_pair() -> None:
    weight, x = draw(12, 30), correlated(30, 200)
    w_c, w_2 = (part.requires_grad_() for part in best_pair(weight, 5, weight @ x.T @ x @ weight.T))
    loss = (x @ (weight - w_2 @ w_c).T).square().sum()
    scale = (x @ weight.T).square().sum()
    for gradient in torch.autograd.grad(loss / scale, (w_c, w_2)):
        assert float(gradient.abs().max()) < 1e-10


def test_fewer_tokens_than_inputs_do_no_harm() -> None:
    """S is singular then; with d tokens or more rows than they span, nothing of the outputs is lost."""
    weight, x = draw(12, 30), correlated(30, 4)
    for dim in (4, 7):
        pair = best_pair(weight, dim, weight @ x.T @ x @ weight.T)
        assert all(part.isfinite().all() for part in pair)
        assert output_error(weight, pair, x) < 1e-6


@pytest.mark.parametrize(("num_outputs", "num_inputs"), [(12, 40), (40, 12)])
def test_d_equal_to_m_gives_w_back(num_outputs: int, num_inputs: int) -> None:
    weight, x = draw(num_outputs, num_inputs), correlated(num_inputs, 90)
    w_c = draw(num_inputs, num_inputs, seed=1)
    pairs = [
        (w_c, times_pseudo_inverse(weight, w_c)),
        best_pair(weight, num_inputs),
        best_pair(weight, num_inputs, weight @ x.T @ x @ weight.T),
    ]
    for w_c, w_2 in pairs:
        assert w_c.shape == (num_inputs, num_inputs)
        torch.testing.assert_close(w_2 @ w_c, weight, **CLOSE)


def test_rows_beyond_the_rank_are_drawn_and_can_learn() -> None:
    """A pair of zero row and zero column would never get a gradient."""
    torch.manual_seed(0)
    weight = draw(4, 10)
    w_c, w_2 = best_pair(weight, 7)
    torch.testing.assert_close(w_2 @ w_c, weight, **CLOSE)
    torch.testing.assert_close(w_c @ w_c.T, torch.eye(7, dtype=torch.float64), **CLOSE)
