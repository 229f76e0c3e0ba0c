"""RougeL and Bleu4: values worked out by hand, edge cases, errors, and that grouping changes no bit."""

import copy
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import LCSseq

from fedlit.metrics.text import Bleu4, RougeL, rouge_l_f1, rouge_tokens

Metric = RougeL | Bleu4
METRICS: list[Callable[[], Metric]] = [RougeL, Bleu4]
sentence = st.lists(st.sampled_from(["The", "cat,", "sat", "on", "running", "mats.", "42", "été"]), max_size=9).map(
    " ".join
)


def score(make: Callable[[], Metric], *batches: tuple[Sequence[str], Sequence[Any]]) -> float:
    metric = make()
    for predictions, references in batches:
        metric.update(predictions, references)
    return metric.compute().item()


def naive_lcs(a: str, b: str) -> int:
    if not a or not b:
        return 0
    return naive_lcs(a[1:], b[1:]) + 1 if a[0] == b[0] else max(naive_lcs(a[1:], b), naive_lcs(a, b[1:]))


@pytest.mark.parametrize("make", METRICS)
@settings(deadline=None, max_examples=50)
@given(pairs=st.lists(st.tuples(sentence, st.lists(sentence, min_size=1, max_size=3)), max_size=12), data=st.data())
def test_any_order_and_grouping_gives_the_same_bits(
    make: Callable[[], Metric], pairs: list[tuple[str, list[str]]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(min_value=0, max_value=len(pairs)))
    shuffled = data.draw(st.permutations(pairs))
    parts = [pairs], [shuffled[:cut], [], shuffled[cut:]]
    whole, split = (score(make, *(([p for p, _ in b], [r for _, r in b]) for b in batches)) for batches in parts)
    assert repr(whole) == repr(split)


@given(a=st.text("abc", max_size=7), b=st.text("abc", max_size=7))
def test_rouge_l_f1_is_that_of_the_recursive_definition(a: str, b: str) -> None:
    lcs = naive_lcs(a, b)
    expected = 2 * (lcs / len(a)) * (lcs / len(b)) / (lcs / len(a) + lcs / len(b)) if lcs else 0.0
    assert rouge_l_f1(list(a), list(b)) == pytest.approx(expected, abs=1e-12)


def test_rouge_l_by_hand() -> None:
    # tokens "the cat sat" and "the dog sat there": LCS 2, F1 = 2 * 2 / (3 + 4)
    assert score(RougeL, (["The cat sat!"], ["the dog, sat there"])) == pytest.approx(4 / 7, abs=1e-9)
    assert score(RougeL, (["a b", "c"], ["a b", "d"])) == 0.5


def test_rouge_l_takes_the_best_reference() -> None:
    assert score(RougeL, (["a b c"], [["x", "a b", "a b c"]])) == 1.0


def test_the_stemmer_is_an_option_and_leaves_short_words() -> None:
    assert rouge_tokens("Running dogs' was-2nd été", use_stemmer=True) == ["run", "dog", "was", "2nd", "été"]
    assert rouge_tokens("Running dogs", use_stemmer=False) == ["running", "dogs"]
    pair = (["he runs"], ["he run"])
    assert score(RougeL, pair) == 1.0
    assert score(lambda: RougeL(use_stemmer=False), pair) == 0.5


def test_bleu_by_hand() -> None:
    # n-gram precisions 4/5, 3/4, 2/3, 1/2; brevity penalty exp(1 - 6/5)
    value = score(Bleu4, (["a b c d x"], ["a b c d e f"]))
    assert value == pytest.approx(math.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25, abs=1e-12)


def test_bleu_is_of_the_corpus_and_not_the_mean_of_sentences() -> None:
    first, second = (["a b c d e"], ["a b c d e"]), (["a b x y z"], ["a b c d e"])
    assert score(Bleu4, first, second) != pytest.approx((score(Bleu4, first) + score(Bleu4, second)) / 2, abs=1e-3)


def test_bleu_counts_pairs_whose_number_of_references_differs() -> None:
    assert score(Bleu4, (["a b c d", "e f g h"], [["a b c d"], ["x", "e f g h", "y"]])) == 1.0


@pytest.mark.parametrize("make", METRICS)
def test_range_and_empty_texts(make: Callable[[], Metric]) -> None:
    same = "one two three four five."
    assert score(make, ([same], [same])) == 1.0
    assert score(make, ([""], [same])) == 0.0
    assert score(make, ([same], [""])) == 0.0
    assert score(make, (["", ""], ["", ""])) == 0.0


@pytest.mark.parametrize("make", METRICS)
def test_without_pairs_the_score_is_nan(make: Callable[[], Metric]) -> None:
    metric = make()
    metric.update([], [])
    assert math.isnan(metric.compute().item())


@pytest.mark.parametrize("make", METRICS)
def test_compute_follows_updates_and_leaves_the_state(make: Callable[[], Metric]) -> None:
    metric = make()
    metric.update(["a b c d"], ["a b c d"])
    assert metric.compute().item() == metric.compute().item() == 1.0
    metric.update(["x"], ["a b c d"])
    assert metric.compute().item() < 1.0
    assert pickle.loads(pickle.dumps(metric)).compute() == copy.deepcopy(metric).compute() == metric.compute()


@pytest.mark.parametrize("make", METRICS)
@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a", "b"], ["a"], "2 predictions but 1 references"),
        (["a"], [[]], "prediction 0 has 0 references"),
        ("ab", ["a", "b"], "a single text was given"),
        (["a", "b"], "ab", "a single text was given"),
    ],
)
def test_pairs_that_do_not_fit_are_an_error(
    make: Callable[[], Metric], predictions: Sequence[str], references: Sequence[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make().update(predictions, references)


def test_subsequences_are_of_whole_tokens() -> None:
    assert LCSseq.similarity(["ab", "c"], ["a", "b", "c"]) == 1
    assert rouge_l_f1(["ab", "c"], ["a", "b", "c"]) == pytest.approx(2 / 5)
