"""Every script is seen: a text against itself is right by every score, however its accents are written."""

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.metrics.answers import ExactMatch
from fedlit.metrics.data_to_text import Bleu, Cider, Meteor, Nist, caption_tokens, mteval_tokens
from fedlit.metrics.text import Bleu4, RougeL, rouge_tokens
from fedlit.words import canonical, has_word, set_apart, words

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")

# Blocks of Unicode: first and last code point.
SPACED = {
    "latin with accents": (0xC0, 0x24F),
    "vietnamese": (0x1EA0, 0x1EF9),
    "greek": (0x370, 0x3FF),
    "cyrillic": (0x400, 0x4FF),
    "hebrew": (0x591, 0x5F4),
    "arabic": (0x620, 0x669),
    "devanagari": (0x900, 0x97F),
    "tamil": (0xB80, 0xBFF),
    "hangul": (0xAC00, 0xD7A3),
    "georgian": (0x10A0, 0x10FF),
    "ethiopic": (0x1200, 0x135A),
    "digits and letters": (0x30, 0x7A),
}
UNSPACED = {
    "chinese": (0x4E00, 0x9FA5),
    "hiragana": (0x3041, 0x3096),
    "katakana": (0x30A1, 0x30FA),
    "thai": (0xE01, 0xE4E),
    "lao": (0xE81, 0xEC4),
    "khmer": (0x1780, 0x17D3),
    "burmese": (0x1000, 0x1049),
    "rare chinese": (0x20000, 0x2A6D6),
}
BLOCKS = {**SPACED, **UNSPACED}
FORMS = ("NFC", "NFD")


def letters(block: str) -> st.SearchStrategy[str]:
    first, last = BLOCKS[block]
    return st.characters(categories=["L", "Nd"], min_codepoint=first, max_codepoint=last)


def marks(block: str) -> st.SearchStrategy[str]:
    first, last = BLOCKS[block]
    own = [chr(code) for code in range(first, last + 1) if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    return st.sampled_from([*own, "\u0301"])


@st.composite
def sentences(draw: st.DrawFn, min_words: int = 4) -> str:
    """Return words of one script, some with marks, with the script's spaces or without any."""
    block = draw(st.sampled_from(sorted(BLOCKS)))
    word = st.builds(
        lambda stem, mark, rest: stem + mark + rest,
        letters(block),
        st.one_of(st.just(""), marks(block)),
        st.text(letters(block), max_size=4),
    )
    parts = draw(st.lists(word, min_size=min_words, max_size=9))
    return ("" if block in UNSPACED else " ").join(parts)


def score(metric: Any, predictions: Sequence[str], references: Sequence[str]) -> float:
    metric.update(predictions, references)
    result = metric.compute()
    return float(result["exact_match"] if isinstance(result, dict) else result)


@pytest.mark.parametrize("make", [RougeL, Bleu4, Bleu, lambda: ExactMatch("text")])
@given(text=sentences(), form=st.sampled_from(FORMS))
@settings(max_examples=150, deadline=None)
def test_a_text_against_itself_is_1(make: Callable[[], Any], text: str, form: str) -> None:
    assert score(make(), [unicodedata.normalize(form, text)], [text]) == 1.0


@given(text=sentences(), form=st.sampled_from(FORMS))
@settings(max_examples=100, deadline=None)
def test_a_text_against_itself_is_the_best_that_a_score_without_an_end_gives(text: str, form: str) -> None:
    """CIDEr and NIST weigh words by how rare they are: a second, English pair is what they are rare beside."""
    other = "nothing of the kind at all"
    written = unicodedata.normalize(form, text)
    assert score(Cider(), [written, other], [text, other]) == pytest.approx(10.0)
    assert score(Nist(), [written, other], [text, other]) == score(Nist(), [text, other], [text, other]) > 1.0
    num_tokens = len(caption_tokens(text))
    assert num_tokens >= 4
    assert score(Meteor(), [written], [text]) == pytest.approx(1 - 0.5 / num_tokens**3, abs=1e-6)


@pytest.mark.parametrize("make", [RougeL, Bleu4, Bleu, Nist, Cider, Meteor])
@given(left=sentences(), right=sentences())
@settings(max_examples=30, deadline=None)
def test_the_form_of_accents_changes_no_bit(make: Callable[[], Any], left: str, right: str) -> None:
    values = {
        score(make(), [unicodedata.normalize(a, left), right], [unicodedata.normalize(b, right), left])
        for a in FORMS
        for b in FORMS
    }
    assert len(values) == 1


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_words_of_any_text(text: str) -> None:
    found = words(text)
    assert bool(found) == has_word(text)
    assert words(unicodedata.normalize("NFD", text)) == found
    assert [word for token in set_apart(text).split() for word in words(token)] == words(canonical(text))
    assert all(word and not word.isspace() for word in found)
    rouge_tokens(text, use_stemmer=True)


@given(st.text(st.characters(max_codepoint=0x7F)))
@settings(deadline=None)
def test_ascii_stays_as_it_is(text: str) -> None:
    assert set_apart(text) is text
    assert canonical(text) is text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("你好世界", ["你", "好", "世", "界"]),
        ("日本語のテキスト and コーヒー。", [*"日本語のテキスト", "and", *"コーヒー"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया"]),
        ("مرحبا، كيف الحال؟", ["مرحبا", "كيف", "الحال"]),
        ("naïve cafe\u0301 İSTANBUL", ["naïve", "café", "i̇stanbul"]),
        ("Привет, мир!", ["привет", "мир"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("don't snake_case 3.14", ["don", "t", "snake", "case", "3", "14"]),
        ("…?! — 👍 。", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
    assert has_word(text) == bool(expected)


def test_punctuation_of_east_asian_scripts() -> None:
    """It is a token where punctuation is one, and dropped where it is dropped."""
    assert mteval_tokens("你好，World。") == ["你", "好", "，", "world", "。"]
    assert caption_tokens("你好，World。「書」") == ["你", "好", "world", "書"]


def test_a_part_of_a_text_is_a_part_of_its_score() -> None:
    assert score(RougeL(), ["你好"], ["你好世界"]) == pytest.approx(2 * 2 / 6)
    assert score(RougeL(), ["les élèves"], ["les eleves"]) == pytest.approx(0.5)
    assert 0 < score(Bleu4(), ["你好世界和平"], ["你好世界"]) < 1


@pytest.mark.parametrize("make", [RougeL, Bleu4, Bleu, Nist, Cider, Meteor])
def test_a_score_tells_its_tokens(make: Callable[[], Any]) -> None:
    assert "|tok:" in make().signature
    assert "+nfc+unspaced-characters" in make().signature
