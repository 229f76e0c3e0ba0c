"""Bleu, Nist, Meteor and Cider against sacrebleu, nltk, published values and numbers of the challenge's own code."""

import gzip
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import sacrebleu
from nltk.translate.bleu_score import corpus_bleu
from nltk.translate.nist_score import corpus_nist

from fedlit.metrics.data_to_text import Bleu, Cider, Meteor, Nist, caption_tokens, mteval_tokens

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")

Score = Bleu | Nist | Meteor | Cider
SCORES: list[Callable[[], Score]] = [Bleu, Nist, Meteor, Cider]
TEXT = "the Eagle is a family-friendly pub near Burger King , in riverside . It's cheap ( £20-25 ) don't serve food"

# ties (two references as near as each other, in length and in words), 1 to 4 references, contractions, prices
CORPUS: list[tuple[str, list[str]]] = [
    (
        "The Vaults is a cheap pub near Café Adriatic. It isn't family-friendly.",
        [
            "The Vaults pub near Café Adriatic is cheap and isn't family-friendly.",
            "The Vaults is a pub for adults only.",
        ],
    ),
    (
        "Blue Spice, in the city centre, sells coffee.",
        ["Blue Spice sells coffee in the city centre.", "Coffee in the city centre: Blue Spice sells it."],
    ),
    ("Zizzi is a pub.", ["Zizzi is a pub.", "There is a pub called Zizzi.", "Zizzi, a pub."]),
    ("The Eagle has a price range of £20-25.", ["Prices at The Eagle are £20-25."]),
    (
        "the the the the the the coffee shop",
        [
            "The Mill is a coffee shop.",
            "A coffee shop by the river is the Mill.",
            "The Mill.",
            "Near the river: the Mill.",
        ],
    ),
]
EDGES = [
    "",
    " ",
    "...",
    "pub",
    "The pub.",
    "naïve café £5",
    "a &amp; b &quot;c&quot;",
    "don't (won't) e.g. 3.5-star",
    "the " * 40,
]


def score(metric: Callable[[], Score], pairs: Sequence[tuple[str, Sequence[str]]]) -> float:
    made = metric()
    made.update([prediction for prediction, _ in pairs], [references for _, references in pairs])
    return float(made.compute().item())


def random_pairs(seed: int, num_references: Sequence[int] = (1, 2, 3, 5)) -> list[tuple[str, list[str]]]:
    rng = random.Random(seed)
    pairs = []
    for _ in range(60):
        references = [
            " ".join(rng.choices(TEXT.split(), k=rng.randrange(12, 25)))
            for _ in range(rng.choice(list(num_references)))
        ]
        kept = [word for word in rng.choice(references).split() if rng.random() < 0.9]
        cut = rng.randrange(len(kept)) if kept else 0
        pairs.append((" ".join(kept[cut:] + kept[:cut]), references))
    return pairs


CASES = {
    "corpus": CORPUS,
    "random": random_pairs(0),
    "one reference": random_pairs(1, (1,)),
    "one pair": CORPUS[:1],
    "edges": [(prediction, [reference, "The pub."]) for prediction in EDGES for reference in EDGES],
    "empty predictions": [("", references) for _, references in CORPUS],
    "some empty": [("" if row % 2 else text, refs) for row, (text, refs) in enumerate(random_pairs(2))],
    "single words": [(text.split()[0], [refs[0].split()[0], refs[0]]) for text, refs in CORPUS],
}


@pytest.mark.parametrize("case", CASES)
def test_bleu_is_sacrebleus_without_case(case: str) -> None:
    pairs = CASES[case]
    most = max(len(references) for _, references in pairs)
    streams = [[refs[i] if i < len(refs) else None for _, refs in pairs] for i in range(most)]
    expected = sacrebleu.corpus_bleu([text for text, _ in pairs], streams, lowercase=True, force=True).score / 100
    assert score(Bleu, pairs) == pytest.approx(expected, abs=1e-12)


def test_bleu_is_nltks_where_each_order_has_a_match() -> None:
    pairs = random_pairs(3)
    expected = corpus_bleu(
        [[mteval_tokens(text) for text in references] for _, references in pairs],
        [mteval_tokens(text) for text, _ in pairs],
    )
    assert 0.2 < expected < 0.95
    assert score(Bleu, pairs) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("case", ["one reference", "one pair", "some empty"])
def test_nist_of_one_reference_is_nltks(case: str) -> None:
    pairs = [(text, references[:1]) for text, references in CASES[case]]
    expected = corpus_nist(
        [[mteval_tokens(references[0])] for _, references in pairs], [mteval_tokens(text) for text, _ in pairs]
    )
    assert expected > 0.5
    assert score(Nist, pairs) == pytest.approx(expected, rel=1e-12)


def test_nist_by_hand() -> None:
    """Information in "a b a c": a log2(4/2), b log2(4/1), "a b" log2(2/1); half the reference's length."""
    penalty = math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(2 / 4) ** 2)
    assert score(Nist, [("a b", ["a b a c"])]) == pytest.approx(((1 + 2) / 2 + 1 / 1) * penalty, rel=1e-12)


def test_nist_takes_matches_from_all_references() -> None:
    """Doddington and mteval do; nltk takes the best one, here one match of the two."""
    assert score(Nist, [("a b", ["a c", "c b"])]) == pytest.approx((2 + 2) / 2, rel=1e-12)
    assert corpus_nist([[["a", "c"], ["c", "b"]]], [["a", "b"]], n=2) == pytest.approx(1.0)


def test_nist_of_short_predictions_is_a_number() -> None:
    with pytest.raises(ZeroDivisionError):
        corpus_nist([[["a", "b", "c", "d", "e"]]], [["a"]])
    assert 0 < score(Nist, [("a", ["a b"])]) < 1


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("on the mat sat the cat", 0.5),
        ("the cat sat on the mat", 0.9977),
        ("the cat was sat on the mat", 0.9654),
    ],
)
def test_meteor_of_the_published_examples(prediction: str, expected: float) -> None:
    """The examples of the encyclopedia's article on METEOR, which has the same parameters."""
    assert score(Meteor, [(prediction, ["The cat sat on the mat."])]) == pytest.approx(expected, abs=5e-5)


def test_meteor_by_hand() -> None:
    """Two of three words match, one by its stem, in one chunk; of two references the better one counts."""
    precision, recall = 2 / 3, 2 / 4
    expected = precision * recall / (0.9 * precision + 0.1 * recall) * (1 - 0.5 * (1 / 2) ** 3)
    references = ["nothing", "he serves food, daily"]
    assert score(Meteor, [("pub serving food", references)]) == pytest.approx(expected, rel=1e-9)
    other = score(Meteor, [("", references)])
    assert other == 0
    both = score(Meteor, [("pub serving food", references), ("", references)])
    assert both == pytest.approx(expected / 2, rel=1e-9)  # the mean of the pairs


def test_cider_by_hand() -> None:
    """Two inputs, so an n-gram weighs log 2 if one of them has it in a reference, or none has, and 0 if both have."""
    shorter = math.exp(-1 / (2 * 6**2))
    # no n-gram in both: cosines of 0/1 vectors; orders without an n-gram count as 0
    first = 10 * ((1 + 1 + 1 + 0) + (2 / 3 + 0 + 0 + 0)) / 4 / 2
    second = 10 * (2 / math.sqrt(2 * 3) + 1 / math.sqrt(1 * 2)) / 4 * shorter
    pairs = [("A cat sits.", ["a cat sits", "a dog sits"]), ("birds fly", ["Birds fly high."])]
    assert score(Cider, pairs) == pytest.approx((first + second) / 2, rel=1e-12)
    # "a" is in both, "a a" in none
    first, second = 10 * (1 + 1 / math.sqrt(2)) / 4 * shorter, 10 * 1 / 4 * shorter
    assert score(Cider, [("a a cat", ["a cat"]), ("dog", ["a dog"])]) == pytest.approx((first + second) / 2, rel=1e-12)
    # two cats are clipped to one in the product, not in the norm
    clipped = 10 * (1 / (2 * math.sqrt(2))) / 4
    assert score(Cider, [("cat cat", ["cat sat"]), ("x", ["dog"])]) == pytest.approx(clipped / 2, rel=1e-12)


def test_cider_ends() -> None:
    long = [
        (f"{text} in the area", [f"{text} in the area"] * 2) for text in ("Zizzi is a pub", "Aromi sells tea", "Wow")
    ]
    assert score(Cider, long) == pytest.approx(10.0, rel=1e-12)
    assert score(Cider, CORPUS[:1]) == 0.0  # log(1) for every word


# Of pycocoevalcap 1.2 (`cider/cider_scorer.py`) on texts of `caption_tokens`, of a retyped copy of the BLEU and NIST
# of `pymteval.py` (tuetschek/e2e-metrics) on `mteval_tokens`; None where a prediction is too short for the latter.
RECORDED = {
    "corpus": (0.3758082842327914, 4.115106915467572, 3.1814428402998836),
    "random": (0.7648472910077903, 10.027029762690088, 3.9181158779936545),
    "edges": (None, None, 0.23148148148148148),
    "some empty": (None, None, 2.1809363256992476),
}


@pytest.mark.parametrize("case", RECORDED)
def test_the_numbers_of_the_challenges_code(case: str) -> None:
    for metric, expected in zip((Bleu, Nist, Cider), RECORDED[case], strict=True):
        assert expected is None or score(metric, CASES[case]) == pytest.approx(expected, rel=1e-9)


def test_a_hundred_inputs_of_the_e2e_test_set(shared_folder: Path) -> None:
    """The first reference as the prediction, the others as its references; recorded like the numbers above."""
    inputs: dict[int, list[str]] = {}
    with gzip.open(shared_folder / "data" / "e2e_nlg" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            inputs.setdefault(row["mr_id"], []).append(row["ref"])
    pairs = [(texts[0], texts[1:]) for texts in inputs.values() if len(texts) > 1][:100]
    assert score(Bleu, pairs) == pytest.approx(0.6283732743440147, rel=1e-9)
    assert score(Nist, pairs) == pytest.approx(8.411068810119485, rel=1e-9)
    assert score(Cider, pairs) == pytest.approx(2.5158916564588942, rel=1e-9)


def test_caption_tokens() -> None:
    """What Stanford's tokenizer makes of them in the COCO evaluation, but for its # in place of the pound sign."""
    text = "It's a \"family-friendly\" pub. You'll pay £20-25 (cheap!), don't worry... 3.5 stars."
    assert (
        " ".join(caption_tokens(text)) == "it 's a family-friendly pub you 'll pay £ 20-25 cheap do n't worry 3.5 stars"
    )
    assert caption_tokens(" . ") == []


@pytest.mark.parametrize("metric", SCORES)
@pytest.mark.parametrize("case", CASES)
def test_neither_order_nor_ties_nor_case_matter(metric: Callable[[], Score], case: str) -> None:
    """The order of the pairs, of the references and of the updates changes no bit; upper case neither."""
    pairs = CASES[case]
    expected = score(metric, pairs)
    assert math.isfinite(expected)
    turned = [(text, references[::-1]) for text, references in pairs]
    random.Random(0).shuffle(turned)
    assert score(metric, turned) == expected
    one_by_one = metric()
    for text, references in turned:
        one_by_one.update([text], [references])
    assert one_by_one.compute().item() == expected
    assert score(metric, [(text.upper(), references) for text, references in pairs]) == expected


@pytest.mark.parametrize("metric", SCORES)
def test_a_reference_repeated_or_best(metric: Callable[[], Score]) -> None:
    """A prediction that is one of its references beats one that is none of them; nothing matched is 0."""
    pairs = random_pairs(4)
    assert score(metric, [(references[-1], references) for _, references in pairs]) > score(metric, pairs) > 0
    if metric is not Bleu:  # smoothed
        assert score(metric, [("xx yy zz", references) for _, references in pairs]) == 0
    assert score(metric, CASES["empty predictions"]) == 0


@pytest.mark.parametrize("metric", SCORES)
def test_no_pair_and_wrong_pairs(metric: Callable[[], Score]) -> None:
    made = metric()
    assert math.isnan(made.compute().item())
    made.update([], [])
    assert math.isnan(made.compute().item())
    with pytest.raises(ValueError, match="2 predictions but 1 references"):
        made.update(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="prediction 1 has 0 references"):
        made.update(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="a single text was given"):
        made.update("a", ["a"])
    made.update(["a pub there is"], ["a pub there is"])  # a text stands for a list of one
    assert not math.isnan(made.compute().item())
    assert made.compute().dtype.is_floating_point and made.compute().element_size() == 8
