"""The best round so far by one score, and whether the run should end for want of a better one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedlit.config import RunConfig
from fedlit.run.records import best_record, trained
from fedlit.scores import main_keys


@dataclass(kw_only=True)
class BestRound:
    """What a run has reached, known from its records alone, so that a resumed run decides as the uninterrupted one.

    keys: of scores in a record; the first that the run's records have decides. patience: evaluations without a better
    score after which the run ends; None for never. number: round of the best score, by the rule of
    `fedlit.scores.best_round`, and value its score; None before there is one. num_since: evaluations after it.
    """

    keys: tuple[str, ...]
    patience: int | None = None
    number: int | None = None
    value: float | None = None
    num_since: int = 0
    _scored: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, config: RunConfig) -> "BestRound":
        """Return the start of a run."""
        return cls(keys=main_keys(config.data, config.eval), patience=config.eval.patience)

    def see(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take up further records, in order; those that were not evaluated do not count."""
        for record in trained(records):
            scores = {key: record[key] for key in self.keys if key in record}
            if scores:
                self._scored.append({"round": record["round"], **scores})
        key = next((key for key in self.keys if any(key in record for record in self._scored)), None)
        if key is None:
            return
        scored = [record for record in self._scored if key in record]
        best = best_record(scored, key)
        if best is not None:
            self.number, self.value = best["round"], best[key]
        self.num_since = sum(self.number is None or record["round"] > self.number for record in scored)

    @property
    def stalled(self) -> bool:
        """Whether patience is used up."""
        return self.patience is not None and self.num_since >= self.patience
