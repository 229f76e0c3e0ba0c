"""ROUGE-L and BLEU-4 of generated text, equal in every bit for any split of the pairs over processes.

ROUGE-L is that of rouge_score 0.1.2 (Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004), with the
subsequences from rapidfuzz. BLEU-4 is that of sacrebleu (Papineni et al., "Bleu: a Method for Automatic Evaluation of
Machine Translation", 2002; Post, "A Call for Clarity in Reporting BLEU Scores", arXiv 1804.08771). torchmetrics' own
ROUGEScore gathers one tensor per pair and returns wrong values for shards of unequal size; its BLEU is 0 whenever one
n-gram order has no match.

Of text in ASCII both are those of the libraries to the bit. Elsewhere those see letters of English alone, or words
where there are spaces alone: there the words are those of `fedlit.words`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import zip_longest

import torch
from rapidfuzz.distance import LCSseq
from torch import Tensor
from torchmetrics import Metric

from fedlit.metrics.exact import ExactMean
from fedlit.metrics.noting import Notes
from fedlit.words import RULE, set_apart, words

_MAX_NGRAM_ORDER = 4

References = Sequence[str] | Sequence[Sequence[str]]


@lru_cache(maxsize=1)
def porter_stem() -> Callable[[str], str]:
    """Return nltk's Porter stemmer with a memory of words; nltk is imported here since it takes seconds."""
    from nltk.stem.porter import PorterStemmer  # noqa: PLC0415

    return lru_cache(maxsize=2**16)(PorterStemmer().stem)


def rouge_tokens(text: str, *, use_stemmer: bool) -> list[str]:
    """Return the lowered words of a text, those of more than 3 characters stemmed; of ASCII the tokens of rouge_score.

    Every other character separates.
    """
    tokens = words(text)
    if not use_stemmer:
        return tokens
    stem = porter_stem()
    return [stem(token) if len(token) > 3 else token for token in tokens]


def rouge_l_f1(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """Return the F1 of the longest common subsequence of two token lists, in [0, 1]; 0 if either is empty.

    With precision LCS / len(prediction) and recall LCS / len(reference) this is 2 LCS / (sum of the lengths).
    """
    if not prediction or not reference:
        return 0.0
    return 2 * int(LCSseq.similarity(prediction, reference)) / (len(prediction) + len(reference))


def paired(predictions: Sequence[str], references: References) -> list[tuple[str, list[str]]]:
    """Return each prediction with its list of references; ValueError if they do not belong together."""
    if isinstance(predictions, str) or isinstance(references, str):
        raise ValueError("predictions and references are sequences of texts: a single text was given, put it in a list")
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions but {len(references)} references: give one for each")
    pairs = [
        (prediction, [reference] if isinstance(reference, str) else list(reference))
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    for position, (_, alternatives) in enumerate(pairs):
        if not alternatives:
            raise ValueError(f"prediction {position} has 0 references: give at least one")
    return pairs


class RougeL(ExactMean):
    """Mean over the pairs of the ROUGE-L F1, in [0, 1]; with several references the best of them counts.

    Args:
        use_stemmer: stem the words as rouge_score's `use_stemmer` does; the published figures have it on.

    """

    higher_is_better = True

    def __init__(self, *, use_stemmer: bool = True) -> None:
        super().__init__()
        self.use_stemmer = use_stemmer

    @property
    def signature(self) -> str:
        """What the figures depend on, in the manner of sacrebleu."""
        return f"case:lc|tok:words+{RULE}|stem:{'porter' if self.use_stemmer else 'no'}|beta:1"

    def update(self, predictions: Sequence[str], references: References) -> None:
        """Add n pairs; a reference is a text or a sequence of alternative texts. No pair at all is fine.

        Raises ValueError if the lengths differ or a prediction has no reference.
        """
        scores = [
            max(rouge_l_f1(tokens, self._tokens(reference)) for reference in alternatives)
            for tokens, alternatives in (
                (self._tokens(prediction), alternatives) for prediction, alternatives in paired(predictions, references)
            )
        ]
        self._accumulate(torch.tensor(scores, dtype=torch.float64), torch.ones(len(scores), dtype=torch.int64))

    def _tokens(self, text: str) -> list[str]:
        return rouge_tokens(text, use_stemmer=self.use_stemmer)


class Bleu4(Metric):
    """Corpus-level BLEU-4 in [0, 1], sacrebleu's default: 13a tokens, case kept, "exp" smoothing, several references.

    Before the tokens are made `fedlit.words.set_apart` gives scripts without spaces some. If no prediction has as many
    as 4 tokens there is no 4-gram, and by BLEU's definition the score is 0.

    It is not the mean of the sentences' BLEU. The papers' released code calls nltk's `corpus_bleu` with smoothing
    method1 on tokens of `word_tokenize`: other tokens, another smoothing and another count of an empty prediction, so
    figures differ slightly and are comparable only within one definition.

    The state is one int64 tensor (11,): pairs, length of the predictions, length of the closest references, matches of
    each n-gram order, n-grams of each order in the predictions.
    """

    state: Tensor
    notes: Notes | None = None
    lowercase = False
    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    def __init__(self) -> None:
        from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415  # only a run that scores text needs it

        # A cached result would keep a process without new pairs out of the collective that the others wait in.
        super().__init__(compute_with_cache=False)
        # force: generated text may look tokenised, which only changes what sacrebleu writes to the log
        self._bleu = BLEU(
            lowercase=self.lowercase, tokenize="13a", smooth_method="exp", max_ngram_order=_MAX_NGRAM_ORDER, force=True
        )
        self.add_state("state", default=torch.zeros(3 + 2 * _MAX_NGRAM_ORDER, dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def signature(self) -> str:
        """What the figures depend on, sacrebleu's signature with the rule for other scripts."""
        import sacrebleu  # noqa: PLC0415

        case = "lc" if self.lowercase else "mixed"
        return f"case:{case}|eff:no|tok:13a+{RULE}|smooth:exp|version:{sacrebleu.__version__}"

    def update(self, predictions: Sequence[str], references: References) -> None:
        """Add n pairs; a reference is a text or a sequence of alternative texts. No pair at all is fine.

        Raises ValueError if the lengths differ or a prediction has no reference.
        """
        pairs = paired(predictions, references)
        if not pairs:
            return
        if self.notes is None:
            counts = self._counts(pairs)
        else:
            each = [self._counts([pair]) for pair in pairs]
            self.notes.add("_counts", each)
            counts = [sum(column) for column in zip(*each, strict=True)]
        added = [len(pairs), *counts]
        self.state = self.state + torch.tensor(added, dtype=torch.int64, device=self.state.device)

    def _counts(self, pairs: Sequence[tuple[str, list[str]]]) -> list[int]:
        """Return the length of the predictions, that of the closest references, matches and n-grams of each order."""
        # sacrebleu wants the i-th references of all predictions side by side, None where a prediction has fewer
        spaced = (map(set_apart, alternatives) for _, alternatives in pairs)
        streams = [list(stream) for stream in zip_longest(*spaced)]
        found = self._bleu.corpus_score([set_apart(prediction) for prediction, _ in pairs], streams)
        return list(map(int, [found.sys_len, found.ref_len, *found.counts, *found.totals]))

    def compute(self) -> Tensor:
        """Return BLEU-4 over all processes as a float64 scalar; nan without any pair."""
        num_pairs, *counts = self.state.tolist()
        score = self.of_counts(counts) if num_pairs else float("nan")
        return torch.tensor(score, dtype=torch.float64, device=self.state.device)

    def of_counts(self, counts: Sequence[int]) -> float:
        """Return BLEU-4 of sums over pairs of what `<name>_counts` holds for each of them."""
        sys_len, ref_len, *orders = counts
        score: float = self._bleu.compute_bleu(
            correct=orders[:_MAX_NGRAM_ORDER],
            total=orders[_MAX_NGRAM_ORDER:],
            sys_len=sys_len,
            ref_len=ref_len,
            smooth_method=self._bleu.smooth_method,
            max_ngram_order=_MAX_NGRAM_ORDER,
        ).score
        # exp(mean of log 100%) is one rounding above 100
        return min(score / 100.0, 1.0)
