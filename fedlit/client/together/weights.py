"""Linear layers with weights for each client: what they hold, and how a forward pass goes through them.

Shapes: k clients, weights (k, out, in), x (n, ..., in) with the rows of one client after those of another.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedlit.algebra.tensors import TensorDict
from fedlit.client.together.owners import Owners, evenly
from fedlit.client.together.random_states import RandomStates
from fedlit.models.rows_left import listening


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product x W^T + b in a model: the layer's method that computes it, and the names of W and b ("" for none).

    made_of: names of the parameters of which the layer's `matrix_of` makes W, `weight` among them; empty where W is a
    parameter itself.
    """

    layer: nn.Module
    method: str
    weight: str
    bias: str
    made_of: tuple[str, ...] = ()


class ClientWeights:
    """The tensors of k clients, stacked by parameter name, and the layers of a model that use them.

    Args:
        products: of a model, in which parameters of these names take part; its own are not used while `installed`.
        dropouts: of the model.
        stacked: (k, *shape) each, parameters where they are trained.
        scales: by parameter name, k factors of what a layer gives out: of clients whose LoRA rank is their own.
    """

    def __init__(
        self,
        products: Sequence[Product],
        dropouts: Sequence[nn.Dropout],
        stacked: Mapping[str, Tensor],
        scales: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self._products = products
        self._dropouts = dropouts
        self._stacked = stacked
        self._num_clients = len(next(iter(stacked.values())))
        self._scales = {name: stacked[name].new_tensor(each) for name, each in (scales or {}).items()}
        self._owners: Owners | None = None
        self._states: RandomStates | None = None

    @contextmanager
    def installed(self, states: RandomStates | None = None) -> Iterator[None]:
        """Let the model's layers use these weights; with `states`, dropout draws each client's own masks."""
        self._states = states
        with ExitStack() as stack:
            for product in self._products:
                stack.enter_context(_method_of(product.layer, product.method, partial(self._linear, product)))
            if states is not None:
                for dropout in self._dropouts:
                    stack.enter_context(_method_of(dropout, "forward", partial(self._dropout, dropout)))
            yield

    @contextmanager
    def of(self, owners: Owners) -> Iterator[None]:
        """Let forward and backward passes in the block be of these clients, of fewer of their rows once some leave."""
        whole = self._owners = owners

        def hear(kept: Sequence[int] | None, num_before: int) -> None:
            assert self._owners is not None
            self._owners = whole if kept is None else self._owners.after(kept, num_before)

        try:
            with listening(hear):
                yield
        finally:
            self._owners = None

    def _linear(self, product: Product, x: Tensor) -> Tensor:
        """Return (n, ..., out): each client's rows through its own weight."""
        assert self._owners is not None, "rows without owners"
        weight, bias = self._matrix(product), self._of_all(product.layer, product.bias)
        assert weight is not None
        factors = self._scales.get(product.weight)
        if factors is not None:
            weight = weight * factors.view(-1, 1, 1)
            bias = None if bias is None else bias * factors.view(-1, 1)
        return _grouped_linear(x, weight, bias, self._owners)

    def _matrix(self, product: Product) -> Tensor | None:
        """Return W of all clients (k, out, in)."""
        if not product.made_of:
            return self._of_all(product.layer, product.weight)
        layer: Any = product.layer
        made: Tensor = layer.matrix_of(*(self._of_all(layer, name) for name in product.made_of))
        return made

    def _of_all(self, layer: nn.Module, name: str) -> Tensor | None:
        """Return a parameter of all clients (k, *shape): their own, or one that is the same for all; None of none."""
        if name in self._stacked:
            return self._stacked[name]
        same: Tensor | None = getattr(layer, name.rpartition(".")[2], None) if name else None
        return None if same is None else same.expand(self._num_clients, *same.shape)

    def _dropout(self, dropout: nn.Dropout, x: Tensor) -> Tensor:
        """Return x with each client's own draws: those that its part would have had alone."""
        if not dropout.training or not dropout.p:
            return x
        assert self._owners is not None and self._states is not None
        if self._owners.flattens(x):
            rows = x.view(sum(self._owners.rows), -1, x.shape[-1])
            return self._dropout(dropout, rows).view_as(x)
        axis, shares = self._owners.along(x)
        masks = []
        for (slot, part), share in zip(self._owners.parts(x.detach()), shares, strict=True):
            with self._states.of(slot):
                mask = functional.dropout(torch.ones_like(part), dropout.p)
            missing = x.shape[1] - mask.shape[1] if axis == 0 and x.ndim > 2 else 0
            assert mask.shape[axis] == share
            masks.append(functional.pad(mask, (0, 0) * (x.ndim - 2) + (0, missing)) if missing else mask)
        return x * torch.cat(masks, dim=axis)


def _grouped_linear(x: Tensor, weight: Tensor, bias: Tensor | None, owners: Owners) -> Tensor:
    """Return x (n, ..., in) times each owner's weight (k, out, in), plus bias (k, out)."""
    axis, shares = owners.along(x)
    if owners.slots != tuple(range(len(weight))):
        chosen = torch.tensor(owners.slots).to(weight.device, non_blocking=True)
        weight = weight.index_select(0, chosen)
        bias = None if bias is None else bias.index_select(0, chosen)
    num_clients, num_outputs, num_inputs = weight.shape
    if evenly(shares):
        flat = x.reshape(num_clients, -1, num_inputs)
        y = torch.bmm(flat, weight.transpose(1, 2))
        y = y if bias is None else y + bias.unsqueeze(1).to(y.dtype)
        return y.reshape(*x.shape[:-1], num_outputs)
    parts = torch.split(x, list(shares), dim=axis)
    biases = [None] * num_clients if bias is None else list(bias)
    return torch.cat(
        [functional.linear(part, own, shift) for part, own, shift in zip(parts, weight, biases, strict=True)], dim=axis
    )


@contextmanager
def _method_of(module: nn.Module, name: str, method: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let an instance have another method for a while."""
    setattr(module, name, method)
    try:
        yield
    finally:
        delattr(module, name)


def products_of(model: nn.Module, names: Iterable[str]) -> list[Product]:
    """Return the products in which the parameters of these names take part.

    Raises:
        LookupError: names the first parameter that takes part in none.
    """
    products = {}
    for name in names:
        holder, _, parameter = name.rpartition(".")
        layer = model.get_submodule(holder)
        # Of a subclass it is not known what else it does.
        own = {"weight": "forward", "bias": "forward"} if type(layer) is nn.Linear else None
        method = (own or getattr(layer, "client_weights", {})).get(parameter)
        if method is None:
            raise LookupError(name)
        weight, bias = (f"{holder}.weight", f"{holder}.bias") if own else (name, "")
        made_of = tuple(f"{holder}.{each}" for each in getattr(layer, "made_of", {}).get(method, ()))
        products[holder, method] = Product(layer=layer, method=method, weight=weight, bias=bias, made_of=made_of)
    return list(products.values())


def dropouts_of(model: nn.Module) -> list[nn.Dropout]:
    """Return the layers that draw in training."""
    return [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0]


def slices(stacked: Mapping[str, Tensor], slot: int) -> TensorDict:
    """Return copies of one client's tensors."""
    return {name: tensor.detach()[slot].clone() for name, tensor in stacked.items()}
