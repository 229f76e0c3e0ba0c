"""What a rule gives over the layers of adapters, and how far it is from the mean of the effective changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlit.algebra.low_rank import LowRank
from fedlit.errors import UserError
from fedlit.rules.factors import Distance, Factors
from fedlit.rules.writing import cast

LayerRule = Callable[[Sequence[Factors], Sequence[float]], Factors]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one rule gives.

    rule: its name. ranks: the smallest and the largest rank of a layer. num_numbers: of all factors. distance: relative
    Frobenius norm of the difference from the mean of the effective changes, as written. least: the least distance that
    adapters of these ranks can have (Eckart and Young). reason: why it gives nothing.
    """

    rule: str
    ranks: tuple[int, int] = (0, 0)
    num_numbers: int = 0
    distance: float | None = None
    least: float | None = None
    reason: str = ""


class Trial:
    """One rule over the layers, until it refuses one. With `beside` its result is two pairs of factors that add up."""

    def __init__(self, name: str, rule: LayerRule, dtype: torch.dtype, *, beside: LayerRule | None = None) -> None:
        self.name, self.reason = name, ""
        self._rules = [rule] if beside is None else [rule, beside]
        self._dtype = dtype
        self._distance, self._least = Distance(), Distance()
        self._ranks: list[int] = []
        self._num_numbers = 0

    def take(
        self, terms: Sequence[Factors], shares: Sequence[float], mean: LowRank, values: Tensor
    ) -> tuple[Factors, ...]:
        """Return what the rule makes of a layer, as it would be written; nothing if it has refused one.

        Args:
            terms: the layer of all adapters.
            shares: of the adapters, of sum 1.
            mean: of the effective changes.
            values: its singular values, descending.
        """
        if self.reason:
            return ()
        try:
            made = tuple(cast(rule(terms, shares), self._dtype) for rule in self._rules)
        except UserError as error:
            self.reason = str(error)
            return ()
        if not all(factors.a.isfinite().all() and factors.b.isfinite().all() for factors in made):
            self.reason = f"does not fit into {self._dtype}; give --dtype=float32"
            return ()
        rank = sum(factors.rank for factors in made)
        norm = mean.norm()
        self._distance.add((LowRank.sum([factors.change() for factors in made]) - mean).norm(), norm)
        self._least.add(float(values[rank:].norm()), norm)
        self._ranks.append(rank)
        self._num_numbers += sum(factors.a.numel() + factors.b.numel() for factors in made)
        return made

    def outcome(self) -> Outcome:
        """Return what came of it."""
        if self.reason:
            return Outcome(rule=self.name, reason=self.reason)
        return Outcome(
            rule=self.name,
            ranks=(min(self._ranks), max(self._ranks)),
            num_numbers=self._num_numbers,
            distance=self._distance.relative(),
            least=self._least.relative(),
        )
