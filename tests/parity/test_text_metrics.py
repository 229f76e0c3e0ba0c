"""RougeL against rouge_score, Bleu4 against sacrebleu and nltk, on random and on awkward texts.

RougeL of ASCII alone: other scripts are in tests/unit/metrics/test_scripts.py.
"""

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import sacrebleu
import torch
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu
from rouge_score.rouge_scorer import RougeScorer

from fedlit.metrics.text import Bleu4, RougeL, rouge_tokens

EDGES = [
    "",
    " \t\n",
    "...!?",
    "naïve café Straße İstanbul",
    "a\x00b\x1fc\x7f d",
    "emoji 🙂🙂 ok",
    "don't can't o'clock",
    "3.14, 1,000 and -7",
    "A&amp;B &lt;tag&gt; &quot;q&quot;",
    "snake_case camelCase kebab-case",
    "dying skies flies happily generalizations sses ings eed",
    "the the the the the the",
    "one",
    "Dr. Smith (et al.), p. 12 — cited; see [3].",
    "line one\nline two-\nbroken",
    "a " * 300,
]
_STEMS = ["run", "connect", "relat", "happ", "general", "oper", "hop", "tann", "fall", "adjust", "activ", "a", "of"]
_SUFFIXES = ["", "s", "ing", "ed", "ation", "iveness", "y", "ies", "fully", "al", "ization", "ement", "ly"]
_PUNCTUATION = ["", "", "", "", ",", ".", "!", "-", " (x)", "é"]


def texts(rng: random.Random, num: int, *, punctuation: Sequence[str] = _PUNCTUATION) -> list[str]:
    def word() -> str:
        text = rng.choice(_STEMS) + rng.choice(_SUFFIXES) + rng.choice(punctuation)
        return text.title() if rng.random() < 0.1 else text

    return [" ".join(word() for _ in range(rng.randrange(0, 40))) for _ in range(num)]


def noisy(rng: random.Random, text: str) -> str:
    """Return `text` with words left out, changed and moved, so that longer n-grams match too."""
    words = [w if rng.random() < 0.85 else rng.choice(_STEMS) for w in text.split(" ") if rng.random() < 0.9]
    if len(words) > 4 and rng.random() < 0.5:
        cut = rng.randrange(1, len(words))
        words = words[cut:] + words[:cut]
    return " ".join(words)


@cache
def pairs() -> list[tuple[str, list[str]]]:
    """Return 756 pairs with 1 to 3 references: every two awkward texts, and 500 random ones."""
    rng = random.Random(0)
    awkward = [(a, [b]) for a in EDGES for b in EDGES]
    drawn = [(noisy(rng, t), [t, *texts(rng, rng.randrange(0, 3))]) for t in texts(rng, 500)]
    return awkward + drawn


def ascii_pairs() -> list[tuple[str, list[str]]]:
    """Return the pairs without the characters outside ASCII."""
    return [(in_ascii(p), list(map(in_ascii, references))) for p, references in pairs()]


def in_ascii(text: str) -> str:
    return text.encode("ascii", "ignore").decode("ascii")


def scored(metric: RougeL | Bleu4, rows: Sequence[tuple[str, Any]], batch: int) -> torch.Tensor:
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        metric.update([p for p, _ in part], [r for _, r in part])
    return metric.compute()


@pytest.mark.parametrize("use_stemmer", [True, False])
def test_rouge_l_equals_rouge_score_pair_by_pair(use_stemmer: bool) -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=use_stemmer)
    metric = RougeL(use_stemmer=use_stemmer)
    expected = [scorer.score_multi(references, p)["rougeL"].fmeasure for p, references in ascii_pairs()]
    for value, pair in zip(expected, ascii_pairs(), strict=True):
        metric.reset()
        assert abs(scored(metric, [pair], 1).item() - value) < 1e-9, pair
    metric.reset()
    assert abs(scored(metric, ascii_pairs(), 16).item() - sum(expected) / len(expected)) < 1e-9
    assert 0.2 < sum(expected) / len(expected) < 0.9


@pytest.mark.parametrize("use_stemmer", [True, False])
def test_tokens_equal_those_of_rouge_score(use_stemmer: bool) -> None:
    tokenizer = RougeScorer(["rougeL"], use_stemmer=use_stemmer)._tokenizer
    every_character = [chr(c) for c in range(0x80)]
    for text in map(in_ascii, [*EDGES, *texts(random.Random(1), 200), "x".join(every_character)]):
        assert rouge_tokens(text, use_stemmer=use_stemmer) == tokenizer.tokenize(text)


@pytest.mark.parametrize("batch", [1, 16, 1000])
def test_bleu_equals_sacrebleu_in_one_call(batch: int) -> None:
    rows = pairs()
    streams = [[r[i] if i < len(r) else None for _, r in rows] for i in range(3)]
    expected = sacrebleu.corpus_bleu([p for p, _ in rows], streams).score / 100
    assert abs(scored(Bleu4(), rows, batch).item() - expected) < 1e-12
    assert 0.2 < expected < 0.9


def test_bleu_equals_sacrebleu_in_scripts_with_spaces() -> None:
    """And its `zh` in Chinese, whose characters and marks that sets apart too."""
    spaced = ["Привет, мир! Как дела сегодня?", "naïve café: “déjà vu” — 3,5 €", "مرحبا، كيف حالك اليوم؟", "सब ठीक है।"]
    rows = [(left, [right, left]) for left in spaced for right in spaced]
    expected = sacrebleu.corpus_bleu([p for p, _ in rows], [[r[i] for _, r in rows] for i in range(2)]).score / 100
    assert scored(Bleu4(), rows, 3).item() == min(expected, 1.0)
    chinese = ["你好，世界！这是（3.5公斤）苹果。", "我在2020年买了apples，很好。", "「书」和《书》是什么？"]
    for left in chinese:
        for right in chinese:
            expected = sacrebleu.corpus_bleu([left], [[right]], tokenize="zh").score / 100
            assert scored(Bleu4(), [(left, [right])], 1).item() == min(expected, 1.0)


def test_bleu_equals_sacrebleu_where_smoothing_decides() -> None:
    rows = [("a b q c d", ["a b x c d"]), ("e f", ["e f g"])]  # no 3-gram and no 4-gram matches
    expected = sacrebleu.corpus_bleu([p for p, _ in rows], [[r[0] for _, r in rows]]).score / 100
    assert expected > 0
    assert abs(scored(Bleu4(), rows, 1).item() - expected) < 1e-12


def test_bleu_equals_nltk_where_tokens_and_smoothing_do_not_differ() -> None:
    rng = random.Random(2)
    drawn = [(noisy(rng, t), [t, *texts(rng, 1, punctuation=[""])]) for t in texts(rng, 400, punctuation=[""])]
    rows = [
        (p, r) for p, r in drawn if len(p.split()) >= 4
    ]  # nltk counts one n-gram in a text that is too short for any
    assert len(rows) > 250
    expected = corpus_bleu([[r.split() for r in rs] for _, rs in rows], [p.split() for p, _ in rows])
    assert 0.2 < expected < 0.9
    assert abs(scored(Bleu4(), rows, 16).item() - expected) < 1e-9


def test_bleu_differs_from_smoothing_method1_only_slightly() -> None:
    rows = [(p, r) for p, r in pairs() if p.strip()]
    method1 = SmoothingFunction().method1
    papers = corpus_bleu(
        [[r.split() for r in rs] for _, rs in rows], [p.split() for p, _ in rows], smoothing_function=method1
    )
    assert abs(scored(Bleu4(), rows, 16).item() - papers) < 0.1


@pytest.mark.parametrize("make", [RougeL, Bleu4])
def test_batches_do_not_change_a_bit(make: type[RougeL] | type[Bleu4]) -> None:
    rows = pairs()
    shuffled = random.Random(3).sample(rows, len(rows))
    values = [
        scored(make(), rows, 1),
        scored(make(), rows, 7),
        scored(make(), shuffled, 130),
        scored(make(), rows, 1000),
    ]
    assert len({v.item().hex() for v in values}) == 1
