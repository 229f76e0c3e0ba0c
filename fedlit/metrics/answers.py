r"""The final answer of a text, a number, the content of the last \boxed{} or an option, and the share that is right.

The markers are those of the data, for numbers see `numbers.py`. MATH boxes its answer, and two boxed answers are
compared after a normalisation of their LaTeX as in Hendrycks et al., arXiv 2103.03874.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

import regex
import torch
from torch import Tensor

from fedlit.metrics.collected import CollectedMetric
from fedlit.metrics.latex import normalised_latex, value_of
from fedlit.metrics.noting import Notes
from fedlit.metrics.numbers import ANSWER_IS, final_number
from fedlit.metrics.text import References, paired
from fedlit.words import UNSPACED_PART, WORD_PART, canonical

KINDS = ("text", "number", "boxed", "option")
"""What `final_answer` can read from a text."""

_UNSPACED = regex.compile(f"(?V1){UNSPACED_PART}")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")


def boxed_answer(text: str) -> str | None:
    r"""Return the content of the last `\boxed{...}` or `\fbox{...}`, without a box what follows `The answer is`.

    Braces may be nested; `\boxed 5` ends at the next $ or line. The answer after the mark ends with its line, without
    its full stop. None without either, for a box that is not closed, and for an empty one.
    """
    boxes = list(_BOX.finditer(text))
    if boxes:
        start = boxes[-1].end()
        if text[start : start + 1] == "{":
            return _braced(text, start)
        return re.split(r"[$\n]", text[start:], maxsplit=1)[0].strip().rstrip(".") or None
    marks = list(ANSWER_IS.finditer(text))
    if marks:
        return text[marks[-1].end() :].split("\n", 1)[0].strip().rstrip(".").strip("$").strip() or None
    return None


def _braced(text: str, start: int) -> str | None:
    r"""Return what is between the brace at `start` and the one that closes it, where `\{` is not a brace."""
    depth = 0
    for found in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return text[start + 1 : found.start()].strip() or None
    return None


def equivalent(left: str, right: str) -> bool:
    r"""Return whether two LaTeX answers are the same after `normalised_latex`, or the same rational number.

    The comparison of numbers is wider than that of the MATH paper: 0.5 = \frac12 there and here, but also 2.50 = 5/2.
    """
    left, right = normalised_latex(left), normalised_latex(right)
    if left == right:
        return True
    value = value_of(left)
    return value is not None and value == value_of(right)


def find_option(text: str, options: Sequence[str]) -> tuple[str, int, int] | None:
    """Return the option that `text` names first, and where it stands in it; None if it names none.

    Whatever its case and however its accents are written, as a word of its own: in scripts that put spaces between
    words nothing of such a word may stand beside it. Of options that begin alike the longest counts.
    """
    names, pattern = _options_pattern(tuple(options))
    found = pattern.search(text) if names else None
    return (names[found.lastindex - 1], *found.span()) if found else None


@lru_cache(maxsize=256)
def _options_pattern(options: tuple[str, ...]) -> "tuple[list[str], regex.Pattern[str]]":
    """Return the options in the order in which they are looked for, and a pattern with a group for each of them."""
    names = sorted(filter(None, options), key=len, reverse=True)
    groups = []
    for name in names:
        forms = dict.fromkeys([name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))])
        either = "|".join(regex.escape(form, special_only=True) for form in forms)
        before = "" if _UNSPACED.match(name) else rf"(?<!{WORD_PART})"
        after = r"(?!\p{M})" if _UNSPACED.match(name[-1]) else rf"(?!{WORD_PART})"
        groups.append(f"({before}(?:{either}){after})")
    return names, regex.compile("(?V1)(?i:" + "|".join(groups) + ")")


def chosen_option(text: str, options: Sequence[str]) -> str | None:
    """Return the option that `text` names first, by `find_option`; None if it names none."""
    found = find_option(text, options)
    return found[0] if found else None


def options_in(prompt: str, pattern: str) -> tuple[str, ...]:
    """Return the valid answers that `prompt` lists: group 1 of the first match of `pattern`, split at slashes.

    Raises ValueError if nothing matches, the pattern has no group or the group names no option.
    """
    compiled = re.compile(pattern)
    if not compiled.groups:
        raise ValueError(f"the pattern of the options {pattern!r} has no group: put parentheses around the list")
    found = compiled.search(prompt)
    options = tuple(option.strip() for option in (found[1] or "").split("/") if option.strip()) if found else ()
    if not options:
        raise ValueError(f"the pattern of the options {pattern!r} finds none in the prompt {prompt[:60]!r}")
    return options


def final_answer(text: str, kind: str, options: Sequence[str] = ()) -> str | None:
    """Return the answer of the `kind` (`KINDS`) that `text` gives, None if it gives none.

    A `text` is the answer itself, with each run of white space as one space.
    """
    match kind:
        case "number":
            return final_number(text)
        case "boxed":
            return boxed_answer(text)
        case "option":
            return chosen_option(text, options)
        case _:
            assert kind == "text", kind
            return " ".join(canonical(text).split())


class _GroupedShare(CollectedMetric):
    """The share of rows that are right, over all rows and by group."""

    higher_is_better = True
    name: str
    notes: Notes | None = None

    def _add(self, correct: Sequence[bool], groups: Sequence[str | None] | None) -> None:
        if groups is None:
            groups = [None] * len(correct)
        if len(groups) != len(correct):
            raise ValueError(f"{len(correct)} rows but {len(groups)} groups: give one for each, or None")
        self._collect([group, bool(right)] for group, right in zip(groups, correct, strict=True))
        if self.notes is not None:
            self.notes.add("", (int(right) for right in correct))

    def compute(self) -> Mapping[str, Tensor]:
        """Return `<name>`, the share over all rows of all processes, nan without any; float64 scalars.

        If rows have groups, also `<name>/<group>` for each of them and `<name>_macro`, the mean over groups.
        """
        rows: dict[str | None, list[bool]] = {}
        for group, right in self._items():
            rows.setdefault(group, []).append(right)
        every = [right for answers in rows.values() for right in answers]
        shares = {group: sum(rows[group]) / len(rows[group]) for group in sorted(filter(None, rows))}
        scores = {self.name: sum(every) / len(every) if every else float("nan")}
        scores |= {f"{self.name}/{group}": share for group, share in shares.items()}
        if shares:
            scores[f"{self.name}_macro"] = math.fsum(shares.values()) / len(shares)
        return {name: torch.tensor(score, dtype=torch.float64, device=self.device) for name, score in scores.items()}


class ExactMatch(_GroupedShare):
    """The share of predictions whose final answer is that of a reference, read from both by the same rule.

    Args:
        kind: one of `KINDS`: `text` compares the whole text, `number` by `final_number`, `boxed` by `boxed_answer` and
            `equivalent`, `option` by `chosen_option`.

    """

    name = "exact_match"

    def __init__(self, kind: str) -> None:
        if kind not in KINDS:
            raise ValueError(f"an answer of kind {kind!r} is not known: {', '.join(KINDS)} are")
        super().__init__()
        self.kind = kind

    def update(
        self,
        predictions: Sequence[str],
        references: References,
        groups: Sequence[str | None] | None = None,
        options: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Add n rows: a reference is a text or a sequence of alternatives, `options` the valid answers of each row.

        A reference without a box or a mark is itself the boxed answer. A prediction without an answer is wrong.
        Raises ValueError if the lengths differ, a prediction has no reference or a reference no answer.
        """
        pairs = paired(predictions, references)
        if options is not None and len(options) != len(pairs):
            raise ValueError(f"{len(pairs)} predictions but {len(options)} lists of options: give one for each")
        valid = options if options is not None else [()] * len(pairs)
        self._add([self._right(*pair, names) for pair, names in zip(pairs, valid, strict=True)], groups)

    def _right(self, prediction: str, references: Sequence[str], options: Sequence[str]) -> bool:
        expected = [self._expected(reference, options) for reference in references]
        given = final_answer(prediction, self.kind, options)
        if given is None:
            return False
        return any(equivalent(given, answer) if self.kind == "boxed" else given == answer for answer in expected)

    def _expected(self, reference: str, options: Sequence[str]) -> str:
        answer = final_answer(reference, self.kind, options)
        if answer is None and self.kind == "boxed":
            answer = reference.strip()
        if not answer:
            known = f" of {'/'.join(options)}" if self.kind == "option" else ""
            raise ValueError(f"reference {reference[-60:]!r} gives no answer of kind {self.kind}{known}: mend the row")
        return answer


class Accuracy(_GroupedShare):
    """The share of rows that are right, where the caller has decided which are."""

    name = "accuracy"

    def update(self, correct: Sequence[bool], groups: Sequence[str | None] | None = None) -> None:
        """Add n rows, of which `correct` are right; `groups` name a part each, such as a task, or None.

        Raises ValueError if the lengths differ.
        """
        self._add(correct, groups)
