"""The help names every group, choice, key and option, from the places that define them."""

import re
from pathlib import Path

from fedlit.config import CONFIG_DIR, RunConfig, help_text
from fedlit.config.help import first_comment, key_docs, option_comments
from fedlit.config.keys import run_keys
from fedlit.config.loading import GROUPS, list_choices
from fedlit.recipes import all_options


def words(text: str) -> str:
    return " ".join(text.split())


def test_every_key_stands_with_its_docstring() -> None:
    text, docs = help_text(), key_docs(RunConfig)
    keys = set(run_keys({}))
    assert keys == set(docs) - {"method.options"}
    for key in keys:
        assert docs[key], f"{key} has no docstring"
        assert re.search(rf"^ +{re.escape(key)}=", text, flags=re.MULTILINE), key
        assert words(docs[key]) in words(text), key


def test_every_choice_stands_with_its_first_comment() -> None:
    text = help_text()
    for group in GROUPS:
        for choice, path in list_choices(CONFIG_DIR, group).items():
            comment = first_comment(path.read_text(encoding="utf-8"))
            assert comment, f"{path} does not begin with a comment"
            assert f"{choice} {words(comment)}" in words(text)


def test_every_option_of_every_method_stands_with_its_line_of_help() -> None:
    text = help_text()
    for name, option in all_options().items():
        assert option.help, f"{name} has no line of help"
        assert words(option.help) in words(text)
        assert f"    method.{name}=" in text


def test_the_first_sentence_of_a_comment_is_told_whole() -> None:
    assert first_comment("# A model\n# of two lines (X et al., arXiv 1). More.\n# End\nname: x") == (
        "A model of two lines (X et al., arXiv 1)."
    )
    assert first_comment("# title\n#\n# more") == "title"
    assert first_comment("name: x") == ""


def test_lines_fit_a_hundred_columns_and_hold_the_examples() -> None:
    text = help_text()
    assert max(len(line) for line in text.splitlines()) <= 100
    assert all(example in text for example in ("\n  fedlit run", "\n  fabric run --accel", "\n  torchrun ", "usage: "))


def test_comments_are_read_where_they_stand(config_dir: Path) -> None:
    comments = option_comments((config_dir / "method/nested.yaml").read_text(encoding="utf-8"))
    assert comments["method.lora_rank"] == "rank of the factors"
    assert comments["method.flag"] == ""
    assert comments["method.ranks"] == "one rank per client"
    assert comments["method.galore.rank"] == "rank of the projection"
    assert option_comments("text: 'a # b'  # c # d")["method.text"] == "c # d"


def test_options_that_methods_share_stand_once(config_dir: Path) -> None:
    (config_dir / "method/other.yaml").write_text("# o\nname: fedit\n", encoding="utf-8")
    text = help_text(config_dir)
    assert "\n  fedit, other\n    method.lora_rank=8" in text
    assert text.count("method.lora_rank=8") == text.count("method.target_modules=qkv") == 1
    assert "\n    method.galore.rank=16 " in text
