"""METEOR 1.5 as a score: an option, since it needs a Java runtime and the package pycocoevalcap."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedlit.errors import UserError
from fedlit.metrics.collected import CollectedMetric
from fedlit.metrics.meteor_jar import corpus_score
from fedlit.metrics.text import References, paired
from fedlit.process import communication
from fedlit.words import RULE, set_apart


class Meteor15(CollectedMetric):
    """METEOR 1.5 of the corpus, in [0, 1], the METEOR of the E2E NLG Challenge; see `meteor_jar.py`.

    Its counts are added up over the pairs, so that it is not the mean of the texts' own. Synonyms, stems and
    paraphrases are those of English. Process 0 computes it for all, from the pairs in their one order. An evaluation
    takes some ten seconds, in which the table of paraphrases is loaded.
    """

    higher_is_better = True

    @property
    def signature(self) -> str:
        """What the figures depend on, in the manner of sacrebleu."""
        return f"case:lc|tok:ptb+{RULE}|lang:en|norm:yes|version:1.5"

    def update(self, predictions: Sequence[str], references: References) -> None:
        """Add n pairs; a reference is a text or a sequence of alternative texts. No pair at all is fine.

        Raises ValueError if the lengths differ or a prediction has no reference.
        """
        self._collect(
            [set_apart(prediction), [set_apart(reference) for reference in alternatives]]
            for prediction, alternatives in paired(predictions, references)
        )

    def compute(self) -> Tensor:
        """Return the score over all processes as a float64 scalar; nan without any pair.

        Raises UserError, on every process, if the program gives no score.
        """
        outcome: float | str = float("nan")
        if communication.process_index() == 0 and (items := self._items()):
            try:
                outcome = corpus_score([(prediction, references) for prediction, references in items])
            except UserError as error:
                outcome = str(error)
        outcome = communication.gather_objects(outcome)[0]
        if isinstance(outcome, str):
            raise UserError(outcome)
        return torch.tensor(outcome, dtype=torch.float64, device=self.device)
