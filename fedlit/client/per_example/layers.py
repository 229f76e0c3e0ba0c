"""The layers whose parameters train, and what each kind of them adds to the gradients of single rows.

A kind is known by its exact class, or by what it does: of a subclass it is not known what else it computes, except that
a module with one vector of parameters may be tried. Shapes: n rows, x (n, ..., in), g (n, ..., out) the gradient of
what a layer gives out.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedlit.adapters.targets import is_conv1d
from fedlit.client.per_example.pieces import Lookup, Piece, Product, Whole

Pieces = Callable[[str, Tensor, Tensor], Piece]
"""Of a parameter's name in its layer, x and g."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A module with parameters that train.

    method: of the module, which they take part in. parameters: their names in the model, by those in the module; a tied
    one has the name that the model's own list has. pieces: what each adds to the rows' gradients. reads_ids: its input
    is no vector.
    """

    module: nn.Module
    method: str
    parameters: Mapping[str, str]
    pieces: Pieces
    reads_ids: bool = False


def layers_of(model: nn.Module, names: Iterable[str]) -> list[Layer]:
    """Return the layers that hold the parameters of these names.

    Raises:
        LookupError: says of a parameter why its gradients of single rows are not known.
    """
    wanted = {id(model.get_parameter(name)): name for name in names}
    held: set[str] = set()
    layers = []
    for path, module in model.named_modules():
        own = {key: wanted[id(each)] for key, each in module._parameters.items() if id(each) in wanted}
        if own:
            layers.append(_layer(path, module, own))
            held |= set(own.values())
    assert held == set(wanted.values()), "a parameter stands in a module"
    return layers


def _layer(path: str, module: nn.Module, own: Mapping[str, str]) -> Layer:
    if ".experts." in f".{path}.":
        raise LookupError(f"{path} is an expert, which sees tokens of which nobody can tell the rows")
    products: Mapping[str, str] = getattr(module, "client_weights", {})
    methods = {products.get(key, "") for key in own}
    if len(methods) == 1 and "" not in methods:
        (method,) = methods
        made_of = getattr(module, "made_of", {}).get(method, ())
        assert made_of or len(own) == 1, "a product has one weight, or several that make it"
        made = partial(_of_made, module, made_of)
        return Layer(module=module, method=method, parameters=own, pieces=made if made_of else _linear)
    pieces = _pieces(path, module, own)
    if pieces is None:
        kind = f"{path or 'the model itself'} ({type(module).__name__})"
        raise LookupError(f"{kind} is of no kind whose gradients of single rows are known")
    reads_ids = isinstance(module, nn.Embedding)
    return Layer(module=module, method="forward", parameters=own, pieces=pieces, reads_ids=reads_ids)


def _pieces(path: str, module: nn.Module, own: Mapping[str, str]) -> Pieces | None:
    """Return what a kind of module adds to gradients; None of a kind that is not known."""
    kind = type(module)
    if kind is nn.Embedding:
        table = cast("nn.Embedding", module)
        if table.max_norm is not None or table.scale_grad_by_freq:
            raise LookupError(f"{path} is an embedding that depends on all rows of a batch (max_norm, frequencies)")
        return partial(_embedding, table)
    if kind is nn.Linear or is_conv1d(module):
        return _linear if kind is nn.Linear else _conv1d
    if kind is nn.LayerNorm:
        return partial(_layer_norm, cast("nn.LayerNorm", module))
    if kind is nn.Conv2d:
        return partial(_conv2d, cast("nn.Conv2d", module))
    if len(own) == 1 and scales_elements(module):
        return partial(_scale, _with_own_parameters(module, next(module.parameters()).dtype))
    return None


def scales_elements(module: nn.Module) -> bool:
    """Tell, by trying it, whether a module has one vector w and computes w * u(x) + v(x), row by row, on the last axis:
    RMSNorm in all its forms, or a scale of a layer.
    """
    parameters = dict(module.named_parameters())
    if len(parameters) != 1 or any(True for _ in module.children()) or any(True for _ in module.buffers()):
        return False
    (weight,) = parameters.values()
    if weight.ndim != 1:
        return False
    draw = torch.Generator().manual_seed(0)
    x, other = (torch.randn(2, 3, len(weight), generator=draw) for _ in range(2))
    drawn = torch.randn(len(weight), generator=draw)
    trial = _with_own_parameters(module, torch.float32)
    try:
        u, v = _affine(trial, x)
        whole = _computed(trial, x, drawn)
        alone = _computed(trial, torch.stack([x[0], other[0]]), drawn)
    except Exception:  # whatever a module of an unknown kind may raise of vectors
        return False
    fits = whole.shape == x.shape and torch.allclose(whole, drawn * u + v, rtol=1e-4, atol=1e-5)
    return fits and torch.allclose(whole[0], alone[0], rtol=1e-4, atol=1e-5)


def _linear(name: str, x: Tensor, g: Tensor) -> Piece:
    return _summed(g) if name == "bias" else Product(left=_places(g), right=_places(x))


def _of_made(module: Any, made_of: Sequence[str], name: str, x: Tensor, g: Tensor) -> Piece:
    """Of a matrix that `matrix_of` makes of several parameters: rows' gradients of it, back through what made it."""
    whole = torch.einsum("nto,nti->noi", _places(g), _places(x))
    values = (fine(module._parameters[each].detach()) for each in made_of)
    back: Any = torch.func.vjp(module.matrix_of, *values)[1]
    return Whole(gradient=torch.func.vmap(back)(whole)[made_of.index(name)])


def _conv1d(name: str, x: Tensor, g: Tensor) -> Piece:
    return _summed(g) if name == "bias" else Product(left=_places(x), right=_places(g))


def _embedding(module: nn.Embedding, _name: str, ids: Tensor, g: Tensor) -> Piece:
    ids, right = ids.flatten(1), _places(g)
    if module.padding_idx is not None:
        right = right.masked_fill((ids == module.padding_idx).unsqueeze(2), 0.0)
    return Lookup(ids=ids, right=right, num_entries=module.num_embeddings)


def _layer_norm(module: nn.LayerNorm, name: str, x: Tensor, g: Tensor) -> Piece:
    num_axes = len(module.normalized_shape)
    places = tuple(range(1, g.ndim - num_axes))
    if name == "bias":
        return Whole(gradient=_sum(fine(g), places))
    normal = functional.layer_norm(fine(x), module.normalized_shape, eps=module.eps)
    return Whole(gradient=_sum(fine(g) * normal, places))


def _conv2d(module: nn.Conv2d, name: str, x: Tensor, g: Tensor) -> Piece:
    given = fine(g).flatten(2)  # (n, out, places)
    if name == "bias":
        return Whole(gradient=given.sum(2))
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(fine(x), module._reversed_padding_repeated_twice, mode=mode)
    # (n, in * kernel, places), the channels of one group after those of another
    seen = functional.unfold(
        padded, _pair(module.kernel_size), dilation=_pair(module.dilation), stride=_pair(module.stride)
    )
    if module.groups == 1:
        return Product(left=given.transpose(1, 2), right=seen.transpose(1, 2))
    given, seen = (each.view(len(each), module.groups, -1, each.shape[2]) for each in (given, seen))
    return Whole(gradient=torch.einsum("ngot,ngct->ngoc", given, seen).flatten(1))


def _scale(module: nn.Module, _name: str, x: Tensor, g: Tensor) -> Piece:
    u, _ = _affine(module, x)
    return Whole(gradient=_sum(fine(g) * fine(u), tuple(range(1, g.ndim - 1))))


def _affine(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return u and v of w * u(x) + v(x)."""
    (weight,) = module._parameters.values()
    assert weight is not None
    ones = torch.ones(weight.shape, dtype=weight.dtype, device=x.device)
    rest = _computed(module, x, torch.zeros_like(ones))
    return _computed(module, x, ones) - rest, rest


@torch.no_grad()
def _computed(module: nn.Module, x: Tensor, value: Tensor) -> Tensor:
    (name,) = module._parameters
    module._parameters[name] = value  # type: ignore[assignment]
    result: Tensor = type(module).forward(module, x)
    return result


def _with_own_parameters(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy whose parameter can be set without a change to the module's."""
    other = copy.copy(module)
    other._parameters = {
        name: nn.Parameter(torch.ones(each.shape, dtype=dtype), requires_grad=False)
        for name, each in module._parameters.items()
        if each is not None
    }
    return other


def fine(x: Tensor) -> Tensor:
    """Return it in float32 or finer."""
    return x if x.dtype.itemsize >= 4 else x.float()


def _places(x: Tensor) -> Tensor:
    """Return (n, ..., width) as (n, T, width), in float32 or finer."""
    return fine(x).reshape(len(x), -1, x.shape[-1])


def _summed(g: Tensor) -> Whole:
    return Whole(gradient=_places(g).sum(1))


def _sum(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.sum(axes) if axes else x  # torch takes no axes for all of them


def _pair(size: Any) -> tuple[int, int]:
    first, second = size
    return first, second
