r"""The final number of a text, exact, and none where a text ends in something that is more than a number.

The markers are those of the data: GSM8K ends in `#### 42` (Cobbe et al., arXiv 2110.14168), MetaMathQA in
`The answer is: 42` (Yu et al., arXiv 2309.12284).
"""

import unicodedata
from fractions import Fraction

import regex

from fedlit.words import WORD_PART

_MAX_DIGITS = 1000  # a model that repeats a digit for ever does not give an answer
_MAX_EXPONENT = 100
_HASHES = "####"
ANSWER_IS = regex.compile(r"the answer is\s*:?\s*", regex.IGNORECASE)

# Digits of one number may be in groups of three, after commas or narrow spaces.
_GROUPS = r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,3}(?:[\u00a0\u2009\u202f][0-9]{3})+(?![0-9])"
_DECIMAL = rf"(?:(?:{_GROUPS}|[0-9]+)(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+)"
_TERM = r"(?:\{{\s*(?P<{0}>[-−]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+))\s*\}}|(?P<{0}>[0-9]))"
_FRAC = rf"\\[dtc]?frac\s*{_TERM.format('top')}\s*{_TERM.format('bottom')}"
_TEN_TO_THE = r"10\s*\^\s*(?:\{\s*(?P<exponent>[-−]?[0-9]+)\s*\}|(?P<exponent>[-−]?[0-9]+))"
_PATTERN = (
    rf"(?P<sign>(?<![{WORD_PART})\]}}])[-−])?"  # but not the minus of 7-5
    r"(?:\\?\p{Sc}\s*(?P<inner>[-−])?)?"  # $-5 as well as -$5
    rf"(?:(?P<unclear>[0-9]{{1,3}}(?:[ ][0-9]{{3}})+(?![0-9]))|{_TEN_TO_THE}"  # 1 000 is one number or two
    rf"|(?P<value>{_DECIMAL})(?:\s*(?:\\times|\\cdot|×|·|\*|x)\s*{_TEN_TO_THE}|[eE](?P<exponent>[-−+]?[0-9]+)(?!\w))"
    rf"|(?P<value>[0-9]+)\s*{_FRAC}"
    r"|(?P<value>[0-9]+)[ ]+(?P<top>[0-9]+)/(?P<bottom>[0-9]+)"
    rf"|{_FRAC}"
    rf"|(?P<value>{_DECIMAL})(?:/(?P<bottom>[0-9]+))?)"
)
_NUMBER = regex.compile(f"(?V1){_PATTERN}")
# A formula is what has no word. It is read whole: what may stand around its number are the signs of a formula, of
# emphasis and of a sentence, a name with =, and a unit of one letter.
_NO_WORD = regex.compile(r"\\(?:begin|end)\s*\{[a-zA-Z*]+\}|\\[a-zA-Z]+|[πθ∞]")
_WORD = regex.compile(r"\p{L}{2,}|[[\p{L}]--[a-zA-Z]]", regex.V1)
_UPRIGHT = regex.compile(
    r"\\(?:text|mbox|textrm|textbf|textit|textnormal|mathrm|mathbf|mathit)\s*\{([^{}]*)\}(?:\^\{?[0-9]\}?)?"
)
_UNIT = r"[mgslhLWVACFKNJ](?:/[mgslhL])?(?!\p{L})"
_FORMULA = regex.compile(
    rf"(?V1)(?:[\s*$\"'`(:=≈#]|\\[(\[]|\\(?:boxed|fbox)\s*\{{|[a-zA-Z](?:_\{{?\w\}}?|\([^()=]*\))?\s*=)*+{_PATTERN}"
    rf"(?:[\s*$\"'`).,;:!?}}%°\p{{Sc}}\p{{So}}]|\\[)\]%$]|\^\s*\{{?\s*\\circ|\\(?:degree|circ)(?![a-zA-Z])|{_UNIT})*"
)
# What makes a number part of something else: an operand on its other side, a power, a root, a variable.
_COMMAND = r"\\(?:sqrt|[dtc]?frac|pi|theta|cdot|times|div|pm|mp|log|ln|sin|cos|tan|binom|infty)(?![a-zA-Z])"
_OPERATOR = r"(?:[-−–+×·÷*/±]|\\(?:times|cdot|div|pm|mp)(?![a-zA-Z]))"
_VARIABLE = r"(?:(?<!\p{L})[xyznijπθ∞√](?!\p{L}))"
_FOLLOWS = regex.compile(
    rf"[ ]*{_OPERATOR}[ ]*\\?[$]?[ ]*[-−]?(?:[.]?[0-9]|\(|{_COMMAND}|{_VARIABLE})"
    r"|[a-zA-Z]{1,3}[ ]*(?:\^|[-−+][ ]*[0-9])|[ ]*(?:and|or|to)[ ]+[-−]?\\?[$]?[0-9]"
    rf"|[ ]*{_COMMAND}|{_VARIABLE}|[ ]*x[ ]*[0-9]|[.,:_][0-9]|[eE][-+]?[0-9]|\(\s*[-−]?(?:[0-9]|\\|{_VARIABLE})"
    r"|(?:\s*(?:\\right)?[)\]}])?\s*\^(?!\s*\{?\s*\\circ)|[⁰¹²³⁴⁵⁶⁷⁸⁹⁻√]"
)
_PRECEDES = regex.compile(
    rf"(?:[0-9)}}\]]|{_VARIABLE}|\\pi)[ ]*(?:{_OPERATOR}|\bx)[ ]*[({{]*$|[-−][ ]*\($|\}}\s*\{{\s*[-−]?$|±\s*$"
    rf"|(?:[\^√]|{_COMMAND})(?:_(?:\{{[^{{}}]*\}}|\S))?\s*[\[{{(]*\s*$"
    r"|[0-9][.,:_]$|[0-9][eE][-+]?$|(?<!\p{L})[xyzπ_]$"
)
_LOOK_BACK = 80
_CHAIN = regex.compile(  # 3 + 4 = before its result
    r"[\s$]*(?:(?:[0-9 .,+*/×·÷()^$−-]|(?<=[0-9 ])x(?=[ ]*[0-9])|\\(?:times|cdot|div)(?![a-zA-Z]))+=)+"
)


def final_number(text: str) -> str | None:
    r"""Return the final number of `text` as an exact fraction in lowest terms, such as 42, -7 or 5/2; None without one.

    The answer begins after the first `####`; without that mark after the last `The answer is`. An answer that is a
    formula, by its first line, must be a number as a whole: `2\sqrt{3}`, `2b` and `(1, 2)` are none. Of an answer with
    words it is the first number; without a mark the last number of the text. A number that is a part of something else,
    the 1 of `x^2+1`, the 5 of 1:5, counts as none, and what a sum comes to is read after its last `=`.

    1,000 = $1000 = 1000.00, 0.5 = 1/2 = \frac12 = ½, 2 1/2 = 2\frac{1}{2} = 5/2, 1e3 = 10^3, and 50% counts as 50;
    digits of any script are read. Nothing is rounded: the code of MetaMath rounds predictions to integers, which
    accepts 41.6 for 42.
    """
    text = _UPRIGHT.sub(r" \1 ", _plain(text))
    _, hashes, after_hashes = text.partition(_HASHES)
    marks = list(ANSWER_IS.finditer(text))
    answer = after_hashes if hashes else text[marks[-1].end() :] if marks else text
    chain = _CHAIN.match(answer)
    answer = answer[chain.end() :] if chain else answer
    marked, lines = bool(hashes or marks), answer.strip().split("\n")
    if (marked or len(lines) == 1) and not _WORD.search(_NO_WORD.sub("", lines[0])):
        return _told(_FORMULA.fullmatch(lines[0]))
    found = None
    for found in _NUMBER.finditer(answer):  # noqa: B007  # the last one, after a mark the first
        if marked:
            break
    if found is None or _FOLLOWS.match(answer, found.end()):
        return None
    before = answer[max(found.start() - _LOOK_BACK, 0) : found.start()]
    return None if _PRECEDES.search(before) else _told(found)


def _told(found: "regex.Match[str] | None") -> str | None:
    """Return a number that was found as a text; None without one, or if it is unclear which it is."""
    value = None if found is None or found["unclear"] else _value(found)
    return None if value is None else str(value)


def _plain(text: str) -> str:
    """Return the text with digits and signs of any script, and fractions of one character, as ASCII has them."""
    text = text.replace(r"\!", "").replace("{,}", ",").replace(r"\,", "\u2009")
    return text if text.isascii() else "".join(map(_plain_character, text))


def _plain_character(character: str) -> str:
    if character.isascii():
        return character
    if "\uff01" <= character <= "\uff5e":
        return chr(ord(character) - 0xFEE0)  # the full-width forms of ASCII
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if character in "\u066b\u066c":
        return "." if character == "\u066b" else ","
    if unicodedata.decomposition(character).startswith("<fraction>"):
        value = Fraction(unicodedata.numeric(character)).limit_denominator(10)
        return f" {value.numerator}/{value.denominator}"
    return character


def _value(found: "regex.Match[str]") -> Fraction | None:
    """Return the number that was found; None for one that is too long to be an answer, and for a division by 0."""
    groups = {name: (found[name] or "").replace("−", "-") for name in ("value", "top", "bottom", "exponent")}
    if len(found[0]) > _MAX_DIGITS or abs(int(groups["exponent"] or 0)) > _MAX_EXPONENT:
        return None
    whole = groups["value"]
    for separator in ",\u00a0\u2009\u202f":
        whole = whole.replace(separator, "")
    bottom = Fraction(groups["bottom"] or 1)
    if bottom == 0:
        return None
    if groups["top"]:
        value = Fraction(groups["top"]) / bottom
        if whole:
            if not 0 <= value < 1:  # 2 3/2 is no mixed number
                return None
            value += Fraction(whole)
    else:
        value = Fraction(whole or 1) / bottom
    value *= Fraction(10) ** int(groups["exponent"] or 0)
    return -value if bool(found["sign"]) != bool(found["inner"]) else value
