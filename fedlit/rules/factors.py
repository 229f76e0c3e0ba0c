"""One layer of a LoRA adapter, the mean of several adapters' effective changes, and how far another one is from it."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from fedlit.algebra.low_rank import LowRank
from fedlit.errors import UserError


class Factors(NamedTuple):
    """One layer: A (r, in), B (out, r); its weight changes by scaling * B @ A."""

    a: Tensor
    b: Tensor
    scaling: float

    @property
    def rank(self) -> int:
        """Rows of A."""
        return self.a.shape[0]

    def change(self) -> LowRank:
        """Return scaling * B @ A in float64, (out, in)."""
        return LowRank(self.b.double(), self.a.double()) * self.scaling


Adapter = Mapping[str, tuple[Tensor, Tensor, float]]
"""An adapter by the names of its layers; a mapping that reads a layer when it is asked for will do."""


def normalized(weights: Sequence[float], num_adapters: int) -> list[float]:
    """Return the weights divided by their sum.

    Raises:
        UserError: one of them is negative or not finite, they sum to 0, or there is not one for each adapter.
    """
    if len(weights) != num_adapters:
        raise UserError(f"{len(weights)} weights for {num_adapters} adapters; give one for each, in their order")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        shown = ",".join(f"{weight:g}" for weight in weights)
        raise UserError(f"weights {shown}: all must be numbers of 0 or more and one above 0; mend them")
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def terms_of(adapters: Sequence[Adapter], name: str) -> list[Factors]:
    """Return one layer of all adapters.

    Raises:
        UserError: an adapter lacks it, or has it in another shape.
    """
    terms = []
    for number, adapter in enumerate(adapters):
        if name not in adapter:
            raise UserError(f"adapter {number} has no layer {name}, which adapter 0 has; give adapters of equal layers")
        terms.append(Factors(*adapter[name]))
        shape, first = terms[-1].change().shape, terms[0].change().shape
        if shape != first:
            raise UserError(f"layer {name} is {shape} (out, in) in adapter {number} and {first} in adapter 0")
    return terms


def layer_names(adapters: Sequence[Adapter]) -> list[str]:
    """Return the names of the layers, in the first adapter's order.

    Raises:
        UserError: there are no adapters, or one has a layer that the first has not.
    """
    if not adapters:
        raise UserError("there are no adapters to aggregate; give at least one")
    for number, adapter in enumerate(adapters):
        if more := sorted(set(adapter) - set(adapters[0])):
            raise UserError(
                f"adapter {number} has layer {more[0]}, which adapter 0 lacks; give adapters of equal layers"
            )
    return list(adapters[0])


def mean_change(terms: Sequence[Factors], weights: Sequence[float]) -> LowRank:
    """Return sum_i p_i * scaling_i * B_i @ A_i of one layer, as factors side by side; the weights sum to 1."""
    return LowRank.sum([term.change() * weight for term, weight in zip(terms, weights, strict=True)])


def relative_distance(result: Adapter, adapters: Sequence[Adapter], weights: Sequence[float]) -> float:
    """Return `|result - mean| / |mean|`, Frobenius norms over all layers' effective changes; 0 where both are zero.

    Raises:
        UserError: as `normalized`, `layer_names` and `terms_of`.
    """
    shares = normalized(weights, len(adapters))
    total = Distance()
    for name in layer_names(adapters):
        mean = mean_change(terms_of(adapters, name), shares)
        total.add((Factors(*result[name]).change() - mean).norm(), mean.norm())
    return total.relative()


class Distance:
    """|result - mean| / |mean| over layers that come one after the other."""

    def __init__(self) -> None:
        self._errors: list[float] = []
        self._norms: list[float] = []

    def add(self, error: float, norm: float) -> None:
        """Take up one layer: |result - mean| and |mean|."""
        self._errors.append(error)
        self._norms.append(norm)

    def relative(self) -> float:
        """Return the distance; infinite from a mean of zero."""
        error, norm = math.hypot(*self._errors), math.hypot(*self._norms)
        if norm == 0:
            return math.inf if error else 0.0
        return error / norm
