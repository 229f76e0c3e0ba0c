"""What an audit's canaries have told so far, written after every round for `fedlit audit`."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlit.privacy.claim import Claim
from fedlit.process import communication
from fedlit.process.storage import write_atomically
from fedlit.round.canaries import Canaries
from fedlit.round.ledger import GROUP, SCORES, Ledger
from fedlit.round.observers import Observer, RoundView
from fedlit.store.layout import AUDIT


@dataclass(frozen=True, kw_only=True)
class AuditObserver(Observer):
    """Writes coins, scores and the claim that they are held against."""

    canaries: Canaries
    claim: Claim
    folder: Path

    def record(self, view: RoundView) -> dict[str, Any]:
        """Write the file on process 0; nothing of it goes into the record."""
        if communication.process_index():
            return {}
        ledger = Ledger.of(view.after)
        spent = self.claim.spent(ledger.releases, ledger.steps)
        told = {
            "round": view.after.round_idx,
            "epsilon": spent.epsilon if math.isfinite(spent.epsilon) else None,
            "delta": self.claim.delta,
            "noise_multiplier": self.claim.noise_multiplier,
            "in": [self.canaries.is_in(client_id) for client_id in self.canaries.clients],
            "scores": view.after.group(GROUP)[SCORES].tolist(),
        }
        write_atomically(self.folder / AUDIT, json.dumps(told) + "\n")
        return {}
