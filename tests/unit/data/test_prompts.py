import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlit.config.schema import DataConfig
from fedlit.data.prompts import parse_template, prompt_template, render, required_columns, template_columns
from fedlit.errors import UserError


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("{prompt", ["data.template", "expected '}'", "{{ or }}"]),
        ("prompt}", ["data.template", "Single '}'", "{{ or }}"]),
        ("{}", ["{} is not a plain field"]),
        ("{0}", ["{0} is not a plain field"]),
        ("{prompt.x}", ["{prompt.x} is not a plain field"]),
        ("{prompt[0]}", ["{prompt[0]} is not a plain field"]),
        ("{prompt!r}", ["{prompt!r} is not a plain field"]),
        ("{prompt:>9}", ["{prompt:>9} is not a plain field"]),
        ("{{prompt}}", ["has no {column}"]),
        ("", ["has no {column}"]),
        ("{prompt} \ud83d", ["data.template", "half of a surrogate pair", "character 10 of 10"]),
    ],
)
def test_bad_templates(template: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_template(template)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_template_columns_once_each_in_order() -> None:
    assert template_columns("{b} {{x}} {a}{b} {two words}") == ["b", "a", "two words"]


COLUMN = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip())


@given(question=COLUMN, context=COLUMN, response=COLUMN)
def test_render_is_format_where_no_column_is_blank(question: str, context: str, response: str) -> None:
    config = DataConfig(template="{{{q}}}\n\n\n\n{c}: {q}\n\n\n!", response="r")
    expected = config.template.format(q=question, c=context)
    assert render({"q": question, "c": context, "r": response}, config) == (expected, response)


def test_blank_column_leaves_no_gap_and_other_columns_stay() -> None:
    config = DataConfig(template="### Instruction:\n{instruction}\n\n{context}\n\n### Response:\n")
    dolly = {"instruction": "One\n\n\n\ntwo", "context": "", "response": "r"}
    assert render(dolly, config)[0] == "### Instruction:\nOne\n\n\n\ntwo\n\n### Response:\n"
    assert render(dolly | {"context": " \n"}, config)[0] == "### Instruction:\nOne\n\n\n\ntwo\n\n### Response:\n"
    assert render(dolly | {"context": "C\n"}, config)[0] == "### Instruction:\nOne\n\n\n\ntwo\n\nC\n\n\n### Response:\n"
    assert render({"p": "", "r": "x"}, DataConfig(template="{p}\n\n\n\nend", response="r"))[0] == "\n\nend"
    assert render({"p": "", "q": "Q", "r": "x"}, DataConfig(template="P: {p}\n{q}", response="r"))[0] == "P: \nQ"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"template": "{a.b}"}, "data.template: {a.b}"),
        ({"test_template": "{a"}, "data.test_template: "),
        ({"test_template": "?"}, "data.test_template='?' has no {column}"),
        ({"prompt": "a.b"}, "data.prompt='a.b'"),
        ({"prompt": "0"}, "data.prompt='0'"),
        ({"prompt": "a:b"}, "data.prompt='a:b'"),
    ],
)
def test_a_bad_template_is_called_by_its_option(options: dict[str, str], key: str) -> None:
    with pytest.raises(UserError) as caught:
        prompt_template(DataConfig(**options), test="test_template" in options)
    assert str(caught.value).startswith(key), str(caught.value)


def test_the_prompt_of_evaluation() -> None:
    row = {"q": "Q", "r": "R"}
    config = DataConfig(template="{q}:", test_template="{q}: think.", response="r")
    assert render(row, config) == ("Q:", "R")
    assert render(row, config, test=True) == ("Q: think.", "R")
    assert render(row, DataConfig(template="{q}:", response="r"), test=True) == ("Q:", "R")


def test_a_column_as_it_stands() -> None:
    config = DataConfig(prompt="two words", response="r")
    row = {"two words": "a {b}\n\n\n\n", "r": "R"}
    assert render(row, config) == render(row, config, test=True) == ("a {b}\n\n\n\n\n", "R")
    assert required_columns(config) == ["two words"]
    config.test_template = "{r}?"
    assert render(row, config, test=True)[0] == "R?", "what is given for evaluation alone wins there"


def test_a_column_between_dollar_signs() -> None:
    """LaTeX around a column needs nothing special; braces of its own are doubled."""
    config = DataConfig(template="${prompt}$ and $\\frac{{1}}{{2}}$ of ${{{prompt}}}$\n")
    row = {"prompt": "x^2", "response": "y"}
    assert render(row, config) == ("$x^2$ and $\\frac{1}{2}$ of ${x^2}$\n", "y")
    assert template_columns("${prompt}$") == ["prompt"]
