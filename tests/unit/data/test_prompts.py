import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlit.config.schema import DataConfig
from fedlit.data.prompts import parse_template, render, template_columns
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
