r"""Final answers: numbers, boxed LaTeX, options, on texts by hand and on every row of the real sets."""

import gzip
import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.metrics.answers import (
    Accuracy,
    ExactMatch,
    boxed_answer,
    chosen_option,
    equivalent,
    final_answer,
    final_number,
    options_in,
)
from fedlit.metrics.latex import normalised_latex, value_of

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")

FORMAT = r"Answer format: (\S+)"


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2+3 = 5\n#### 42", "42"),
        ("#### 42 apples\nQuestion: 7 and #### 8", "42"),
        ("####1,234,567.00", "1234567"),
        ("#### $-7.50", "-15/2"),
        ("#### -$7.50", "-15/2"),
        ("#### −3", "-3"),
        ("#### none, though 5", "5"),
        ("5 is it. ####", None),
        ("The answer is: 42.", "42"),
        ("The answer is 41. No: the answer is 42, not 43.", "42"),
        ("So 5. The answer is: unknown", None),
        ("The answer is: 42 #### 43", "43"),
        ("He has 3 + 4 = 7 dollars.", "7"),
        ("10-3", None),
        ("from (2)-3", None),
        ("x = -3", "-3"),
        ("it costs \\$1,200", "1200"),
        ("$1{,}200$ or $1,\\!200$", "1200"),
        ("5.0", "5"),
        ("005", "5"),
        ("-0", "0"),
        ("0.50", "1/2"),
        (".5", "1/2"),
        ("1/2", "1/2"),
        ("4/2", "2"),
        ("-3/6", "-1/2"),
        ("1/0", None),
        ("50%", "50"),
        ("1, 2 and 3, 4", "4"),
        ("12,34", None),
        ("£3.10.", "31/10"),
        ("5th of 3rds", "3"),
        ("", None),
        ("no digit at all, ²", None),
        ("1" * 2000, None),
        # fractions, mixed numbers, powers of ten
        (r"\frac{3}{4}", "3/4"),
        (r"The answer is: $-\dfrac{3}{4}$.", "-3/4"),
        (r"\frac{-3}4", "-3/4"),
        (r"\tfrac34", "3/4"),
        (r"\frac{1.5}{2}", "3/4"),
        ("2 1/2", "5/2"),
        ("#### 2 1/2 cups", "5/2"),
        (r"-2\frac{1}{2}", "-5/2"),
        ("2½", "5/2"),
        ("½", "1/2"),
        ("2 3/2", None),
        (r"2\frac{3}{2}", None),
        ("1e3", "1000"),
        ("1.5E-2", "3/200"),
        ("10^3", "1000"),
        (r"-1.5 \times 10^{3}", "-1500"),
        ("2×10^-1", "1/5"),
        ("1e999999", None),
        # a sum before its result
        ("#### 3 + 4 = 7", "7"),
        (r"The answer is: 3 x 4 = 2 \times 6 = 12 apples, not 13", "12"),
        ("#### x = 5", "5"),
        ("#### 3x = 15", None),
        # more than a number
        ("x^2+1", None),
        ("#### x^2+1", None),
        (r"2\sqrt{3}", None),
        (r"#### 2\sqrt{3}", None),
        (r"\frac{\sqrt{3}}{2}", None),
        (r"\frac{x}{2}", None),
        (r"#### \frac{2}{x}", None),
        (r"3\pi", None),
        (r"\frac{1}{2}\pi", None),
        ("3π", None),
        ("2^{10}", None),
        ("10²", None),
        ("#### (1/2)^2", None),
        (r"\left(\frac{1}{2}\right)^3", None),
        ("3 + 4", None),
        ("#### 10 - 3", None),
        ("#### 5(3 + 4)", None),
        ("-(3)", None),
        (r"#### 5 \pm 2", None),
        ("±5", None),
        ("1:5", None),
        ("10:30", None),
        ("12/25/2020", None),
        ("3,14", None),
        ("(1,2)", None),
        ("1 000", None),
        ("#### 12 500", None),
        ("1 2 3 4", None),
        ("it is 1 2 3 4", "4"),
        ("2b", None),
        ("#### 3s^2", None),
        ("b - 1", None),
        ("The answer is: 3qr + 6q", None),
        ("The answer is: 19 and 43", None),
        (r"19 \text{ and }43", "43"),
        ("#### (5, -10)", None),
        (r"[1, \infty)", None),
        (r"45^\circ, 135^\circ", None),
        ("#### 12, 10, 6", None),
        (r"\binom{5}{2}", None),
        ("1e3x", None),
        # a number all the same
        ("1\u00a0234\u202f567", "1234567"),
        (r"12\,500", "12500"),
        (r"90^\circ", "90"),
        (r"90^{\circ}", "90"),
        ("**42**", "42"),
        ("the answer is *42*.", "42"),
        ("a 5-year-old", "5"),
        ("$5/hour", "5"),
        ("3/4 (3 of 4)", "4"),
        ("5 apples + 3 pears", "3"),
        ("room-5", "5"),
        ("max + 3", "3"),
        (r"$\boxed{5}$", "5"),
        (r"5\text{ cm}", "5"),
        (r"15\mbox{ cm}^2", "15"),
        (r"\textbf{42}", "42"),
        ("#### (5)", "5"),
        ("f(2) = 7", "7"),
        ("x_1 = 5", "5"),
        ("#### 5 m/s", "5"),
        ("7 °C!", "7"),
        ("5 = 5 = 6", "6"),
        # other scripts
        ("答案是-7", "-7"),
        ("答案是4２。", "42"),
        ("答えは－５", "-5"),
        ("الجواب ٤٢", "42"),
        ("٣٫١٤", "157/50"),
        ("उत्तर १२ है", "12"),
        ("है-5", "5"),
        ("₹1,200", "1200"),
        ("5 ₽", "5"),
    ],
)
def test_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == number


@given(st.fractions(), st.sampled_from(["#### {}", "The answer is: {}.", "so it is {} ."]))
def test_a_number_survives_its_sentence(value: Any, sentence: str) -> None:
    assert final_number(sentence.format(value)) == str(value)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789.,/-$%# \n\\boxed{}theanswri:", max_size=60))
def test_no_text_breaks_the_parsers(text: str) -> None:
    number, boxed = final_number(text), boxed_answer(text)
    assert number is None or final_number(number) == number
    assert boxed is None or boxed.strip() == boxed != ""
    assert equivalent(text, text)
    assert normalised_latex(normalised_latex(text)) is not None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $\boxed{5}$.", "5"),
        (r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{a{b{c}}d} e}", "a{b{c}}d"),
        (r"\boxed {7}", "7"),
        (r"$\boxed 5$ and 6", "5"),
        (r"\boxed 5" + "\nnext", "5"),
        (r"\boxed{\left\{ 1, 2 \right.}", r"\left\{ 1, 2 \right."),
        (r"\boxed{ x } The answer is: y", "x"),
        (r"\boxed{1} and \boxed{2", None),
        (r"\boxed{}", None),
        (r"\boxed", None),
        (r"\boxedtext 5", None),
        ("The answer is: $\\frac{1}{2}$.\nNext", r"\frac{1}{2}"),
        ("the answer is 3. The Answer Is: 4.", "4"),
        ("The answer is:\n 5", "5"),
        ("The answer is: ", None),
        ("42", None),
        ("", None),
    ],
)
def test_boxed_answer(text: str, answer: str | None) -> None:
    assert boxed_answer(text) == answer


SAME = [
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"\tfrac12", "1/2"),
    (r"\frac12", "0.5"),
    (r"\frac1{72}", r"\frac{1}{72}"),
    (r"\frac{\pi}2", r"\frac{\pi}{2}"),
    (r"\frac 3 4", r"\frac{3}{4}"),
    ("-3/4", r"-\frac{3}{4}"),
    (r"\frac{-3}{4}", r"-\frac{3}{4}"),
    (r"\sqrt3", r"\sqrt{3}"),
    (r"2\sqrt 3", r"2\sqrt{3}"),
    (r"\left( 1, 2 \right)", "(1,2)"),
    (r"90^\circ", "90"),
    (r"90^{\circ}", "90"),
    (r"\$ 10", "10"),
    (r"50\%", "50"),
    ("50%", "50"),
    (".5", "0.50"),
    ("5.", "5"),
    ("5.00", "5"),
    ("x = 5", "5"),
    (r"5 \text{ cm}", "5"),
    (r"15\mbox{ cm}^2", "15"),
    (r"5\,\text{cm}", "5"),
    (r"\text{Saturday}", r"\mbox{Saturday}"),
    (r"\text{(E)}", r"(\text{E})"),
    ("10,000", "10000"),
    (r"1,\!000,\!000", "1000000"),
    ("1{,}000", "1000"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"(-\infty, \tfrac37]", r"(-\infty,\frac{3}{7}]"),
    (r"x = \text{(A)}", r"\text{(A)}"),
    (r"$x = \text{ (A)}$", "(A)"),
    (r"x = \mbox{even}", r"\text{even}"),
    (r"\mathbf{x} = 5 \text{ cm}", "5"),
    (r"\frac{3}{4}\pi\text{ inches}", r"\frac34\pi"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
    (r"8\sqrt{3} \text { square inches}", r"8\sqrt3"),
    (r"2^{10}\text{ ways.}", "2^{10}"),
    (r"2(3+4)\text{ cm}", "2(3+4)"),
    (r"5!\text{ ways}", "5!"),
    ("9\\text{ a.m.}", "9 a.m."),
    ("\\text{e\u0301te\u0301}", "été"),
]
DIFFERENT = [
    ("5", "6"),
    ("5", "-5"),
    ("0.33", r"\frac{1}{3}"),
    ("1,2", "12"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    (r"\frac{1}{2}", r"\frac{2}{1}"),
    (r"\sqrt{3}", "3"),
    ("x+1", "1+x"),  # no algebra
    (r"\text{A}", r"\text{B}"),
    ("x^2", "x"),
    (r"x \text{ or } y", "x"),
    ("3<x", "x"),
    ("x \\leq 5", "5"),
    (r"\frac{1}{0}", r"\frac{2}{0}"),
    ("", "0"),
    (r"x = \text{(A)}", r"x = \text{(B)}"),
    (r"\text{(A)} \text{(B)}", r"\text{(A)}"),
    (r"n \text{ is even}", r"n \text{ is odd}"),
    (r"n \text{ is even}", "n"),
    (r"(\text{A}) \text{ and } (\text{B})", r"(\text{A})"),
    ("9\\text{ a.m.}", "9\\text{ p.m.}"),
    (r"2 \text{ million}", "2"),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_equivalent(left: str, right: str) -> None:
    assert equivalent(left, right)
    assert equivalent(right, left)


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_not_equivalent(left: str, right: str) -> None:
    assert not equivalent(left, right)
    assert not equivalent(right, left)


@given(st.fractions())
def test_the_value_of_a_fraction(value: Any) -> None:
    for text in (str(value), rf"\dfrac{{{value.numerator}}}{{{value.denominator}}}", f"x = {value}"):
        assert value_of(normalised_latex(text)) == value


def test_every_number_of_gsm8k(shared_folder: Path) -> None:
    for name, num_rows in (("train", 7473), ("test", 1319)):
        answers = [row["answer"] for row in rows(shared_folder / "data" / "gsm8k" / f"{name}.jsonl.gz")]
        assert len(answers) == num_rows
        expected = [answer.split("####")[1].strip().replace(",", "") for answer in answers]
        assert [final_number(answer) for answer in answers] == expected


def test_every_answer_of_math(shared_folder: Path) -> None:
    """5,000 solutions box what the set calls their answer; of 2,047 different answers 154 groups are one answer."""
    examples = rows(shared_folder / "data" / "math_test" / "test.jsonl.gz")
    assert len(examples) == 5000
    texts: list[str] = []
    for row in examples:
        boxed = boxed_answer(row["solution"])
        assert boxed == row["answer"].strip()
        assert equivalent(boxed, row["answer"])
        if (text := re.fullmatch(r"\\(?:text|mbox)\{.*[a-z].*\}", row["answer"], re.IGNORECASE)) is not None:
            texts.append(text[0])
            assert equivalent(rf"x = {text[0]}", text[0])
            assert not equivalent(rf"x = {text[0]}", r"x = \text{another}")
    assert len(texts) == 68
    groups: dict[object, set[str]] = defaultdict(set)
    for answer in {row["answer"] for row in examples}:
        form = normalised_latex(answer)
        assert form
        value = value_of(form)
        groups[form if value is None else value].add(answer)
    assert sum(map(len, groups.values())) == 2047
    assert sum(len(group) > 1 for group in groups.values()) == 154


@pytest.mark.parametrize("sentence", ["#### {}", "The answer is: {}"])
def test_every_number_of_math(sentence: str, shared_folder: Path) -> None:
    """What is a rational number is read as that, and next to nothing else is read as a number."""
    answers = [row["answer"] for row in rows(shared_folder / "data" / "math_test" / "test.jsonl.gz")]
    refused, others = [], []
    for answer in answers:
        value, found = value_of(normalised_latex(answer)), final_number(sentence.format(answer))
        if value is not None and found is None:
            refused.append(answer)
        elif value is not None:
            assert found == str(value), answer
        elif found is not None and not re.fullmatch(r"[0-9]+ ?\\frac.*", answer):
            others.append(answer)
    assert len(refused) == 3, "groups of digits after a comma and a space, and two angles"
    assert others == [r"\text{June 20}", r"7, -2, \text{ and } -5"], "read as prose"


def test_every_option_of_commonsense(shared_folder: Path) -> None:
    examples = rows(shared_folder / "data" / "commonsense" / "test_7tasks.jsonl.gz")
    assert len(examples) == 12377
    for row in examples:
        assert chosen_option(row["output"], options_in(row["instruction"], FORMAT)) == row["answer"]


@pytest.mark.parametrize(
    ("text", "options", "chosen"),
    [
        ("the correct answer is TRUE", ("true", "false"), "true"),
        ("not false but true", ("true", "false"), "false"),
        ("untrue, falsehood", ("true", "false"), None),
        ("answer10 or answer1", ("answer1", "answer10"), "answer10"),
        ("answer1.", ("answer1", "answer2"), "answer1"),
        ("a b c", ("a", "a b"), "a b"),
        ("is it c++?", ("c", "c++"), "c++"),
        ("Yes", ("Yes", "No"), "Yes"),
        ("", ("a",), None),
        ("答案是对的", ("对", "不对"), "对"),
        ("这不对。", ("对", "不对"), "不对"),
        ("答案是A。", ("A", "B"), "A"),
        ("ดีมาก", ("ดี", "เลว"), "ดี"),
        ("ดี", ("ด", "เลว"), None),
        ("सही", ("सह", "गलत"), None),
        ("यह सही है", ("सही", "गलत"), "सही"),
        ("réponse: E\u0301tE\u0301", ("été", "hiver"), "été"),
        ("étés", ("été",), None),
        ("Да, конечно", ("да", "нет"), "да"),
        ("a", (), None),
        ("a", ("",), None),
    ],
)
def test_chosen_option(text: str, options: tuple[str, ...], chosen: str | None) -> None:
    assert chosen_option(text, options) == chosen


def test_options_in() -> None:
    assert options_in("Is it?\n\nAnswer format: true/false", FORMAT) == ("true", "false")
    assert options_in("pick: a b / c /", "pick: (.*)") == ("a b", "c")
    with pytest.raises(ValueError, match=r"finds none in the prompt 'Which one\?'"):
        options_in("Which one?", FORMAT)
    with pytest.raises(ValueError, match="finds none in the prompt"):
        options_in("Answer format: /", FORMAT)
    with pytest.raises(ValueError, match="has no group"):
        options_in("Answer format: a/b", "Answer format")


def computed(metric: ExactMatch | Accuracy) -> dict[str, float]:
    scores = metric.compute()
    assert all(str(score.dtype) == "torch.float64" and score.ndim == 0 for score in scores.values())
    return {name: score.item() for name, score in scores.items()}


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "reference"),
    [
        ("text", " a  b\n", "A b", "a b"),
        ("number", "so 1,000 in total. The answer is: 42", "41", "It is 6*7.\n#### 42"),
        ("number", "I get $42.00", "42.5", "The answer is: 42"),
        ("boxed", r"\boxed{\dfrac12}", r"\boxed{2}", r"Hence $\boxed{\frac{1}{2}}$."),
        ("boxed", "The answer is: 0.5", "0.5", "1/2"),
        ("option", "answer2, not answer1", "answer1", "the correct answer is answer2"),
    ],
)
def test_exact_match(kind: str, right: str, wrong: str, reference: str) -> None:
    metric = ExactMatch(kind)
    options = [("answer1", "answer2")] * 3
    metric.update([right, wrong, ""], [[reference], [reference], [reference]], [None] * 3, options)
    assert computed(metric) == {"exact_match": 1 / 3}
    assert final_answer(right, kind, options[0]) is not None


def test_any_reference_will_do() -> None:
    metric = ExactMatch("number")
    metric.update(["7", "8"], [["#### 6", "#### 7"], ["#### 6", "#### 7"]])
    metric.update(["5"], ["5"])
    assert computed(metric) == {"exact_match": 2 / 3}


def test_groups() -> None:
    metric = ExactMatch("text")
    metric.update(["a", "a", "a", "a"], ["a", "b", "a", "a"], ["y", "y", "x", None])
    assert computed(metric) == {
        "exact_match": 3 / 4,
        "exact_match/x": 1.0,
        "exact_match/y": 1 / 2,
        "exact_match_macro": 3 / 4,
    }
    accuracy = Accuracy()
    accuracy.update([True, False, False], ["x", "x", "y"])
    assert computed(accuracy) == {"accuracy": 1 / 3, "accuracy/x": 1 / 2, "accuracy/y": 0.0, "accuracy_macro": 1 / 4}
    accuracy.update([True])
    assert computed(accuracy)["accuracy"] == 1 / 2


def test_no_row_and_wrong_rows() -> None:
    for metric in (ExactMatch("number"), Accuracy()):
        (score,) = computed(metric).values()
        assert math.isnan(score)
    with pytest.raises(ValueError, match="kind 'letters' is not known: text, number, boxed, option are"):
        ExactMatch("letters")
    with pytest.raises(ValueError, match="1 rows but 2 groups"):
        Accuracy().update([True], ["a", "b"])
    with pytest.raises(ValueError, match="1 predictions but 2 lists of options"):
        ExactMatch("option").update(["a"], ["a"], None, [["a"], ["b"]])
    with pytest.raises(ValueError, match="prediction 0 has 0 references"):
        ExactMatch("number").update(["1"], [[]])
    with pytest.raises(ValueError, match="reference 'none' gives no answer of kind number: mend"):
        ExactMatch("number").update(["1"], [["1", "none"]])
    with pytest.raises(ValueError, match="reference 'c' gives no answer of kind option of a/b: mend"):
        ExactMatch("option").update(["a"], ["c"], None, [["a", "b"]])
    with pytest.raises(ValueError, match="reference '' gives no answer of kind boxed"):
        ExactMatch("boxed").update(["1"], [""])
