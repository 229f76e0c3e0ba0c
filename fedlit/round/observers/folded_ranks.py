"""The ranks that a rule chose for what it folded into the backbone, layer by layer."""

from dataclasses import dataclass
from typing import Any

from fedlit.round.observers import Observer, RoundView


@dataclass(frozen=True, kw_only=True)
class FoldedRankObserver(Observer):
    """Records what FLoRIST keeps of a round, and what FedMomentum folds beside its factors."""

    def record(self, view: RoundView) -> dict[str, Any]:
        """Return the rank of every layer and the mean over layers; nothing where no rule chose any."""
        ranks = view.after.folded_ranks
        if not ranks:
            return {}
        mean = sum(ranks.values()) / len(ranks)
        return {"lora/folded_rank": mean} | {f"lora/folded_rank/{name}": rank for name, rank in ranks.items()}
