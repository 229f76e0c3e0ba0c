"""What the layers whose parameters train see in a forward and a backward pass.

The parameters themselves take no part in autograd within their layers: a backward pass then computes no gradient of
theirs, which would be of all rows together, and costs what one of a frozen model costs. One that is read elsewhere
still gets a gradient, by which it is found out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedlit.client.per_example.layers import Layer
from fedlit.client.per_example.pieces import Piece, Whole
from fedlit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Rows:
    """How the rows of a batch lie in what layers see.

    num_rows: n. width: tokens of each row, padding included; 0 where rows are no sequences. labels: labelled positions
    of each row, which alone reach the output projection, all in one line (1, L, H); none where all positions do.
    """

    num_rows: int
    width: int = 0
    labels: tuple[int, ...] = ()


class Recorder:
    """Collects the pieces of rows' gradients.

    Args:
        model: whose output projection may see labelled positions alone.
        layers: whose parameters train.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._parameters = [
            [each for key, each in layer.module._parameters.items() if key in layer.parameters and each is not None]
            for layer in layers
        ]
        find = getattr(model, "get_output_embeddings", None)
        last = find() if find is not None else None
        self._in_line = set() if last is None else {id(module) for module in last.modules()}
        self._rows = Rows(num_rows=0)
        self._line: Tensor | None = None
        self._uses: dict[str, list[Piece]] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let the layers tell what they see."""
        with ExitStack() as stack:
            for layer, parameters in zip(self._layers, self._parameters, strict=True):
                original = getattr(layer.module, layer.method)
                method = partial(self._through, layer, parameters, original)
                stack.enter_context(_method_of(layer.module, layer.method, method))
            yield

    def begin(self, rows: Rows) -> None:
        """Forget what was seen; what comes is of these rows."""
        self._rows, self._line, self._uses = rows, None, {}

    def end(self) -> dict[str, list[Piece]]:
        """Return what was seen, by the parameter's name in the model.

        Raises:
            UserError: a parameter takes part in the loss outside of its layer.
        """
        for layer, parameters in zip(self._layers, self._parameters, strict=True):
            for name, parameter in zip(layer.parameters.values(), parameters, strict=True):
                if parameter.grad is not None:
                    raise UserError(
                        f"privacy.unit=example: {name} is used outside of its layer, where its gradients of single "
                        "rows are not known; train other modules (method.target_modules)"
                    )
        uses, self._uses = self._uses, {}
        return uses

    def _through(
        self, layer: Layer, parameters: Sequence[nn.Parameter], original: Callable[..., Tensor], x: Tensor, *rest: Any
    ) -> Tensor:
        """Return what the layer gives out, and note what it sees."""
        if not torch.is_grad_enabled() or not self._rows.num_rows:
            return original(x, *rest)
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            output = original(x, *rest)
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)
        in_line = id(layer.module) in self._in_line and bool(self._rows.labels)
        if x.shape[0] == 1 < self._rows.num_rows and not in_line:
            output = output.expand(self._rows.num_rows, *output.shape[1:])  # one for all rows, as positions are
        note = partial(self._note, layer, x.detach(), in_line)
        if output.requires_grad:
            output.register_hook(note)  # type: ignore[no-untyped-call]
            return output
        anchor = torch.zeros((), device=output.device, requires_grad=True)
        watched: Tensor = _Watched.apply(output, anchor, note)  # type: ignore[no-untyped-call]
        return watched

    def _note(self, layer: Layer, x: Tensor, in_line: bool, g: Tensor) -> None:
        with torch.no_grad():
            x, g = self._by_rows(x, in_line, layer), self._by_rows(g.detach(), in_line, layer)
            for key, name in layer.parameters.items():
                self._add(name, layer.pieces(key, x, g))

    def _add(self, name: str, piece: Piece) -> None:
        """Keep a piece; what small gradients are made of goes as the backward pass goes on."""
        uses = self._uses.setdefault(name, [])
        if piece.is_small:
            piece = Whole(gradient=piece.gradients())
            if uses and isinstance(uses[-1], Whole):
                piece = Whole(gradient=uses.pop().gradients() + piece.gradients())
        uses.append(piece)

    def _by_rows(self, x: Tensor, in_line: bool, layer: Layer) -> Tensor:
        """Return what a layer saw as (n, ..., width)."""
        num_rows, width = self._rows.num_rows, self._rows.width
        fits = not (layer.reads_ids and x.ndim < 2)
        if fits and in_line and x.ndim == 3 and x.shape[:2] == (1, sum(self._rows.labels)):
            return self._out_of_line(x[0])
        if fits and x.shape[0] == num_rows:
            return x
        if fits and x.shape[0] == 1:
            return x.expand(num_rows, *x.shape[1:])
        if fits and x.ndim == 2 and not layer.reads_ids and width and x.shape[0] == num_rows * width:
            return x.view(num_rows, width, -1)
        name = next(iter(layer.parameters.values()))
        raise UserError(
            f"privacy.unit=example: the layer of {name} sees {tuple(x.shape)}, of which nobody can tell the "
            f"{num_rows} rows; train other modules (method.target_modules)"
        )

    def _out_of_line(self, x: Tensor) -> Tensor:
        """Return positions (L, width) of all rows in one line as (n, T, width), filled up with zeros."""
        labels = self._rows.labels
        longest = max(labels)
        if min(labels) == longest:
            return x.view(len(labels), longest, -1)
        if self._line is None:
            places = [row * longest + place for row, count in enumerate(labels) for place in range(count)]
            self._line = torch.tensor(places).to(x.device, non_blocking=True)
        filled = x.new_zeros(len(labels) * longest, x.shape[1]).index_copy(0, self._line, x)
        return filled.view(len(labels), longest, -1)


class _Watched(torch.autograd.Function):
    """Gives a tensor on as it is, and its gradient to a function: of an output that nothing before it has a part in."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, _anchor: Tensor, note: Callable[[Tensor], None]) -> Tensor:
        ctx.note = note
        return output.clone()  # what follows may change it in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.note(gradients[0])
        return None, None, None


@contextmanager
def _method_of(module: nn.Module, name: str, method: Callable[..., Tensor]) -> Iterator[None]:
    """Let an instance have another method for a while."""
    setattr(module, name, method)
    try:
        yield
    finally:
        delattr(module, name)
