"""The local optimizer galore steps bit for bit as galore-torch's own GaLoreAdamW, and as the published equations."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from galore_torch import GaLoreAdamW
from torch import Tensor, nn

from fedlit.client.optimizers.galore import PROJ_TYPES, GaLore, Projection

SHAPES = {"tall": (13, 7), "wide": (7, 13), "square": (9, 9)}
LR = 0.03


def parameters(*shapes: Sequence[int], dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(*shape, generator=generator, dtype=dtype)) for shape in shapes]


def named(parameters: Sequence[nn.Parameter]) -> dict[str, nn.Parameter]:
    return {f"parameter{index}": parameter for index, parameter in enumerate(parameters)}


def gradients(parameters: Sequence[nn.Parameter], num_steps: int) -> list[list[Tensor]]:
    """A gradient of full rank for every parameter and step, none like another."""
    generator = torch.Generator().manual_seed(2)
    return [
        [torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) for parameter in parameters]
        for _ in range(num_steps)
    ]


def run(optimizer: Any, parameters: Sequence[nn.Parameter], steps: Sequence[Sequence[Tensor]]) -> None:
    for step in steps:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


def options(rank: int | None = 3, gap: int = 3, scale: float = 0.7, proj_type: str = "std") -> dict[str, Any]:
    return {"rank": rank, "update_proj_gap": gap, "scale": scale, "proj_type": proj_type}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize("proj_type", PROJ_TYPES)
def test_the_step_is_galore_torch_s(proj_type: str, weight_decay: float, dtype: torch.dtype) -> None:
    """Tall, wide and square matrices beside vectors, over 8 steps with a new projection in the 4th and the 7th."""
    shapes = [(5,), *SHAPES.values(), (11,)]
    own, theirs = parameters(*shapes, dtype=dtype), parameters(*shapes, dtype=dtype)
    given = options(proj_type=proj_type)
    groups = [{"params": [theirs[0], theirs[-1]]}, {"params": theirs[1:-1], **given}]
    reference = GaLoreAdamW(groups, lr=LR, weight_decay=weight_decay, no_deprecation_warning=True)
    optimizer = GaLore(lr=LR, weight_decay=weight_decay, galore=Projection(**given)).build(named(own))
    before = copy.deepcopy(own)
    for step in gradients(own, 8):
        run(optimizer, own, [step])
        run(reference, theirs, [step])
        assert all(torch.equal(left, right) for left, right in zip(own, theirs, strict=True))
    assert not any(torch.equal(left, right) for left, right in zip(own, before, strict=True))


def test_without_a_rank_it_is_galore_torch_s_plain_adamw() -> None:
    """What FedFTG's released code does: parameters handed over as a plain list."""
    shapes = [(5,), *SHAPES.values()]
    own, theirs = parameters(*shapes), parameters(*shapes)
    steps = gradients(own, 6)
    run(GaLore(lr=LR, weight_decay=0.1, galore=Projection(**options(rank=None))).build(named(own)), own, steps)
    run(GaLoreAdamW(theirs, lr=LR, weight_decay=0.1, no_deprecation_warning=True), theirs, steps)
    assert all(torch.equal(left, right) for left, right in zip(own, theirs, strict=True))
    projected = parameters(*shapes)
    run(GaLore(lr=LR, weight_decay=0.1, galore=Projection(**options())).build(named(projected)), projected, steps)
    assert torch.equal(projected[0], own[0])
    assert not any(torch.equal(left, right) for left, right in zip(projected[1:], own[1:], strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_step_is_the_published_equation(shape: str) -> None:
    """Algorithm 1 of GaLore (arXiv 2403.03507) with bias-corrected Adam, written out; P held for `gap` steps."""
    (own,) = parameters(SHAPES[shape], dtype=torch.float32)
    expected = own.detach().clone()
    rows, columns = own.shape
    rank, gap, scale, eps, beta1, beta2 = 3, 3, 0.7, 1e-6, 0.9, 0.999
    optimizer = GaLore(lr=LR, galore=Projection(**options())).build(named([own]))
    first, second, p = torch.zeros(()), torch.zeros(()), torch.zeros(())
    for step, (gradient,) in enumerate(gradients([own], 7)):
        run(optimizer, [own], [[gradient]])
        if step % gap == 0:
            left, _, right = torch.linalg.svd(gradient, full_matrices=False)
            p = right[:rank] if rows >= columns else left[:, :rank]
        reduced = gradient @ p.T if rows >= columns else p.T @ gradient
        first = beta1 * first + (1 - beta1) * reduced
        second = beta2 * second + (1 - beta2) * reduced**2
        factor = LR * (1 - beta2 ** (step + 1)) ** 0.5 / (1 - beta1 ** (step + 1))
        normed = first / (second.sqrt() + eps)
        expected -= factor * scale * (normed @ p if rows >= columns else p @ normed)
        torch.testing.assert_close(own.detach(), expected, rtol=1e-5, atol=1e-5)
        assert torch.linalg.matrix_rank(reduced) == rank
