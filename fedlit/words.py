"""Where the words of a text are, in any script: without torch, so that texts without one are told early.

Of a text in ASCII nothing here changes a bit of what rouge_score, sacrebleu and nltk make of it; these know the words
of English. Elsewhere a word is a run of letters, marks and digits, and in scripts that put no spaces between words,
Chinese, Japanese, Thai, Lao, Khmer, Burmese, each character with its marks is one, as in sacrebleu's `zh`. Texts that
Unicode holds for the same, é as one character or as two, are compared in one form (NFC).
"""

import re
import unicodedata
from collections.abc import Collection, Sequence

import regex

_ASCII_WORD = re.compile(r"[a-z0-9]+")
# SA: what no line can be broken in without a dictionary. The two marks that lengthen a kana belong to no one script.
_UNSPACED = r"[[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Line_Break=SA}ーｰ]&&[\p{L}\p{Nl}]]"
_UNSPACED_CHARACTER = regex.compile(rf"(?V1){_UNSPACED}\p{{M}}*")
_WORD = regex.compile(rf"(?V1){_UNSPACED}\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]+")
_WIDE_MARK = regex.compile(r"(?V1)[\p{P}&&[\p{East_Asian_Width=W}\p{East_Asian_Width=F}\p{East_Asian_Width=H}]]")
UNSPACED_PART = rf"[{_UNSPACED}\p{{Line_Break=SA}}]"
WORD_PART = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--{UNSPACED_PART}]"
"""Sets of the package regex (V1): what stands in words of scripts without spaces, and in those of all others. A word of
the latter ends where the former begin."""
WORD_SCORES = ("rouge_l", "meteor", "meteor_15", "cider")
"""Scores of words alone, which are 0 where a reference has none, whatever is said."""
RULE = "nfc+unspaced-characters"
"""The name of what `set_apart` does, for signatures of scores; it changes whenever a score of some text would."""


def canonical(text: str) -> str:
    """Return the one form, NFC, of texts that look alike and mean the same to Unicode."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def lowered(text: str) -> str:
    """Return the text in lower case, in the form of `canonical`."""
    return canonical(canonical(text).lower())


def words(text: str) -> list[str]:
    """Return the lowered words of a text; of ASCII the runs of [a-z0-9]."""
    text = lowered(text)
    found: list[str] = (_ASCII_WORD if text.isascii() else _WORD).findall(text)
    return found


def has_word(text: str) -> bool:
    """Tell whether there is anything in a text that a score of words can compare."""
    return _WORD.search(text) is not None


def blind_spots(references: Sequence[str], scores: Collection[str]) -> list[str]:
    """Return a line on references without a word, if there are any and one of the scores compares words alone."""
    blind = next((score for score in WORD_SCORES if score in scores), None)
    wordless = [] if blind is None else [reference for reference in references if not has_word(reference)]
    if not wordless:
        return []
    return [
        f"{len(wordless):,} of {len(references):,} references have no word, such as {wordless[0].strip()[:60]!r}: "
        f"{blind} is 0 there whatever a model says; leave them out, or give other data.scores, such as bleu_4"
    ]


def set_apart(text: str) -> str:
    """Return the canonical text with spaces around each character, its marks with it, and each punctuation mark of
    scripts that put none between words: tokenizers that look for spaces do the rest.
    """
    if text.isascii():
        return text
    spaced: str = _WIDE_MARK.sub(r" \g<0> ", _UNSPACED_CHARACTER.sub(r" \g<0> ", canonical(text)))
    return spaced


def without_wide_marks(text: str) -> str:
    """Return the text with a space in place of each punctuation mark of East Asian scripts."""
    plain: str = text if text.isascii() else _WIDE_MARK.sub(" ", text)
    return plain
