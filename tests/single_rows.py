"""The sum of clipped gradients of single rows by a loop over them: what the engine of client/per_example must equal."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fedlit.algebra.tensors import TensorDict
from fedlit.client.per_example.clipping import Clipped, ClippedGradients
from fedlit.client.per_example.recording import Rows


def in_a_loop(
    loss_of: Callable[[int], Tensor], num_rows: int, trained: Mapping[str, nn.Parameter], clip_norm: float
) -> tuple[TensorDict, Tensor]:
    """Return the sum over rows of min(1, C / |g_i|) g_i, and the norms |g_i| (n,), with g_i from a backward pass of row
    i alone.
    """
    total = {name: torch.zeros_like(each) for name, each in trained.items()}
    norms = []
    for row in range(num_rows):
        gradients = torch.autograd.grad(loss_of(row), list(trained.values()), allow_unused=True)
        known = [torch.zeros_like(p) if g is None else g for p, g in zip(trained.values(), gradients, strict=True)]
        norm = torch.sqrt(sum((each.double().square().sum() for each in known), torch.zeros(()).double()))
        for name, each in zip(trained, known, strict=True):
            total[name] += each * min(1.0, clip_norm / float(norm)) if norm > 0 else each
        norms.append(norm)
    return total, torch.stack(norms) if norms else torch.zeros(0).double()


def at_once(
    model: nn.Module,
    losses: Callable[[], Tensor],
    rows: Rows,
    trained: Mapping[str, nn.Parameter],
    clip_norm: float,
) -> Clipped:
    """Return what the engine makes of the losses (n,) of all rows, in one forward and one backward pass."""
    engine = ClippedGradients(model, trained, clip_norm)
    with engine.installed():
        engine.begin(rows)
        losses().sum().backward()  # type: ignore[no-untyped-call]
        return engine.end()


def assert_the_same(
    found: Clipped, expected: TensorDict, norms: Tensor, tolerance: float, *, may_be_unused: bool = False
) -> None:
    """Compare sums and norms, relative to the whole sum's size."""
    torch.testing.assert_close(found.norms.double(), norms, rtol=tolerance, atol=tolerance)
    size = max(float(each.abs().max()) for each in expected.values())
    assert size > 0, "nothing was learned from any row"
    if not may_be_unused:
        assert found.sums.keys() == expected.keys()
    for name, each in expected.items():
        own = found.sums.get(name, torch.zeros_like(each))
        assert own.shape == each.shape
        torch.testing.assert_close(own.double(), each.double(), rtol=0, atol=tolerance * size, msg=name)
