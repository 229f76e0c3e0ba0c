r"""One form of writing for the LaTeX of a short answer, so that `\dfrac12` and `1/2` can be compared.

After the description of the answer check of Hendrycks et al., "Measuring Mathematical Problem Solving With the MATH
Dataset", arXiv 2103.03874: what only changes the looks, and units, are dropped. No algebra is done: x+1 is not 1+x.
"""

import re
from fractions import Fraction

from fedlit.words import canonical

_MAX_DIGITS = 1000  # far below where Python refuses to read an integer
_UPRIGHT = r"\\(?:text|mbox|textrm|textbf|textit|textnormal|mathrm|mathbf|mathit)\s*"
_GAP = r"(?:\\[ ,;:]|~|\s)"
# How a number ends: in a digit, in pi, in a fraction, root or power of numbers, with the parenthesis around it.
_ARGUMENT = r"\s*(?:\{[^{}a-zA-Z]*(?:[0-9]|\\pi)[^{}]*\}|[0-9])"
_NUMBER = rf"(?:[0-9]\.?|\\pi|π|\\(?:frac(?:\s*\{{[^{{}}]*\}}|\s*[0-9])|sqrt){_ARGUMENT}|\^{_ARGUMENT})[)!]?"
# What makes another answer of a number.
_NO_UNIT = r"\s*(?i:[ap]\.?\s*m\.?|noon|midnight|[ab]\.?\s*[cd]\.?|hundred|thousand|[mbtr]{1,2}illion|and|or)\s*"

# in this order
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\\\\s*", r"\\\\"),  # the line break of a matrix, so that its backslash does not join with the space
        (r"\\!|\\(?:left|right)(?![a-zA-Z])", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])|°", ""),
        (r"\\?[$%]", ""),
        (r"\{,\}", ","),
        (rf"^\s*(?:{_UPRIGHT}\{{[^{{}}]{{1,2}}\}}|[^=<>\\\s{{}}]{{1,2}}){_GAP}*=(?![=]){_GAP}*", ""),  # x=5
        # a unit: upright words at the end, after a number, with the power of square metres
        (
            rf"({_NUMBER}){_GAP}*{_UPRIGHT}\{{(?!{_NO_UNIT}\}})[^{{}}]*\}}(?:\^\{{?[0-9]\}}?)?\s*\.?$",
            r"\1",
        ),
        (rf"{_UPRIGHT}\{{([^{{}}]*)\}}", r"\1"),
        (rf"(?<!\\){_GAP}|\\q?quad(?![a-zA-Z])", " "),
        (r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9a-zA-Z])\s*(?=\{)", r"\\frac{\1}"),
        (r"\\frac\s*(\{[^{}]*\})\s*([0-9a-zA-Z])", r"\\frac\1{\2}"),
        (r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"\s+", ""),
        (r"\.+$", ""),
        (r"(?<![0-9.])\.(?=[0-9])", "0."),
        (r"^(-?)([0-9]+)/([0-9]+)$", r"\1\\frac{\2}{\3}"),
    )
)
_DECIMAL = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?")
_FRACTION = re.compile(r"(-?)\\frac\{(-?[0-9]+)\}\{(-?[0-9]+)\}")


def normalised_latex(answer: str) -> str:
    r"""Return `answer` in one form: \frac{1}{2} for \dfrac12 and 1/2, 0.5 for .5, 5 for x=5 and 5\text{ cm}.

    What stands after a number is a unit, and dropped; other text is the answer itself.
    """
    text = canonical(answer.strip())
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def value_of(normalised: str) -> Fraction | None:
    r"""Return the rational number that a normalised answer is: 1,000, 2.50, -\frac{3}{4}; None if it is none."""
    if len(normalised) > _MAX_DIGITS:
        return None
    if _DECIMAL.fullmatch(normalised):
        return Fraction(normalised.replace(",", "").rstrip("."))
    found = _FRACTION.fullmatch(normalised)
    if found is None or not int(found[3]):
        return None
    value = Fraction(int(found[2]), int(found[3]))
    return -value if found[1] else value
