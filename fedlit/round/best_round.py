"""The best round so far by one score, and whether the run should end for want of a better one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedlit.config import RunConfig
from fedlit.scores import chosen_scores, is_lower_better


@dataclass(kw_only=True)
class BestRound:
    """What a run has reached, known from its records alone, so that a resumed run decides as the uninterrupted one.

    keys: of scores in a record; the first that the run's records have decides. patience: evaluations without a better
    score after which the run ends; None for never. number: round of the best score, the earliest of equals. Round 0,
    the untrained model, does not count.
    """

    keys: tuple[str, ...]
    patience: int | None = None
    number: int | None = None
    value: float | None = None
    num_since: int = 0

    @classmethod
    def of(cls, config: RunConfig) -> "BestRound":
        """Return the start of a run: by `eval.score`, or by the data set's scores of which the first may need another
        protocol.
        """
        data = config.data
        scores = chosen_scores(data)
        place = "own" if config.eval.on == "clients" else "global"
        names = (config.eval.score,) if config.eval.score else (*scores, "loss")
        return cls(keys=tuple(f"{place}/{name}" for name in names), patience=config.eval.patience)

    def see(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take up further records, in order; those that were not evaluated do not count."""
        for record in records:
            key = next((key for key in self.keys if key in record), None)
            if key is None or record["round"] == 0:
                continue
            value, sign = record[key], -1 if is_lower_better(key) else 1
            if self.value is None or sign * value > sign * self.value:
                self.number, self.value, self.num_since = record["round"], value, 0
            else:
                self.num_since += 1

    @property
    def stalled(self) -> bool:
        """Whether patience is used up."""
        return self.patience is not None and self.num_since >= self.patience
