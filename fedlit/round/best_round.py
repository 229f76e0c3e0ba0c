"""The best round so far by one score, and whether the run should end for want of a better one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.scores import choice_keys
from fedlit.store.records import best_record, trained


@dataclass(kw_only=True)
class BestRound:
    """What a run has reached, known from its records alone, so that a resumed run decides as the uninterrupted one.

    keys: of scores in a record; the first that the run's records have decides. patience: evaluations without a better
    score after which the run ends; None for never. asked: `eval.score`, which must be in the record. number: round of
    the best score, by the rule of `fedlit.scores.best_round`, value its score and key the one that decides; None before
    there is one. num_since: evaluations after it.
    """

    keys: tuple[str, ...]
    patience: int | None = None
    asked: str | None = None
    number: int | None = None
    value: float | None = None
    key: str | None = None
    num_since: int = 0
    _scored: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, config: RunConfig) -> "BestRound":
        """Return the start of a run."""
        return cls(keys=choice_keys(config.data, config.eval), patience=config.eval.patience, asked=config.eval.score)

    def after(self, record: Mapping[str, Any]) -> "BestRound":
        """Return what will be known once a record of a later round is taken up; nothing changes here."""
        later = replace(self, _scored=[*self._scored])
        later.see([record])
        return later

    def see(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take up further records, in order; those that were not evaluated do not count.

        Raises:
            UserError: the untrained model's record, if it is the only one, lacks the score that is asked for: no later
                one will have it.
        """
        records = list(records)
        if self.asked is not None and not self._scored and [record["round"] for record in records] == [0]:
            self._require_asked(records[0])
        for record in trained(records):
            scores = {key: record[key] for key in self.keys if key in record}
            if scores:
                self._scored.append({"round": record["round"], **scores})
        key = next((key for key in self.keys if any(key in record for record in self._scored)), None)
        if key is None:
            return
        self.key = key
        scored = [record for record in self._scored if key in record]
        best = best_record(scored, key)
        if best is not None:
            self.number, self.value = best["round"], best[key]
        self.num_since = sum(self.number is None or record["round"] > self.number for record in scored)

    def _require_asked(self, record: Mapping[str, Any]) -> None:
        places = {name.partition("/")[0] for name in record}
        key = next((key for key in self.keys if key.partition("/")[0] in places), self.keys[-1])
        place = key.partition("/")[0]
        names = [
            name.removeprefix(f"{place}/")
            for name, value in record.items()
            if name.startswith(f"{place}/") and isinstance(value, float) and not name.endswith(("_std", "_worst"))
        ]
        if key not in record and names:
            raise UserError(
                f"eval.score={self.asked} is not in the record of the untrained model, and in none that follows; "
                f"give one of {', '.join(names)}, or null for the main one"
            )

    @property
    def stalled(self) -> bool:
        """Whether patience is used up."""
        return self.patience is not None and self.num_since >= self.patience
