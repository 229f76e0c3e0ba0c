"""The two ways of rules over clients' products: all factors side by side, or sums of what clients make of theirs."""

from dataclasses import dataclass

import torch

from fedlit.errors import UserError
from fedlit.round.rules.base import AggregationRule
from fedlit.round.rules.options import WAYS, WayOptions

SUM_BYTES = torch.float64.itemsize
"""Bytes of a number of `mean_of` as it travels. In float32 a basis would lose the small singular values."""


@dataclass(frozen=True, kw_only=True)
class WayRule(WayOptions, AggregationRule):
    """A rule with the option `aggregate_by`: `stack` shows it single clients, `sums` does not."""

    def __post_init__(self) -> None:
        if self.aggregate_by not in WAYS:
            raise UserError(f"method.aggregate_by={self.aggregate_by} is not known; valid are {', '.join(WAYS)}")

    @property
    def by_sums(self) -> bool:
        """Whether the rule looks at sums alone."""
        return self.aggregate_by == "sums"

    @property
    def stacks(self) -> bool:  # type: ignore[override]  # of the class where nothing is to choose
        """With aggregate_by=stack."""
        return not self.by_sums

    @property
    def asks_again(self) -> bool:  # type: ignore[override]
        """With aggregate_by=sums."""
        return self.by_sums
