"""What is scored after a round: on the validation set, if there is one, then on the test set, if that is due."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedlit.config import RunConfig
from fedlit.round.best_round import BestRound
from fedlit.round.client_models import ClientModels
from fedlit.round.evaluation import Batches, Evaluator
from fedlit.store.records import Record
from fedlit.tasks import Sample
from fedlit.tasks.registry import task_spec


@dataclass(frozen=True, kw_only=True)
class DueScores:
    """Scores the model as it stands by the evaluators of a run."""

    config: RunConfig
    evaluator: Evaluator
    validator: Evaluator | None
    best: BestRound

    def of(
        self,
        round_number: int,
        models: ClientModels | None,
        watch: Callable[[Batches], Iterable[Sequence[Any]]],
        *,
        is_last: bool,
    ) -> tuple[Record, list[Sample]]:
        """Return the scores of a round, and this process's samples; nothing of a round in which none are due.

        models: every client's own, where tensors are private. watch: yields batches; what it raises ends the scoring.
        is_last: no round follows.
        """
        if round_number % self.config.eval.every and not is_last:
            return {}, []
        record: Record = {"round": round_number}
        samples: list[Sample] = []
        if task_spec(self.config.data.task).protocols:
            record["eval/protocol"] = getattr(self.evaluator.task, "protocol", self.config.eval.protocol)
        if self.validator is not None:
            on = "clients" if self.validator.own_batches else "global"
            record |= replace(self.validator, watch=watch).score(on, models)[0]
        if self._is_tested(record, is_last=is_last):
            scores, samples = replace(self.evaluator, watch=watch).score(self.config.eval.on, models)
            record |= scores
        if self.evaluator.general is not None:
            record |= replace(self.evaluator.general, watch=watch).score("global", models)[0]
        return record, samples

    def _is_tested(self, record: Record, *, is_last: bool) -> bool:
        """Tell whether the test set is scored in the round of this record, which has what it is chosen by. The round
        that is chosen in the end has always been: it was the best when it came.
        """
        evaluation = self.config.eval
        if self.validator is None or evaluation.choose_on == "test" or evaluation.test == "every":
            return True
        number, best = record["round"], self.best.after(record)
        return number in (0, best.number) or is_last or best.stalled
