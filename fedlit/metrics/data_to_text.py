"""BLEU, NIST, METEOR and CIDEr of data-to-text over several references, equal in every bit for any split of the pairs.

They follow the script of the E2E NLG Challenge (Dusek, Novikova and Rieser, "Findings of the E2E NLG Challenge",
arXiv 1810.01170; tuetschek/e2e-metrics), whose BLEU and NIST are those of mteval-v13a without case and whose METEOR and
CIDEr are those of the MS COCO caption evaluation (Chen et al., arXiv 1504.00325). ROUGE-L is in `text.py`.

Where a score differs from that script, its class says so.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fedlit.metrics.collected import CollectedMetric
from fedlit.metrics.exact import ExactMean
from fedlit.metrics.text import Bleu4, References, paired, porter_stem
from fedlit.words import RULE, lowered, set_apart, without_wide_marks

_CURRENCY = re.compile(r"([£€¥])")
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")
# dropped by the COCO caption evaluation, with the brackets and quotes as the tokenizer here writes them
_PUNCTUATION = frozenset(
    ["''", "'", "``", "`", '"', "(", ")", "[", "]", "{", "}", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)

NGram = tuple[str, ...]


@lru_cache(maxsize=1)
def _mteval_tokenizer() -> Callable[[str], str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a  # noqa: PLC0415  # only a run that scores text needs it

    tokenizer: Callable[[str], str] = Tokenizer13a()
    return tokenizer


@lru_cache(maxsize=1)
def _treebank_tokenizer() -> Callable[[str], list[str]]:
    from nltk.tokenize.treebank import TreebankWordTokenizer  # noqa: PLC0415  # takes seconds

    tokenize: Callable[[str], list[str]] = TreebankWordTokenizer().tokenize
    return tokenize


def mteval_tokens(text: str) -> list[str]:
    """Return the lowered tokens of mteval-v13a, punctuation included, from sacrebleu; see `fedlit.words.set_apart`."""
    return _mteval_tokenizer()(set_apart(lowered(text))).split()


def caption_tokens(text: str) -> list[str]:
    """Return lowered Penn Treebank tokens without punctuation, as the COCO caption evaluation compares them.

    That evaluation runs Stanford's tokenizer in Java; this is nltk's Treebank tokenizer, sentence by sentence, with
    currency signs split off. On the 4,693 references of the E2E test set 99 % of the texts get the same tokens.
    Scripts without spaces get some first, and their punctuation is dropped too; see `fedlit.words`.
    """
    tokenize = _treebank_tokenizer()
    plain = without_wide_marks(set_apart(lowered(text)))
    sentences = _SENTENCE_END.split(_CURRENCY.sub(r" \1 ", plain))
    return [token for sentence in sentences for token in tokenize(sentence) if token not in _PUNCTUATION]


def ngram_counts(tokens: Sequence[str], order: int) -> Counter[NGram]:
    """Return how often each n-gram of `order` tokens occurs."""
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


class Bleu(Bleu4):
    """Corpus-level BLEU-4 in [0, 1] without case: sacrebleu, 13a tokens, several references.

    Equals the script of the challenge if each n-gram order has a match and no prediction is shorter than 4 tokens.
    Without a match the script takes 1e-15 for it, so that the score is next to 0; here "exp" smoothing tells such
    outputs apart, as in `Bleu4`.
    """

    lowercase = True


class _CollectedPairs(CollectedMetric):
    """Pairs of tokenised texts, each a prediction and its references."""

    higher_is_better = True

    def __init__(self, tokens: Callable[[str], list[str]]) -> None:
        super().__init__()
        self._tokens = tokens

    def update(self, predictions: Sequence[str], references: References) -> None:
        """Add n pairs; a reference is a text or a sequence of alternative texts. No pair at all is fine.

        Raises ValueError if the lengths differ or a prediction has no reference.
        """
        self._collect(
            [self._tokens(prediction), [self._tokens(reference) for reference in alternatives]]
            for prediction, alternatives in paired(predictions, references)
        )

    def compute(self) -> Tensor:
        """Return the score over all processes as a float64 scalar; nan without any pair."""
        pairs = [(prediction, references) for prediction, references in self._items()]
        score = self._score(pairs) if pairs else float("nan")
        return torch.tensor(score, dtype=torch.float64, device=self.device)

    def _score(self, pairs: Sequence[tuple[list[str], list[list[str]]]]) -> float:
        raise NotImplementedError


class Nist(_CollectedPairs):
    """NIST-5, at least 0, without an upper end, with the tokens of `mteval_tokens`.

    Doddington, "Automatic Evaluation of Machine Translation Quality Using N-gram Co-occurrence Statistics", 2002: the
    matched n-grams of order 1 to 5 weighed by their information in the references, equation 2, per n-gram of the
    prediction, times a penalty for predictions shorter than the average reference, equation 3. As in mteval an n-gram
    matches as often as the reference that has it most often. nltk's `corpus_nist` takes for each order the one best
    reference, and its length, so it agrees for one reference only; it also fails if all predictions are short.

    Differs from the script of the challenge for predictions of fewer than 5 tokens, for which that adds a negative
    number of n-grams, and for empty ones, which it counts as one token.
    """

    max_ngram_order = 5

    def __init__(self) -> None:
        super().__init__(mteval_tokens)

    @property
    def signature(self) -> str:
        """What the figures depend on, in the manner of sacrebleu."""
        return f"case:lc|tok:13a+{RULE}|order:{self.max_ngram_order}"

    def _score(self, pairs: Sequence[tuple[list[str], list[list[str]]]]) -> float:
        # the empty n-gram occurs once per token: what a unigram's information is relative to
        occurrences: Counter[NGram] = Counter({(): sum(len(text) for _, references in pairs for text in references)})
        for _, references in pairs:
            for text in references:
                for order in range(1, self.max_ngram_order + 1):
                    occurrences.update(ngram_counts(text, order))
        mean_precision_sum = 0.0
        for order in range(1, self.max_ngram_order + 1):
            num_ngrams = sum(max(len(prediction) - order + 1, 0) for prediction, _ in pairs)
            matched: Counter[NGram] = Counter()
            for prediction, references in pairs:
                matched.update(
                    ngram_counts(prediction, order) & _union(ngram_counts(text, order) for text in references)
                )
            information = math.fsum(
                count * math.log2(occurrences[ngram[:-1]] / occurrences[ngram]) for ngram, count in matched.items()
            )
            mean_precision_sum += information / num_ngrams if num_ngrams else 0.0
        prediction_length = sum(len(prediction) for prediction, _ in pairs)
        reference_length = math.fsum(sum(map(len, references)) / len(references) for _, references in pairs)
        return mean_precision_sum * _nist_length_penalty(prediction_length, reference_length)


def _union(counts: Iterable[Counter[NGram]]) -> Counter[NGram]:
    """Return the largest count of each n-gram."""
    union: Counter[NGram] = Counter()
    for each in counts:
        union |= each
    return union


def _nist_length_penalty(prediction_length: float, reference_length: float) -> float:
    """Return 1 for predictions as long as the average reference or longer, 0.5 for two thirds of it, 0 for none."""
    if prediction_length == 0:
        return 0.0
    if prediction_length >= reference_length:
        return 1.0
    return float(0.5 ** ((math.log(prediction_length / reference_length) / math.log(1.5)) ** 2))


class _Stemmer:
    """nltk's Porter stemmer with a memory of words."""

    def stem(self, word: str) -> str:
        return porter_stem()(word)


class _NoSynonyms:
    """A WordNet without a word, since the real one is a download."""

    def synsets(self, word: str) -> list[str]:
        return []


class Meteor(ExactMean):
    """Mean over the pairs of the METEOR of exact and stemmed words, in [0, 1); the best reference counts.

    nltk's `meteor_score` (Lavie and Agarwal, 2007: alpha 0.9, beta 3, gamma 0.5) on the tokens of `caption_tokens`,
    without WordNet. It is NOT METEOR 1.5, the Java program of the challenge, which also matches synonyms and
    paraphrases, weighs function words less, has other parameters and adds up its counts over the corpus. Its figures
    are far lower: with a reference of each E2E test input as its prediction 0.456, and 0.792 here. Compare figures
    within one definition only.
    """

    higher_is_better = True

    @property
    def signature(self) -> str:
        """What the figures depend on, in the manner of sacrebleu."""
        return f"case:lc|tok:treebank+{RULE}|stem:porter|synonyms:no|alpha:0.9|beta:3|gamma:0.5"

    def update(self, predictions: Sequence[str], references: References) -> None:
        """Add n pairs; a reference is a text or a sequence of alternative texts. No pair at all is fine.

        Raises ValueError if the lengths differ or a prediction has no reference.
        """
        from nltk.translate.meteor_score import meteor_score  # noqa: PLC0415  # takes seconds

        stemmer, wordnet = _Stemmer(), _NoSynonyms()
        scores = [
            meteor_score(list(map(caption_tokens, texts)), caption_tokens(prediction), stemmer=stemmer, wordnet=wordnet)
            for prediction, texts in paired(predictions, references)
        ]
        self._accumulate(torch.tensor(scores, dtype=torch.float64), torch.ones(len(scores), dtype=torch.int64))


class Cider(_CollectedPairs):
    """CIDEr-D, in [0, 10], mean over the pairs, with the tokens of `caption_tokens`.

    Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based Image Description Evaluation", arXiv 1411.5726: for each order
    1 to 4 the cosine of tf-idf vectors, the prediction's clipped to the reference's, times
    exp(-difference of lengths**2 / (2 * 6**2)); the mean over orders and references, times 10. The document frequency
    of an n-gram is the number of evaluated inputs with a reference that holds it.

    Differs from the paper as the COCO caption evaluation does, which calls this CIDEr: the words are not stemmed, and
    term frequencies are counts, not shares of a text, which matters to the clipping. Of a single input it is 0, since
    an n-gram that all inputs hold has weight log(1); figures of test sets with different inputs are not comparable.
    """

    max_ngram_order = 4
    sigma = 6.0

    def __init__(self) -> None:
        super().__init__(caption_tokens)

    @property
    def signature(self) -> str:
        """What the figures depend on, in the manner of sacrebleu."""
        return f"case:lc|tok:treebank+{RULE}|order:{self.max_ngram_order}|sigma:{self.sigma:g}"

    def _score(self, pairs: Sequence[tuple[list[str], list[list[str]]]]) -> float:
        orders = range(1, self.max_ngram_order + 1)
        frequencies: Counter[NGram] = Counter()
        for _, references in pairs:
            frequencies.update(
                {ngram for text in references for order in orders for ngram in ngram_counts(text, order)}
            )

        def vector(tokens: list[str], order: int) -> dict[NGram, float]:
            counts = ngram_counts(tokens, order).items()
            return {ngram: count * math.log(len(pairs) / max(frequencies[ngram], 1)) for ngram, count in counts}

        scores = []
        for prediction, references in pairs:
            predicted = [vector(prediction, order) for order in orders]
            for text in references:
                penalty = math.exp(-((len(prediction) - len(text)) ** 2) / (2 * self.sigma**2))
                cosine = math.fsum(_clipped_cosine(predicted[order - 1], vector(text, order)) for order in orders)
                scores.append(penalty * cosine / self.max_ngram_order / len(references))
        return 10.0 * math.fsum(scores) / len(pairs)


def _clipped_cosine(prediction: dict[NGram, float], reference: dict[NGram, float]) -> float:
    """Return the cosine of two sparse vectors with the prediction's entries no larger than the reference's."""
    product = math.fsum(
        min(weight, reference[ngram]) * reference[ngram] for ngram, weight in prediction.items() if ngram in reference
    )
    norms = math.hypot(*prediction.values()) * math.hypot(*reference.values())
    return product / norms if norms else 0.0
