"""The sum of the rows' gradients, each clipped to one norm over all parameters that train.

Abadi et al., Deep learning with differential privacy, arXiv 1607.00133, algorithm 1: the sum over i of
g_i min(1, C / |g_i|).
One forward and one backward pass for all rows (Bu et al., arXiv 2210.00038): gradients of single rows are made where
they are small, as those of LoRA's factors are; else their norms come from what the layers saw, and their sum from one
product.

Shapes: n rows, P numbers that train.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedlit.algebra.tensors import TensorDict
from fedlit.client.per_example.layers import layers_of
from fedlit.client.per_example.pieces import Piece, are_small, squared_norms
from fedlit.client.per_example.recording import Recorder, Rows


@dataclass(frozen=True, kw_only=True)
class Clipped:
    """What came of a batch. sums: of clipped gradients, by name, float32 or finer. norms: (n,) before clipping."""

    sums: TensorDict
    norms: Tensor


class ClippedGradients:
    """Sums of clipped gradients of single rows.

    Args:
        model: with the parameters.
        trained: those that train, by name.
        clip_norm: C.

    Raises:
        LookupError: as `layers_of`.
    """

    def __init__(self, model: nn.Module, trained: Mapping[str, nn.Parameter], clip_norm: float) -> None:
        self._recorder = Recorder(model, layers_of(model, trained))
        self._shapes = {name: parameter.shape for name, parameter in trained.items()}
        self._clip_norm = clip_norm

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let the model's layers be watched; without that `of` knows of nothing."""
        with self._recorder.installed():
            yield

    def begin(self, rows: Rows) -> None:
        """Say whose rows the next forward and backward passes are of."""
        self._recorder.begin(rows)

    def end(self) -> Clipped:
        """Return what came of them, after the backward pass of the sum of the rows' own losses.

        A parameter that took no part has no sum.
        """
        with torch.no_grad():
            return clipped(self._recorder.end(), self._shapes, self._clip_norm)


def clipped(uses: Mapping[str, Sequence[Piece]], shapes: Mapping[str, torch.Size], clip_norm: float) -> Clipped:
    """Return the sum of clipped gradients of parameters with these uses, in the order of `shapes`."""
    small = {name: _added(uses[name]) for name in shapes if name in uses and are_small(uses[name])}
    large = {name: uses[name] for name in shapes if name in uses and name not in small}
    squares = [squared_norms(pieces) for pieces in large.values()]
    flat = torch.cat(list(small.values()), 1) if small else None  # (n, numbers of the small ones)
    if flat is not None:
        squares.append(torch.linalg.vector_norm(flat, dim=1).square())
    # Rounding may leave the square of a norm that is zero below it.
    norms = torch.stack(squares).sum(0).clamp(min=0.0).sqrt()
    factors = (clip_norm / norms).clamp(max=1.0)
    sums: TensorDict = {}
    if flat is not None:
        parts = torch.split(factors @ flat, [each.shape[1] for each in small.values()])
        sums |= dict(zip(small, parts, strict=True))
    for name, pieces in large.items():
        sums[name] = torch.stack([piece.weighted(factors) for piece in pieces]).sum(0)
    return Clipped(sums={name: sums[name].view(shapes[name]) for name in shapes if name in sums}, norms=norms)


def _added(pieces: Sequence[Piece]) -> Tensor:
    """Return each row's gradient (n, p q), of all uses together."""
    first, *others = (piece.gradients() for piece in pieces)
    for other in others:
        first = first + other
    return first
