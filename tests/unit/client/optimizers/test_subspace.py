"""The randomised SVD of a gradient captures nearly what the best subspace does, and GaLore with it resumes."""

import io
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from galore_torch import GaLoreAdamW  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlit.client.optimizers.galore import GaLore, Projection
from fedlit.client.optimizers.options import PROJ_TYPES
from fedlit.client.optimizers.subspace import is_cheaper, leading_sides
from fedlit.errors import DivergenceError, UserError

SHAPES = {"tall": (150, 90), "wide": (90, 150), "square": (96, 96)}
RANK = 6


def spectral(shape: Sequence[int], values: Tensor, seed: int = 0) -> Tensor:
    """Return a random matrix with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.linalg.qr(torch.randn(side, len(values), generator=generator)).Q for side in shape)
    made: Tensor = (left * values) @ right.T
    return made


def draws(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [1.0, 1e-25, 1e25])
def test_it_captures_nearly_all_that_the_best_subspace_does(shape: str, power: float, size: float) -> None:
    """Singular values that fall as k^-power, at any size: squares of 1e-25 are no float32 numbers."""
    values = torch.arange(1.0, 91.0) ** -power
    matrix = spectral(SHAPES[shape], values * size)
    left, right = leading_sides(matrix, RANK, draws(), "full")
    assert left.shape == (matrix.shape[0], RANK)
    assert right.shape == (RANK, matrix.shape[1])
    best = values[:RANK].square().sum()
    for captured in (left.T @ (matrix / size), (matrix / size) @ right.T):
        assert 0.995 < captured.square().sum() / best < 1 + 1e-5
    for basis in (left.T, right):
        assert (basis @ basis.T - torch.eye(RANK)).abs().max() < 1e-5


@pytest.mark.parametrize("sides", ["left", "right"])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_side_is_that_of_both(shape: str, sides: str) -> None:
    matrix = spectral(SHAPES[shape], torch.arange(1.0, 91.0) ** -1.0)
    (one,) = leading_sides(matrix, RANK, draws(), sides)
    assert torch.equal(one, leading_sides(matrix, RANK, draws(), "full")[sides == "right"])


@pytest.mark.parametrize("num_directions", [0, 3])
def test_a_gradient_of_few_directions_gets_an_orthonormal_basis_with_all_of_them(num_directions: int) -> None:
    matrix = spectral((150, 90), (torch.arange(90) < num_directions).float())
    (right,) = leading_sides(matrix, RANK, draws(), "right")
    assert (right @ right.T - torch.eye(RANK)).abs().max() < 1e-5
    assert (matrix - matrix @ right.T @ right).norm() < 1e-4


def test_where_the_blocks_would_fill_the_matrix_the_svd_is_whole() -> None:
    assert is_cheaper(torch.Size((5632, 2048)), 128)
    assert is_cheaper(torch.Size((100, 43)), RANK)
    assert not is_cheaper(torch.Size((100, 42)), RANK)
    own, theirs = ([nn.Parameter(torch.ones(40, 30)), nn.Parameter(torch.ones(9, 42))] for _ in range(2))
    options = {"rank": RANK, "update_proj_gap": 2, "scale": 0.7, "proj_type": "std"}
    optimizer = built(own)
    reference = GaLoreAdamW([{"params": theirs, **options}], lr=0.05, no_deprecation_warning=True)
    for seed in range(5):
        step(optimizer, own, seed)
        step(reference, theirs, seed)
    assert all(torch.equal(left, right) for left, right in zip(own, theirs, strict=True))


def built(parameters: Sequence[nn.Parameter], seed: int = 0, svd: str = "randomized", **given: Any) -> Optimizer:
    options = {"rank": RANK, "update_proj_gap": 2, "scale": 0.7, "proj_type": "std", **given}
    named = {str(index): parameter for index, parameter in enumerate(parameters)}
    return GaLore(lr=0.05, galore=Projection(svd=svd, **options), seed=seed).build(named)


def fresh() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(shape)) for shape in (*SHAPES.values(), (20, 4))]


def step(optimizer: Any, parameters: Sequence[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


@pytest.mark.parametrize("proj_type", PROJ_TYPES)
@pytest.mark.parametrize("num_before", [1, 2, 3])
def test_resuming_equals_not_stopping(proj_type: str, num_before: int) -> None:
    straight, stopped = fresh(), fresh()
    whole, first = built(straight, proj_type=proj_type), built(stopped, proj_type=proj_type)
    for seed in range(6):
        step(whole, straight, seed)
    for seed in range(num_before):
        step(first, stopped, seed)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    torch.randn(7)  # whatever else has been drawn since
    second = built(stopped, proj_type=proj_type)
    second.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(num_before, 6):
        step(second, stopped, seed)
    assert all(torch.equal(left, right) for left, right in zip(straight, stopped, strict=True))


def test_it_draws_from_no_shared_generator_and_by_the_seed() -> None:
    runs = []
    for seed in (0, 0, 1):
        parameters = fresh()
        optimizer = built(parameters, seed=seed)
        before = torch.get_rng_state()
        step(optimizer, parameters, 3)
        assert torch.equal(torch.get_rng_state(), before)
        runs.append(parameters)
        torch.randn(seed + 5)
    first, again, other = runs
    assert all(torch.equal(left, right) for left, right in zip(first, again, strict=True))
    assert [torch.equal(left, right) for left, right in zip(first, other, strict=True)] == [False, False, False, True]


def test_parameters_of_one_shape_and_steps_draw_apart() -> None:
    parameters = [nn.Parameter(torch.ones(150, 90)) for _ in range(2)]
    optimizer = built(parameters, update_proj_gap=1)
    gradient = torch.randn(150, 90, generator=draws())
    found = []
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = gradient.clone()
        optimizer.step()
        found += [optimizer.state[parameter]["projector"].ortho_matrix for parameter in parameters]
    assert len({basis.sum().item() for basis in found}) == 4


def test_a_gradient_that_is_not_finite_is_told() -> None:
    parameter = nn.Parameter(torch.ones(150, 90))
    optimizer = built([parameter])
    parameter.grad = torch.full((150, 90), float("nan"))
    with pytest.raises(DivergenceError, match="GaLore cannot project a gradient"):
        optimizer.step()


def test_another_word_is_refused() -> None:
    with pytest.raises(UserError, match=r"method.galore.svd=half is not valid; give full, randomized"):
        Projection(svd="half")


@pytest.mark.parametrize("svd", ["full", "randomized"])
def test_the_state_has_the_same_tensors(svd: str) -> None:
    parameters = fresh()
    optimizer = built(parameters, svd=svd)
    step(optimizer, parameters, 0)
    shapes = {
        tuple(state["projector"].shape) for state in optimizer.state_dict()["state"].values() if "projector" in state
    }
    assert shapes == {(RANK, 90), (90, RANK), (RANK, 96)}
