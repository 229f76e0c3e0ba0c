"""What a run has spent of its privacy, for the record."""

import math
from dataclasses import dataclass
from typing import Any

from fedlit.privacy.claim import Claim
from fedlit.process import communication
from fedlit.round.ledger import Ledger
from fedlit.round.observers import Observer, RoundView
from fedlit.round.observers.traffic import TrafficObserver

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
        if communication.process_index():  # the first one's counts, and an epsilon costs tenths of a second
            return {}
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
            **self._of_the_worst(ledger),
        }

    def _of_the_worst(self, ledger: Ledger) -> dict[str, int]:
        """Return rows and steps of the client that epsilon is of, where it is of examples."""
        if self.claim.unit != "example":
            return {}
        worst = self.claim.worst(ledger.steps)
        return {"privacy/rows": self.claim.rows[worst], "privacy/steps": ledger.steps[worst]}


@dataclass(frozen=True, kw_only=True)
class MaskObserver(Observer):
    """What a round of masked sums has cost in bytes, and why it is void, if it is.

    plain: the bytes without masks. What clients send is masked integers instead; the model travels down as ever.
    """

    plain: TrafficObserver

    def record(self, view: RoundView) -> dict[str, Any]:
        """Return the bytes of all clients together: of keys, shares, vectors and unmasking, and the round's in all."""
        traffic = view.cohort.masked_traffic()
        assert traffic is not None
        both = traffic.uplink + traffic.downlink
        down = self.plain.record(view)["communication/downlink_bytes"]
        return {
            "communication/uplink_bytes": traffic.uplink.total,
            "communication/downlink_bytes": down + traffic.downlink.total,
            **{f"secure/{name}_bytes": number for name, number in both.named().items()},
            **({} if view.cohort.void is None else {"secure/void": view.cohort.void}),
        }
