"""What a run has spent of its privacy, for the record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedlit.privacy.claim import Claim
from fedlit.round.ledger import Ledger
from fedlit.round.observers import Observer, RoundView

NOT_COVERED = "each client's numbers, deviation, scores on clients' rows, who took part: for a simulation only"
"""What a record holds beside the model, and no epsilon is of."""


def claim_facts(claim: Claim) -> dict[str, float | str]:
    """Return what every record says of the claim."""
    return {
        "privacy/unit": claim.unit,
        "privacy/delta": claim.delta,
        "privacy/noise_multiplier": claim.noise_multiplier,
    }


@dataclass(frozen=True, kw_only=True)
class PrivacyObserver(Observer):
    """epsilon after every round, with the numbers that it belongs to."""

    claim: Claim

    def record(self, view: RoundView) -> dict[str, Any]:
        """Return the claim as it stands after the round. Without noise there is no epsilon, which would be infinite."""
        ledger = Ledger.of(view.after)
        spent = self.claim.spent(ledger.releases, ledger.steps)
        norm = Ledger.of(view.before).clip_norm
        return {
            **claim_facts(self.claim),
            **({"privacy/epsilon": spent.epsilon} if math.isfinite(spent.epsilon) else {}),
            "privacy/accountant": spent.accountant,
            "privacy/adjacency": spent.adjacency,
            "privacy/clip_norm": norm,
            "privacy/releases": ledger.releases,
            "privacy/most_rounds_of_a_client": max(ledger.rounds, default=0),
        }


@dataclass(frozen=True, kw_only=True)
class MaskObserver(Observer):
    """What secure aggregation adds to the traffic of a round, and whether its sums could be read."""

    def record(self, view: RoundView) -> dict[str, Any]:
        """Return bytes by what they are for, of all clients together."""
        found: Mapping[str, int] = view.cohort.mask_bytes()
        record: dict[str, Any] = {f"secure/{name}_bytes": number for name, number in found.items()}
        return record | ({"secure/void": view.cohort.void} if view.cohort.void is not None else {})
